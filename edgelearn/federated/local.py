"""Training on a board: plain SGD, which every algorithm here starts from and corrects in its own way."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import islice

import numpy as np

from edgelearn.federated.algorithm import Learner, LocalSettings
from edgelearn.federated.arrays import Arrays, copied

# (gradient, weights): changes the gradient of one step in place
Correct = Callable[[Arrays, Arrays], None]


def batches(num_samples: int, settings: LocalSettings, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Row numbers of each step: every epoch in a new order, its last batch as small as it comes."""
    size = settings.batch_size or num_samples
    for _ in range(settings.epochs):
        rows = rng.permutation(num_samples)
        for start in range(0, num_samples, size):
            yield rows[start : start + size]


def steps_of(num_samples: int, settings: LocalSettings) -> int:
    """How many steps `batches` makes, if nothing stops them.

    >>> steps_of(25, LocalSettings(epochs=2, batch_size=10))
    6
    """
    return settings.epochs * math.ceil(num_samples / (settings.batch_size or num_samples))


def local_sgd(
    learner: Learner,
    weights: Mapping[str, np.ndarray],
    settings: LocalSettings,
    rng: np.random.Generator,
    correct: Correct | None = None,
) -> tuple[Arrays, int]:
    """w ← w − η·(g(w) + correction) for some epochs. Returns the weights, copied, and the number of steps.

    Raises ValueError for a board without samples.
    """
    if learner.num_samples < 1:
        raise ValueError("nothing to train on: the board has no samples")
    local, steps = copied(weights), 0
    for rows in islice(batches(learner.num_samples, settings, rng), settings.max_steps or None):
        gradient = learner.gradient(local, rows)
        if correct is not None:
            correct(gradient, local)
        for name, slope in gradient.items():
            slope *= settings.learning_rate
            local[name] -= slope
        steps += 1
    return local, steps
