"""Augmentation: what it may change, and what must stay."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgelearn.augment import augmentation, channel_gain, image_shift, noise, time_shift
from edgelearn.models.build import build, fit_front
from edgelearn.pretrain import train_base
from edgewire.tasks import InputSchema, ModelSpec, Task
from tests.learn import world

TASKS = {
    "mlp": Task("t", "T", InputSchema((6,), "float32", True), ("a", "b"), ModelSpec("mlp", 8, 8)),
    "cnn1d": Task("t", "T", InputSchema((20, 3), "int8"), ("a", "b"), ModelSpec("cnn1d", 8, 8)),
    "cnn1d-int16": Task("t", "T", InputSchema((20, 3), "int16"), ("a", "b"), ModelSpec("cnn1d", 8, 8)),
    "cnn2d": Task("t", "T", InputSchema((16, 16), "uint8"), ("a", "b"), ModelSpec("cnn2d", 8, 8)),
    "cnn2d-colour": Task("t", "T", InputSchema((16, 12, 3), "uint8"), ("a", "b"), ModelSpec("cnn2d", 8, 8)),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", TASKS)
def test_what_comes_out_could_have_come_in(name: str) -> None:
    task = TASKS[name]
    whole = task.input.dtype != "float32"
    low, high = (np.iinfo(task.input.dtype).min, np.iinfo(task.input.dtype).max) if whole else (-500, 500)
    x = np.random.default_rng(0).integers(low, high + 1, (40, *task.input.shape)).astype(task.input.dtype)
    model = build(task)
    fit_front(model, x)
    augment = augmentation(task, model)
    assert augment is not None
    changed = augment(torch.from_numpy(x), generator())
    assert changed.shape == x.shape
    assert changed.dtype == torch.float32
    assert torch.isfinite(changed).all()
    assert not whole or (changed.min() >= low and changed.max() <= high)
    assert not torch.equal(changed, torch.from_numpy(x).float())
    assert torch.equal(changed, augment(torch.from_numpy(x), generator()))
    assert not torch.equal(changed, augment(torch.from_numpy(x), generator(1)))


def test_without_changes_samples_pass_as_they_are() -> None:
    assert augmentation(TASKS["cnn1d"], build(TASKS["cnn1d"]), ()) is None


def test_a_missing_value_stays_one() -> None:
    task = TASKS["mlp"]
    x = torch.zeros(3, 6)
    x[1, 2] = torch.nan
    augment = augmentation(task, build(task))
    assert augment is not None
    changed = augment(x, generator())
    assert torch.isnan(changed).nonzero().tolist() == [[1, 2]]


def test_a_shift_moves_all_channels_alike_and_repeats_the_edge() -> None:
    x = torch.arange(10.0).reshape(1, 10, 1).expand(200, 10, 2)
    moved = time_shift(0.2)(x, generator())
    assert torch.equal(moved[..., 0], moved[..., 1])
    seen = {tuple(int(value) for value in row) for row in moved[..., 0]}
    assert seen == {tuple(min(max(i + by, 0), 9) for i in range(10)) for by in (-2, -1, 0, 1, 2)}


def test_an_image_moves_along_both_axes() -> None:
    x = torch.zeros(300, 9, 9)
    x[:, 4, 4] = 1
    moved = image_shift(0.12)(x, generator())
    assert torch.equal(moved.sum(dim=(1, 2)), torch.ones(300))
    places = {tuple(place) for place in moved.nonzero()[:, 1:].tolist()}
    assert places == {(i, j) for i in (3, 4, 5) for j in (3, 4, 5)}


def test_a_gain_is_one_number_per_sample_and_channel() -> None:
    changed = channel_gain(0.3)(torch.ones(500, 20, 3), generator())
    assert torch.equal(changed, changed[:, :1].expand(500, 20, 3))
    assert changed[:, 0].log().std().item() == pytest.approx(0.3, rel=0.1)


def test_noise_is_measured_in_standard_deviations_of_the_pool() -> None:
    task = TASKS["mlp"]
    x = np.random.default_rng(0).normal(5, 40, (4000, 6)).astype(np.float32)
    model = build(task)
    fit_front(model, x)
    augment = augmentation(task, model, (noise(0.5),))
    assert augment is not None
    added = augment(torch.from_numpy(x), generator()) - torch.from_numpy(x)
    assert added.std().item() == pytest.approx(20, rel=0.05)


def test_the_base_is_trained_on_augmented_samples_and_the_same_for_the_same_seed() -> None:
    x, y = world.samples(world.style(1, 0.3), 10, 1)
    people = np.arange(len(y)) % 2
    first, again = (train_base(world.TASK, x, y, people, seed=0, epochs=2) for _ in range(2))
    plain = train_base(world.TASK, x, y, people, seed=0, epochs=2, changes=())
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["head.weight"], plain["head.weight"])
