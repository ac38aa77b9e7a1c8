"""Class-conditional residual prototypes: how somebody's samples of a class differ from everybody's samples of that
class.

The class mean carries the label, the residual carries the style (user, device, mounting): that is what is matched on.
"""

from __future__ import annotations

import numpy as np


def class_means(embeddings: np.ndarray, y: np.ndarray, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean embedding per class (classes, dim) float32, zeros where a class has no samples, and counts (classes,)."""
    counts = np.bincount(y, minlength=n_classes).astype(np.int64)
    sums = np.zeros((n_classes, embeddings.shape[1]), np.float64)
    np.add.at(sums, y, embeddings)
    return (sums / np.maximum(counts, 1)[:, None]).astype(np.float32), counts


def residuals(means: np.ndarray, counts: np.ndarray, global_means: np.ndarray) -> np.ndarray:
    """Class means minus the pool's class means (classes, dim); zeros where there are no samples."""
    return np.where(counts[:, None] > 0, means - global_means, 0.0).astype(np.float32)


def similarity(mine: np.ndarray, my_counts: np.ndarray, theirs: np.ndarray, their_counts: np.ndarray) -> float:
    """Cosine of two stacked residuals over the classes both have, each class weighted by how well it is known.

    mine, theirs: (classes, dim); counts: (classes,). -1 (as unlike as can be) where no class is shared.
    """
    known = np.minimum(my_counts, 5) * np.minimum(their_counts, 5)
    if not known.any():
        return -1.0
    weight = np.sqrt(known / known.max())[:, None]
    a, b = (mine * weight).ravel(), (theirs * weight).ravel()
    scale = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / scale if scale > 1e-12 else 0.0
