"""The agreement: what board and cloud must read and write alike. No torch, no faiss, no server."""

WIRE_VERSION = 1
