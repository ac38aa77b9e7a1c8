"""Coordinate-wise trimmed mean (Yin et al., ICML 2018, algorithm 1, option II)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgelearn.federated.algorithm import Update
from edgelearn.federated.arrays import Arrays, EmptyRound
from edgelearn.federated.robust import Robust


@dataclass(frozen=True)
class FedTrimmedMean(Robust):
    """Of each coordinate the largest and the smallest `share` (rounded up) of all values are left out.

    >>> cohort = [Update(str(w), 0, 1, 1, {"w": np.float32([w])}) for w in (1, 2, 3, -900)]
    >>> FedTrimmedMean(share=0.25).combine(cohort)
    {'w': array([1.5], dtype=float32)}
    """

    share: float = 0.2

    def suffices(self, updates: int) -> bool:
        """Whether something is left between what is cut off at both ends."""
        return 2 * self._cut(updates) < updates

    def combine(self, cohort: Sequence[Update]) -> Arrays:
        """Raises EmptyRound where they do not suffice."""
        cut = self._cut(len(cohort))
        if not self.suffices(len(cohort)):
            raise EmptyRound(f"{len(cohort)} updates are too few to leave out {cut} at either end")
        kept = slice(cut, len(cohort) - cut)
        return {name: _mean_of([update.delta[name] for update in cohort], kept) for name in cohort[0].delta}

    def _cut(self, updates: int) -> int:
        """How many are left out at either end."""
        return math.ceil(self.share * updates)


def _mean_of(arrays: Sequence[np.ndarray], kept: slice) -> np.ndarray:
    """Of each coordinate, over the values in these places by size."""
    ordered = np.stack(arrays)
    ordered.sort(axis=0)
    return np.asarray(ordered[kept].mean(axis=0, dtype=np.float64).astype(np.float32))
