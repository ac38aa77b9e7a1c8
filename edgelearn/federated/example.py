"""The smallest learner there is, for examples and for numbers that can be checked by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgelearn.federated.arrays import Arrays


class Pull:
    """One number `w` that is pulled to a board's samples: the loss of sample s is ½(w − s)², its gradient w − s."""

    def __init__(self, samples: Sequence[float]) -> None:
        self.samples = np.asarray(samples, np.float32)

    @property
    def num_samples(self) -> int:
        return len(self.samples)

    def gradient(self, weights: Mapping[str, np.ndarray], rows: np.ndarray) -> Arrays:
        return {"w": weights["w"] - self.samples[rows].mean(dtype=np.float32)}


class Opinion:
    """A model whose logits are its weights `w` (classes,), whatever the sample."""

    def likely(self, weights: Mapping[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
        odds = np.exp(weights["w"])
        return np.tile(odds / odds.sum(), (len(rows), 1))

    def towards(self, weights: Mapping[str, np.ndarray], rows: np.ndarray, targets: np.ndarray) -> Arrays:
        return {"w": (self.likely(weights, rows) - targets).mean(axis=0, dtype=np.float32)}
