"""Architectures, one file each. Every model maps a batch to (logits, embedding)."""
