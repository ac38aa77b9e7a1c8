"""A ring of sensors that is worn turned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgelearn.examples import make
from edgelearn.models.build import load, outputs
from edgelearn.personalize.align import best_turn, turn, turn_weights
from edgelearn.pretrain import train_base
from edgewire.tasks import InputSchema, ModelSpec, Task

TASK = Task("band", "Band", InputSchema((16, 6), ring=True), ("a", "b", "c"), ModelSpec("cnn1d", width=8, embedding=8))


def _samples(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Each class is loud on a sensor of its own."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    x = rng.normal(0, 0.3, (n, 16, 6))
    x[np.arange(n), :, 2 * y] *= 8
    x[:, :, 5] *= 3  # and one sensor is louder on everybody: turning is not free
    return x.astype(np.float32), y


@pytest.fixture(scope="module")
def base() -> dict[str, np.ndarray]:
    x, y = _samples(240, 0)
    return train_base(TASK, x, y, np.arange(240) // 60, seed=0, epochs=12, changes=())


def test_turned_weights_answer_as_the_others_do_to_turned_samples(base: dict[str, np.ndarray]) -> None:
    x, _ = _samples(9, 1)
    expected = outputs(load(TASK, base), turn(x, 2))[0]
    assert outputs(load(TASK, turn_weights(base, 2)), x)[0] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("worn", [0, 1, 3, 5])
def test_the_turn_is_found(base: dict[str, np.ndarray], worn: int) -> None:
    x, y = _samples(9, 2)
    found = best_turn(TASK, base, make(turn(x, -worn), y))
    assert found == worn


def test_other_tasks_are_left_alone(base: dict[str, np.ndarray]) -> None:
    x, y = _samples(9, 2)
    plain = replace(TASK, input=InputSchema((16, 6)))
    assert best_turn(plain, base, make(turn(x, -3), y)) == 0


def test_a_ring_is_for_windows_of_channels_only() -> None:
    task = Task("t", "t", InputSchema((6,), ring=True), ("a", "b"), ModelSpec("mlp"))
    assert task.problems() == ["input.ring is for model 'cnn1d', not 'mlp'"]
    assert not TASK.problems()
