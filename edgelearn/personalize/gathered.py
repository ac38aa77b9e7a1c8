"""All candidates' samples in one place, for recipes that choose samples rather than contributors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgelearn.examples import Examples
from edgelearn.models.build import Weights
from edgelearn.personalize.joint import train_outside
from edgelearn.personalize.setting import Candidate, Personal, Setting


@dataclass(frozen=True)
class Gathered:
    """x: (n, *shape); y: (n,); embedding: (n, dim) by the base; owner: (n,), whose it is: a position in `names`."""

    x: np.ndarray
    y: np.ndarray
    embedding: np.ndarray
    owner: np.ndarray
    names: tuple[str, ...]

    def examples(self, rows: np.ndarray) -> Examples:
        return Examples(self.x[rows], self.y[rows], self.owner[rows])


def gather_samples(candidates: Sequence[Candidate]) -> Gathered:
    """The samples of all (at least one) candidates."""
    return Gathered(
        np.concatenate([candidate.x for candidate in candidates]),
        np.concatenate([candidate.y for candidate in candidates]),
        np.concatenate([candidate.embedding for candidate in candidates]),
        np.repeat(np.arange(len(candidates)), [len(candidate.y) for candidate in candidates]),
        tuple(candidate.name for candidate in candidates),
    )


def nearest_rows(mine: np.ndarray, my_y: np.ndarray, others: np.ndarray, their_y: np.ndarray, count: int) -> np.ndarray:
    """For each class, the `count` rows of `others` that are nearest to any of my samples of that class, Euclidean.

    mine: (n, dim); others: (m, dim); classes that I have no samples of are left out.
    """
    found = []
    for label in np.unique(my_y):
        rows = np.flatnonzero(their_y == label)
        own, pool = mine[my_y == label].astype(np.float64), others[rows].astype(np.float64)
        squared = (pool**2).sum(axis=1)[:, None] - 2 * pool @ own.T + (own**2).sum(axis=1)
        found.append(rows[np.argsort(squared.min(axis=1), kind="stable")[:count]])
    return np.concatenate(found)


def train_on_rows(setting: Setting, start: Weights, gathered: Gathered, rows: np.ndarray) -> Personal:
    """Joint training on the board's samples and these of the others'."""
    kept = tuple(gathered.names[owner] for owner in np.unique(gathered.owner[rows]))
    weights = train_outside(setting, start, gathered.examples(rows) if len(rows) else None)
    return Personal(weights, len(gathered.names), len(gathered.y), kept, len(rows))
