"""Krum and multi-Krum: updates count that have company (Blanchard et al., "Machine learning with adversaries: Byzantine
tolerant gradient descent", NIPS 2017, sections 4 and 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgelearn.federated.algorithm import Update
from edgelearn.federated.arrays import Arrays, EmptyRound, flat, weighted_mean
from edgelearn.federated.robust import Robust


@dataclass(frozen=True)
class MultiKrum(Robust):
    """The mean of the `keep` updates with the lowest score: the sum of squared distances to the n − f − 2 nearest
    others.

    attackers: f, how many of a cohort may be against us; keep: m, 1 for Krum, 0 for n − f.

    >>> cohort = [Update(str(w), 0, 1, 1, {"w": np.float32([w])}) for w in (1, 2, 3, 2, -900)]
    >>> MultiKrum(attackers=1).combine(cohort)
    {'w': array([2.], dtype=float32)}
    """

    attackers: int = 1
    keep: int = 0

    def suffices(self, updates: int) -> bool:
        """From n = 2f + 3 on; for fewer nothing is proven."""
        return updates >= 2 * self.attackers + 3

    def combine(self, cohort: Sequence[Update]) -> Arrays:
        """Raises EmptyRound where they do not suffice."""
        if not self.suffices(len(cohort)):
            raise EmptyRound(f"{len(cohort)} updates are too few for Krum against {self.attackers} attackers")
        score = scores(_rows(cohort), self.attackers)
        keep = self.keep or len(cohort) - self.attackers
        chosen = np.argsort(score, kind="stable")[:keep]
        return weighted_mean((cohort[number].delta, 1) for number in sorted(chosen))


def scores(vectors: np.ndarray, attackers: int) -> np.ndarray:
    """Krum's score of each vector (n,), lower is better. vectors: (n, size).

    >>> scores(np.array([[0.0], [1], [3], [10], [20]]), 1).tolist()  # to the two nearest: 1 + 9, 1 + 4, 4 + 9 ...
    [10.0, 5.0, 13.0, 130.0, 389.0]
    """
    distances = np.array([_distances(vector.astype(np.float64), vectors) for vector in vectors])
    nearest = np.sort(distances, axis=1)[:, 1 : len(vectors) - attackers - 1]  # without itself
    return np.asarray(nearest.sum(axis=1))


def _rows(cohort: Sequence[Update]) -> np.ndarray:
    """Each update as one vector, filled in one after the other: there is no third copy of the cohort."""
    rows = np.empty((len(cohort), sum(array.size for array in cohort[0].delta.values())), np.float32)
    for row, update in zip(rows, cohort, strict=True):
        row[:] = flat(update.delta)
    return rows


def _distances(vector: np.ndarray, others: np.ndarray) -> list[float]:
    """Squared, one pair at a time: |a|² + |b|² − 2ab would be off by more than the distance where vectors are long and
    alike, and all of them in float64 would be twice the cohort."""
    return [float(np.square(vector - other).sum()) for other in others]
