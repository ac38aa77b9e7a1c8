"""The board: collects samples, syncs with the cloud, trains a personal model on evidence, and infers with it."""

__version__ = "0.1.0"
