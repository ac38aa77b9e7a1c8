"""The benchmark of local fine-tuning: who plays a board, what each variant answers, and what is called the best."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import tuning
from benchmarks.blending import blends
from benchmarks.protocols import Fold
from benchmarks.tuning import BASE, DEFAULT, Variants, compare, measure, mix_neighbours
from edgelearn.examples import make
from edgelearn.fit import FitSettings
from edgelearn.metrics import accuracy
from edgelearn.models.build import Weights, build, fit_front, get_weights, load, outputs
from edgelearn.personalize.recipes import RECIPES
from edgelearn.personalize.rehearsal import deal
from edgelearn.personalize.setting import Setting, Settings
from edgewire.tasks import InputSchema, ModelSpec, Task
from tests.learn import world


@pytest.fixture(autouse=True)
def _few_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "STEPS", (10, 60))
    monkeypatch.setattr(tuning, "RATES", (1e-3,))


def toy_fold(samples: int = 8) -> Fold:
    """Six people with 4 x `samples` rows each, and one with two rows only."""
    parts = [world.samples(world.style(person, 0.3), samples, person) for person in range(6)]
    parts.append((parts[0][0][:2], parts[0][1][:2]))
    owner = np.repeat(np.arange(7), [len(y) for _, y in parts])
    x, y = np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])
    return Fold("all", world.TASK, x, y, owner, [], 0, epochs=2)


def answers(setting: Setting, x: np.ndarray) -> dict[str, np.ndarray]:
    return dict(Variants(setting, x).answers())


def test_neighbours_overrule_a_model_in_doubt_but_not_one_that_is_sure() -> None:
    logits = np.asarray([[0.1, 0.0, -9.0], [5.0, 0.0, -9.0]])
    asked, known = np.zeros((2, 2)), np.asarray([[0.0, 1.0], [0.0, 1.0], [3.0, 0.0]])
    mixed = mix_neighbours(logits, asked, known, np.asarray([1, 1, 0]))
    assert mixed.argmax(axis=1).tolist() == [1, 0]
    assert np.exp(mixed).sum(axis=1) == pytest.approx([1.0, 1.0])
    far = np.exp(-3.0) / (2 * np.exp(-1.0) + np.exp(-3.0))
    own = np.exp(5.0) / (np.exp(5.0) + 1 + np.exp(-9.0))
    assert np.exp(mixed[1, 0]) == pytest.approx(0.7 * own + 0.3 * far)


def test_only_the_nearest_have_a_say() -> None:
    known = np.asarray([[float(i)] for i in range(1, 8)])
    y = np.asarray([0, 0, 0, 0, 0, 1, 1])
    mixed = np.exp(mix_neighbours(np.zeros((1, 2)), np.zeros((1, 1)), known, y))
    assert mixed[0] == pytest.approx([0.7 * 0.5 + 0.3, 0.7 * 0.5])


def test_the_default_is_the_recipe_that_ships_and_settings_like_it_change_nothing() -> None:
    setting = world.board(world.style(3, 1.0), [], per_class=3)
    x, _ = world.samples(world.style(3, 1.0), 20, 7)
    found = answers(setting, x)
    shipped = outputs(load(world.TASK, RECIPES["local"](setting).weights), x)[0]
    assert np.array_equal(found[DEFAULT], shipped)
    tuned = replace(setting, settings=Settings(local=FitSettings(steps=60)))
    again = answers(tuned, x)
    assert np.array_equal(again["all layers, 60 steps, 0.001"], again[DEFAULT])
    assert not np.array_equal(again["all layers, 10 steps, 0.001"], again[DEFAULT])
    assert "without alignment" not in found


def test_the_same_board_gets_the_same_answers_and_every_variant_is_another_model() -> None:
    setting = world.board(world.style(3, 1.0), [], per_class=6)  # more samples than a batch: the seed counts
    x, _ = world.samples(world.style(3, 1.0), 20, 7)
    found, again = answers(setting, x), answers(setting, x)
    assert all(np.array_equal(found[name], again[name]) for name in found)
    del found["all layers, 60 steps, 0.001"]  # the default's own
    assert len({logits.tobytes() for logits in found.values()}) == len(found) == 6


def test_a_turned_armband_is_answered_with_and_without_alignment(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task("ring", "R", InputSchema((8, 4), ring=True), ("a", "b"), ModelSpec("cnn1d", 8, 8))
    x = np.random.default_rng(0).normal(size=(12, 8, 4)).astype(np.float32)
    model = build(task)
    fit_front(model, x)
    local = make(x, np.arange(12) % 2)
    setting = Setting(task, get_weights(model), local, (), np.zeros((2, 8), np.float32), world.QUICK, 0)
    monkeypatch.setattr("edgelearn.personalize.setting.best_turn", lambda *_, **__: 1)
    found = answers(setting, x)
    assert not np.array_equal(found["without alignment"], found[DEFAULT])
    monkeypatch.setattr("edgelearn.personalize.setting.best_turn", lambda *_, **__: 0)
    found = answers(replace(setting), x)
    assert np.array_equal(found["without alignment"], found[DEFAULT])


def test_the_base_never_meets_those_who_play_boards(monkeypatch: pytest.MonkeyPatch) -> None:
    trained_on: list[int] = []

    def train_base(task: Task, x: np.ndarray, y: np.ndarray, contributor: np.ndarray, **_: object) -> Weights:
        trained_on.extend(np.unique(contributor).tolist())
        return world.base()

    monkeypatch.setattr(tuning, "train_base", train_base)
    found = measure(toy_fold(), boards=3, seeds=1, shots=(1,))
    assert len(trained_on) == 4
    played = set(found[1])
    assert played == {str(person) for person in set(range(6)) - set(trained_on)}  # person 6 has too few rows to play


def test_in_parts_each_base_never_meets_those_of_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    trained_on: list[set[int]] = []

    def train_base(task: Task, x: np.ndarray, y: np.ndarray, contributor: np.ndarray, **_: object) -> Weights:
        trained_on.append(set(contributor.tolist()))
        return world.base()

    monkeypatch.setattr(tuning, "train_base", train_base)
    found = measure(toy_fold(), boards=6, seeds=1, shots=(1,), parts=3)
    held = [set(range(7)) - known for known in trained_on]
    assert [len(part) for part in held] == [2, 2, 2]
    assert len(set.union(*held)) == 6
    assert set(found[1]) == {str(person) for part in held for person in part} - {"6"}


def test_a_blend_is_measured_as_it_ships() -> None:
    people = [world.candidate(f"p{i}", *world.samples(world.style(i, 1.0), 8, i)) for i in range(4)]
    x, _ = world.samples(world.style(3, 1.0), 20, 7)
    setting = world.board(world.style(3, 1.0), people, settings=replace(world.QUICK, head_below=7.0))
    found = dict(blends(setting, x))
    for name, recipe in ((DEFAULT, "local"), ("3/0/1/0, guess 0.03", "blend")):
        shipped = outputs(load(world.TASK, RECIPES[recipe](setting).weights), x)[0]
        assert np.allclose(found[name], shipped, atol=1e-5)
    assert len({logits.tobytes() for logits in found.values()}) == len(found)


def test_scores_are_percents_of_right_answers_on_what_was_not_dealt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "train_base", lambda *_, **__: world.base())
    fold = toy_fold()
    found = measure(fold, boards=7, seeds=2, shots=(3,))
    assert sorted(found[3]) == [str(person) for person in range(6)]
    expected = []
    for seed in range(2):
        own = make(fold.x[fold.user == 2], fold.y[fold.user == 2])
        _, test = deal(own, 3, seed)
        expected.append(100 * accuracy(outputs(load(world.TASK, world.base()), test.x)[0], test.y))
    assert found[3]["2"][BASE] == pytest.approx(np.mean(expected))


def test_differences_are_paired_and_the_best_is_best_over_all_shots() -> None:
    found = {
        1: {
            "a": {DEFAULT: 50.0, BASE: 99.0, "x": 53.0, "y": 60.0},
            "b": {DEFAULT: 80.0, BASE: 99.0, "x": 83.0, "y": 80.0},
        },
        3: {"a": {DEFAULT: 60.0, BASE: 99.0, "x": 63.0, "y": 50.0}},
    }
    figures = {figure.name: figure for figure in compare(toy_fold(), found)}
    assert figures["toy, mlp, 1 shots: default"].value == 65.0
    assert figures["toy, mlp, 1 shots: x"].anchor == "default, paired: +3.00 [+3.00, +3.00] points"
    assert figures["toy, mlp, 1 shots: y"].anchor == "default, paired: +5.00 [+0.00, +10.00] points"
    assert figures["toy, mlp, mean of shots: default"].value == 55.0  # b was not tested at 3
    assert figures["toy, mlp, mean of shots: y"].anchor == "default, paired: +0.00 [+0.00, +0.00] points"
    assert figures["toy, mlp: best is x"].value == 58.0
