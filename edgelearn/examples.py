"""Labelled samples as the algorithms see them, and the way a training step draws from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Examples:
    """x: (n, *shape) raw; y: int64 (n,); group: int64 (n,), the recording a sample came from, equal numbers belong
    together."""

    x: np.ndarray
    y: np.ndarray
    group: np.ndarray

    def __len__(self) -> int:
        return len(self.y)

    def take(self, rows: np.ndarray) -> Examples:
        return Examples(self.x[rows], self.y[rows], self.group[rows])

    def shots(self, n_classes: int) -> float:
        """Mean number of samples per class that is there at all."""
        counts = np.bincount(self.y, minlength=n_classes)
        return float(counts[counts > 0].mean()) if len(self) else 0.0

    @property
    def recordings(self) -> int:
        """How many recordings the samples come from."""
        return len(np.unique(self.group))


def make(x: np.ndarray, y: np.ndarray, group: np.ndarray | None = None) -> Examples:
    """Examples; without groups every sample is a recording of its own. group: any comparable values (n,)."""
    n = len(y)
    codes = np.arange(n) if group is None else np.unique(group, return_inverse=True)[1].reshape(-1)
    return Examples(x, np.asarray(y, np.int64), np.asarray(codes, np.int64))


def groups_from_names(names: np.ndarray) -> np.ndarray:
    """Recording names -> codes; a sample without a name ('') is a recording of its own."""
    codes = np.unique(names, return_inverse=True)[1].reshape(-1).astype(np.int64)
    unnamed = names == ""
    codes[unnamed] = codes.max(initial=0) + 1 + np.arange(int(unnamed.sum()))
    return codes


def join(parts: Sequence[Examples]) -> Examples:
    """All examples, recordings of different parts kept apart."""
    offsets = np.cumsum([0, *(int(part.group.max(initial=-1)) + 1 for part in parts)])
    return Examples(
        np.concatenate([part.x for part in parts]),
        np.concatenate([part.y for part in parts]),
        np.concatenate([part.group + offset for part, offset in zip(parts, offsets, strict=False)]),
    )
