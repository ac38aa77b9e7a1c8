"""Who agrees with a board about the same items: what takes the place of a class in matching on click tasks.

Two labels over thousands of items make no class mean: a contributor's prototype is their residual per item, label minus
what the base expected of them, for the items that they have labels of. Neighbourhood methods have worked on such
residuals since Resnick et al., "GroupLens" (1994); Herlocker et al. (SIGIR 1999) shrink the likeness of those who have
few items in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

COMMON_PRIOR = 10.0  # items in common that say nothing
CONSENSUS_PRIOR = 3.0  # agreeing labels of an item that say nothing


@dataclass(frozen=True)
class Residuals:
    """What somebody thinks of items beyond what was expected. item: int (n,), each once; residual: -1..1 (n,)."""

    item: np.ndarray
    residual: np.ndarray


def residuals_of(item: np.ndarray, y: np.ndarray, expected: np.ndarray) -> Residuals:
    """One contributor's prototype. item, y (0 or 1): int (n,); expected: probability of label 1 by the base (n,).

    Their own rate is taken out first, shrunk as if by five more samples: who likes everything agrees with nobody more.
    """
    news = y - expected
    news = news - news.sum() / (len(news) + 5)
    items, place = np.unique(item, return_inverse=True)
    place = place.reshape(-1)
    return Residuals(items, np.bincount(place, news) / np.bincount(place))


def likeness(mine: Residuals, theirs: Residuals) -> float:
    """Cosine over the items both have, shrunk by how few they are: -1..1, 0 where there are none."""
    _, here, there = np.intersect1d(mine.item, theirs.item, assume_unique=True, return_indices=True)
    a, b = mine.residual[here], theirs.residual[there]
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale * len(a) / (len(a) + COMMON_PRIOR) if scale > 1e-12 else 0.0


def consensus(people: Sequence[Residuals], weights: Sequence[float], items: int) -> np.ndarray:
    """What these people think of each item: the weighted mean of their residuals, shrunk where few of them have it.

    weights: 0 or more, one of each. Returns float64 (items,), 0 for an item that none of them has.
    """
    total, mass = np.zeros(items), np.zeros(items)
    for one, weight in zip(people, weights, strict=True):
        total[one.item] += weight * one.residual
        mass[one.item] += weight
    return total / (mass + CONSENSUS_PRIOR)
