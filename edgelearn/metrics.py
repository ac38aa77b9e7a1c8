"""How good predictions are, per sample, so that comparisons can be paired."""

from __future__ import annotations

import numpy as np

from edgewire.tasks import Metric


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


def placements(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Share of the samples of the other label that each sample is ranked right against, per sample (n,); ties count a
    half. Their mean over either label, and so over all, is the area under the ROC curve (DeLong et al., 1988).

    logits: (n, 2); y: 0 or 1. 0.5 everywhere, the score of chance, where only one label is there.
    """
    score = logits[:, 1] - logits[:, 0]
    placed = np.full(len(y), 0.5)
    positive, negative = score[y == 1], score[y == 0]
    if len(positive) and len(negative):
        placed[y == 1] = _share_below(positive, negative)
        placed[y == 0] = 1.0 - _share_below(negative, positive)
    return placed


def _share_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    ordered = np.sort(others)
    below, upto = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    return np.asarray((below + upto) / (2 * len(ordered)))


def row_scores(metric: Metric, logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """What each sample adds to the metric (n,): its mean is the metric."""
    return placements(logits, y) if metric == "auc" else hits(logits, y)


def scores_by_fold(metric: Metric, logits: np.ndarray, y: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """`row_scores` (n,) where every fold (n,) has a model of its own: ranks are among the samples of a fold."""
    scores = np.zeros(len(y))
    for number in np.unique(fold):
        scores[fold == number] = row_scores(metric, logits[fold == number], y[fold == number])
    return scores


def score(metric: Metric, logits: np.ndarray, y: np.ndarray) -> float:
    """The metric on all samples, 0..1. Raises ValueError for no samples."""
    if len(y) == 0:
        raise ValueError(f"{metric} of no samples")
    return float(row_scores(metric, logits, y).mean())
