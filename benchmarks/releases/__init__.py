"""Releases: 10,000 boards, each with the real health gate on real ONNX files."""
