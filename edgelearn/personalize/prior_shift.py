"""The label prior corrected before adapting: a board's click rate is not the pool's, and a head that has to learn this
from a handful of samples unlearns its ranking on the way (label-shift correction, arXiv 2211.01163; logit adjustment,
Menon et al., ICLR 2021)."""

from __future__ import annotations

import numpy as np

from edgelearn.models.build import Weights

PSEUDO_COUNT = 10.0  # local samples that the pool's rates count for


def log_shift(local_counts: np.ndarray, pool_counts: np.ndarray) -> np.ndarray:
    """log of local over pool share of each class, float32 (classes,). counts: samples per class (classes,).

    Local shares are smoothed towards the pool's, so that a class without local samples keeps a chance. Raises
    ValueError where the pool lacks a class: nothing is known of it.
    """
    if not (pool_counts > 0).all():
        raise ValueError("the pool lacks a class: its share cannot be compared")
    pool = pool_counts / pool_counts.sum()
    local = (local_counts + PSEUDO_COUNT * pool) / (local_counts.sum() + PSEUDO_COUNT)
    return np.asarray(np.log(local / pool), np.float32)


def correct(weights: Weights, local_counts: np.ndarray, pool_counts: np.ndarray) -> Weights:
    """The same model for the board's label prior: the head's bias moved, all else as it was."""
    return {**weights, "head.bias": weights["head.bias"] + log_shift(local_counts, pool_counts)}
