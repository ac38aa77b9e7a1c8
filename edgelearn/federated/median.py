"""Coordinate-wise median (Yin et al., "Byzantine-robust distributed learning: towards optimal statistical rates", ICML
2018, algorithm 1, option I)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgelearn.federated.algorithm import Update
from edgelearn.federated.arrays import Arrays
from edgelearn.federated.robust import Robust


@dataclass(frozen=True)
class FedMedian(Robust):
    """Each coordinate moves by the median of what boards want: fewer than half of them cannot move it out of the range
    of the others.

    >>> cohort = [Update(str(w), 0, 1, 1, {"w": np.float32([w])}) for w in (1, 2, -900)]
    >>> FedMedian().combine(cohort)
    {'w': array([1.], dtype=float32)}
    """

    def combine(self, cohort: Sequence[Update]) -> Arrays:
        return {
            name: np.median(np.stack([update.delta[name] for update in cohort]), axis=0, overwrite_input=True).astype(
                np.float32
            )
            for name in cohort[0].delta
        }
