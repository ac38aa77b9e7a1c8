"""Less memory, the same training: batches in pieces, and fits that go on where they were cut off."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from edgelearn.fit import FitSettings, Source, Step, fit
from edgelearn.kept import fit_kept, name_of
from edgelearn.models.build import Weights, get_weights, load, outputs
from edgelearn.personalize.recipes import RECIPES
from tests.learn import world

SETTINGS = FitSettings(steps=20, batch_size=24, learning_rate=1e-3)


def source(*, classes: int = world.CLASSES) -> Source:
    """Few local samples, some from outside; of the last classes none where there are fewer."""
    x, y = world.samples(world.style(1, 1.0), 6, 1)
    others = world.candidate("p", *world.samples(world.style(2, 1.0), 10, 2)).examples()
    local = world.make(x, y).take(np.flatnonzero(y < classes))
    outside = others.take(np.flatnonzero(others.y < classes))
    return Source(local, outside, teacher=outputs(load(world.TASK, world.base()), local.x)[0])


def trained(about: Source, settings: FitSettings) -> Weights:
    model = load(world.TASK, world.base())
    for _ in fit(model, about, settings, seed=3):
        pass
    return get_weights(model)


@pytest.mark.parametrize("classes", [world.CLASSES, 2])
@pytest.mark.parametrize("piece", [1, 5, 23])
def test_a_batch_in_pieces_is_the_same_step_but_for_rounding(classes: int, piece: int) -> None:
    """Also where absent classes are distilled: some pieces then hold no local sample at all."""
    about = source(classes=classes)
    whole, pieces = trained(about, SETTINGS), trained(about, replace(SETTINGS, micro_batch=piece))
    start = world.base()
    moved = max(float(np.abs(whole[name] - start[name]).max()) for name in whole)
    apart = max(float(np.abs(whole[name] - pieces[name]).max()) for name in whole)
    assert moved > 1e-2
    assert apart < 1e-4 * moved + 1e-5


def test_pieces_as_large_as_the_batch_have_the_same_bits() -> None:
    about = source(classes=2)
    whole, pieces = trained(about, SETTINGS), trained(about, replace(SETTINGS, micro_batch=24))
    assert all(np.array_equal(whole[name], pieces[name]) for name in whole)


def test_the_loss_of_a_step_in_pieces_is_that_of_the_batch() -> None:
    about = source(classes=2)
    whole = next(fit(load(world.TASK, world.base()), about, SETTINGS, seed=3)).loss
    pieces = next(fit(load(world.TASK, world.base()), about, replace(SETTINGS, micro_batch=5), seed=3)).loss
    assert pieces == pytest.approx(whole, rel=1e-5)


def test_head_only_leaves_the_other_layers_as_they_were() -> None:
    settings = replace(world.QUICK, head_below=math.inf)
    board = world.board(world.style(41, 1.6), [], settings=settings)
    found = RECIPES["local"](board).weights
    changed = {name for name in found if not np.array_equal(found[name], board.base[name])}
    assert changed == {"head.weight", "head.bias"}


# Fits that go on


class Cut(Exception):
    """Enough for now."""


class Memory:
    """Keeps everything. calls: what it was told."""

    def __init__(self) -> None:
        self.states: dict[str, dict[str, np.ndarray]] = {}
        self.finished_fits: list[str] = []

    def recall(self, name: str) -> dict[str, np.ndarray] | None:
        return self.states.get(name)

    def passed(self, name: str, step: Step) -> None:
        pass

    def cut(self, name: str, step: Step) -> None:
        self.states[name] = step.state()

    def finished(self, name: str, state: dict[str, np.ndarray]) -> None:  # type: ignore[override]
        self.finished_fits.append(name)
        self.states[name] = dict(state)


class After:
    """Raises Cut at the n-th step."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Cut


@pytest.mark.parametrize("recipe", ["local", "mpda", "bayes"])
def test_a_personalization_that_was_cut_again_and_again_ends_with_the_same_bits(recipe: str) -> None:
    people = [world.candidate(f"p{i}", *world.samples(world.style(41 if i < 2 else i, 1.6), 8, i)) for i in range(3)]
    board = world.board(world.style(41, 1.6), people)
    expected = RECIPES[recipe](board).weights
    memory, cuts = Memory(), 0
    while True:
        try:
            found = RECIPES[recipe](replace(board, on_step=After(37), keeper=memory)).weights
            break
        except Cut:
            cuts += 1
    assert cuts > 1
    assert all(np.array_equal(expected[name], found[name]) for name in expected)


def test_what_was_finished_is_not_done_again() -> None:
    board, memory = world.board(world.style(41, 1.6), []), Memory()
    first = RECIPES["local"](replace(board, keeper=memory)).weights
    steps = After(10_000)
    again = RECIPES["local"](replace(board, keeper=memory, on_step=steps)).weights
    assert steps.left == 10_000
    assert all(np.array_equal(first[name], again[name]) for name in first)


def test_a_cut_at_the_last_step_loses_nothing() -> None:
    memory = Memory()
    model = load(world.TASK, world.base())
    with pytest.raises(Cut):
        fit_kept(model, source(), SETTINGS, seed=3, about="", on_step=After(SETTINGS.steps), keeper=memory)
    other = load(world.TASK, world.base())
    fit_kept(other, source(), SETTINGS, seed=3, about="", on_step=After(1), keeper=memory)  # not one step more
    assert all(
        np.array_equal(a, b) for a, b in zip(get_weights(model).values(), get_weights(other).values(), strict=True)
    )


def test_any_difference_that_matters_is_another_fit() -> None:
    def name(
        about: Source | None = None, settings: FitSettings = SETTINGS, seed: int = 3, start: int = 0, task: str = "toy"
    ) -> str:
        weights = {key: array + np.float32(start) for key, array in world.base().items()}
        return name_of(load(world.TASK, weights), about or source(), settings, seed=seed, about=task)

    about = source()
    moved = about.local.x.copy()
    moved[0, 0] += 1
    others = [
        name(seed=4),
        name(task="other"),
        name(start=1),
        name(settings=replace(SETTINGS, steps=21)),
        name(settings=replace(SETTINGS, micro_batch=4)),
        name(about=replace(about, outside=None)),
        name(about=replace(about, teacher=None)),
        name(about=replace(about, local=replace(about.local, x=moved))),
        name(about=replace(about, local=replace(about.local, y=1 - np.minimum(about.local.y, 1)))),
        name(about=replace(about, alive=np.ones(world.CLASSES, bool))),
        name(about=replace(about, augment=lambda x, generator: x)),
    ]
    assert name() == name()
    assert len({name(), *others}) == 1 + len(others)
