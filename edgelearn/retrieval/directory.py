"""The directory: a few kilobytes that describe the pool, which a board matches against without telling anybody."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgelearn.retrieval.prototypes import class_means, residuals, similarity


@dataclass(frozen=True)
class Directory:
    """global_means: float32 (classes, dim), the pool's class means; cohort_residuals: float32 (cohorts, classes, dim);
    cohort_counts: int64 (cohorts, classes), samples behind each residual."""

    global_means: np.ndarray
    cohort_residuals: np.ndarray
    cohort_counts: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """The same as named arrays."""
        return {
            "global_means": self.global_means,
            "cohort_residuals": self.cohort_residuals,
            "cohort_counts": self.cohort_counts,
        }

    @property
    def cohorts(self) -> int:
        return len(self.cohort_counts)


def describe(embeddings: np.ndarray, y: np.ndarray, cohort: np.ndarray, *, n_classes: int) -> Directory:
    """The directory of a pool. embeddings: (n, dim); y, cohort: int (n,), cohorts numbered from 0."""
    global_means, _ = class_means(embeddings, y, n_classes)
    cohort_residuals, cohort_counts = [], []
    for k in range(int(cohort.max()) + 1):
        rows = cohort == k
        means, counts = class_means(embeddings[rows], y[rows], n_classes)
        cohort_residuals.append(residuals(means, counts, global_means))
        cohort_counts.append(counts)
    return Directory(global_means, np.stack(cohort_residuals), np.stack(cohort_counts))


def rank_cohorts(directory: Directory, embeddings: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Likeness of each cohort to local samples (cohorts,), larger is more alike."""
    means, counts = class_means(embeddings, y, len(directory.global_means))
    mine = residuals(means, counts, directory.global_means)
    return np.asarray(
        [
            similarity(mine, counts, theirs, their_counts)
            for theirs, their_counts in zip(directory.cohort_residuals, directory.cohort_counts, strict=True)
        ]
    )
