"""Cohorts: contributors grouped by likeness, none smaller than the task's minimum."""

from __future__ import annotations

import numpy as np


def merge_small(features: np.ndarray, assignment: np.ndarray, minimum: int) -> np.ndarray:
    """Merge the smallest cohort into its nearest until each has `minimum` members (or one is left).

    features: (contributors, dim); assignment: int (contributors,). Returns a new assignment numbered 0..K-1.
    """
    current = np.unique(assignment, return_inverse=True)[1].reshape(-1)
    while True:
        sizes = np.bincount(current)
        if len(sizes) == 1 or sizes.min() >= minimum:
            return np.asarray(current)
        centres = np.stack([features[current == k].mean(axis=0) for k in range(len(sizes))])
        smallest = int(sizes.argmin())
        distances = ((centres - centres[smallest]) ** 2).sum(axis=1)
        distances[smallest] = np.inf
        current = np.where(current == smallest, int(distances.argmin()), current)
        current = np.unique(current, return_inverse=True)[1].reshape(-1)
