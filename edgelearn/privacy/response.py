"""k-ary randomized response (Kairouz, Oh, Viswanath 2014): the truth with probability e^eps / (e^eps + K - 1).

Whoever asks again must repeat the first answer (memoise it): independent answers average out.
"""

from __future__ import annotations

import math

import numpy as np


def truth_probability(k: int, epsilon: float) -> float:
    """Probability that the answer is the true one of k."""
    return 1.0 / (1.0 + (k - 1) * math.exp(-epsilon))


def randomize(truth: int, k: int, epsilon: float, rng: np.random.Generator) -> int:
    """One epsilon-differentially private answer in 0..k-1. Raises ValueError for k < 1 or a truth outside."""
    if not 0 <= truth < k:
        raise ValueError(f"{truth} is not one of {k}")
    if k == 1 or rng.random() < truth_probability(k, epsilon):
        return truth
    other = int(rng.integers(k - 1))
    return other if other < truth else other + 1
