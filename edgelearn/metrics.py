"""How good predictions are, per sample, so that comparisons can be paired."""

from __future__ import annotations

import numpy as np


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities (n, classes), stable for large logits."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def log_losses(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Negative log-probability of the true label, per sample (n,)."""
    return np.asarray(-log_softmax(logits.astype(np.float64))[np.arange(len(y)), y])


def hits(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """1.0 where the most probable label is the true one, per sample (n,)."""
    return np.asarray(logits.argmax(axis=1) == y, np.float64)


def accuracy(logits: np.ndarray, y: np.ndarray) -> float:
    """Share of right answers. Raises ValueError for no samples: an accuracy of nothing is not zero."""
    if len(y) == 0:
        raise ValueError("accuracy of no samples")
    return float(hits(logits, y).mean())
