"""Input alignment: the turn in which a board's ring of sensors fits the base best.

An armband may be worn turned, so that sensor 0 sits where the pool's sensor 3 did. Every turn of the channels keeps the
label. The base likes one of them best on the board's labelled samples; the weights are turned, not the samples, so that
the model that is shipped takes samples as they come. Only for tasks that say `input.ring`. Ours.
"""

from __future__ import annotations

import numpy as np

from edgelearn.examples import Examples
from edgelearn.metrics import log_losses
from edgelearn.models.build import Weights, load, outputs
from edgewire.tasks import Task

MARGIN = 0.1  # mean log-loss that a turn must gain over none: most boards are worn as they should be
WORST = 4.0  # bound of one sample's log-loss: one hopeless sample must not decide


def best_turn(task: Task, base: Weights, local: Examples, *, device: str = "cpu") -> int:
    """Places to turn the channels by, 0 for none. np.roll(x, turn, axis=-1) looks to the base like the pool's x."""
    if task.input.ring is not True or len(local) == 0:
        return 0
    model = load(task, base).to(device)
    losses = np.asarray(
        [
            np.minimum(log_losses(outputs(model, turn(local.x, by))[0], local.y), WORST).mean()
            for by in range(task.input.shape[-1])
        ]
    )
    best = int(losses.argmin())
    return best if losses[best] < losses[0] - MARGIN else 0


def turn(x: np.ndarray, by: int) -> np.ndarray:
    """x (n, time, channels) with its channels moved on by so many places."""
    return np.ascontiguousarray(np.roll(x, by, axis=-1))


def turn_weights(weights: Weights, by: int) -> Weights:
    """Weights of a `cnn1d` that answers to x as the given ones do to turn(x, by)."""
    return {
        **weights,
        "front.mean": np.roll(weights["front.mean"], -by, axis=-1),
        "front.std": np.roll(weights["front.std"], -by, axis=-1),
        "conv1.weight": np.roll(weights["conv1.weight"], -by, axis=1),
    }
