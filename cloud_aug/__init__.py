"""The cloud: a pool of samples shared by consent, a base model, and what boards match themselves against."""
