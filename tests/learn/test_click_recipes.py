"""Click tasks: the label prior, who agrees with a board, and the recipe that listens to them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgelearn.examples import make
from edgelearn.metrics import log_softmax, score
from edgelearn.models.build import load, outputs
from edgelearn.personalize.local import local
from edgelearn.personalize.neighbours import neighbours
from edgelearn.personalize.prior_shift import correct, log_shift
from edgelearn.personalize.rehearsal import rehearse
from edgelearn.personalize.setting import Candidate, Setting, Settings
from edgelearn.pretrain import train_base
from edgelearn.retrieval.agreement import Residuals, consensus, likeness, residuals_of
from edgelearn.retrieval.prototypes import class_means
from edgewire.tasks import InputSchema, ModelSpec, Task
from tests.learn import world

ITEMS = 60
TASK = Task("clicks", "Clicks", InputSchema((3,), "int32", items=ITEMS), ("no", "yes"), ModelSpec("dssm", 8, 8), "auc")


def test_the_shift_of_the_prior_by_hand() -> None:
    # the pool: half and half. 30 local samples, 25 of them liked, and 10 of the pool's: 30 of 40 are liked
    shift = log_shift(np.asarray([5, 25]), np.asarray([700, 700]))
    assert shift == pytest.approx([np.log(0.25 / 0.5), np.log(0.75 / 0.5)])
    assert log_shift(np.asarray([0, 0]), np.asarray([1, 9])) == pytest.approx([0, 0])
    with pytest.raises(ValueError, match="lacks a class"):
        log_shift(np.asarray([1, 1]), np.asarray([0, 9]))


def test_a_corrected_model_expects_the_boards_rate_and_ranks_as_before() -> None:
    base = world.base()
    x, _ = world.samples(world.style(1, 0.3), 10, 0)
    before = outputs(load(world.TASK, base), x)[0]
    after = outputs(load(world.TASK, correct(base, np.asarray([90, 10, 0, 0]), np.full(4, 50))), x)[0]
    shift = log_shift(np.asarray([90, 10, 0, 0]), np.full(4, 50))
    assert after - before == pytest.approx(np.tile(shift, (len(x), 1)), abs=1e-5)
    assert np.exp(log_softmax(after))[:, 0].mean() > np.exp(log_softmax(before))[:, 0].mean()


def test_a_prototype_is_what_is_left_of_the_labels_once_the_own_rate_is_out() -> None:
    found = residuals_of(np.asarray([8, 3, 8]), np.asarray([1, 0, 1]), np.asarray([0.5, 0.5, 0.5]))
    assert found.item.tolist() == [3, 8]
    assert found.residual == pytest.approx([-0.5 - 0.5 / 8, 0.5 - 0.5 / 8])


def test_likeness_counts_common_items_only_and_is_shrunk_by_how_few_they_are() -> None:
    mine = Residuals(np.asarray([1, 2, 3]), np.asarray([0.5, -0.5, 0.9]))
    same = Residuals(np.asarray([1, 2, 9]), np.asarray([0.25, -0.25, 0.9]))
    assert likeness(mine, same) == pytest.approx(2 / 12)
    assert likeness(mine, Residuals(same.item, -same.residual)) == pytest.approx(-2 / 12)
    assert likeness(mine, Residuals(np.asarray([7]), np.asarray([1.0]))) == 0


def test_a_consensus_is_a_shrunken_weighted_mean() -> None:
    people = [Residuals(np.asarray([1, 2]), np.asarray([0.4, 0.4])), Residuals(np.asarray([2]), np.asarray([-0.2]))]
    found = consensus(people, [1.0, 0.5], 4)
    assert found == pytest.approx([0, 0.4 / 4, (0.4 - 0.1) / 4.5, 0])


def person(taste: int, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two camps that like opposite halves of items, odd and even, and histories that do not tell the camp."""
    rng = np.random.default_rng((seed, 3))
    item = 1 + rng.permutation(ITEMS)[:count]
    likes = (item % 2 == taste) ^ (rng.random(count) < 0.1)
    return np.column_stack([item, np.zeros((count, 2))]).astype(np.int32), likes.astype(np.int64)


def board(taste: int) -> Setting:
    people = [person(number % 2, 40, number) for number in range(40)]
    x, y = np.concatenate([x for x, _ in people]), np.concatenate([y for _, y in people])
    base = train_base(TASK, x, y, np.repeat(np.arange(40), 40), seed=0, epochs=1)
    model = load(TASK, base)
    candidates = [Candidate(f"c{number}", *one, outputs(model, one[0])[1]) for number, one in enumerate(people)]
    means = class_means(outputs(model, x)[1], y, 2)[0]
    own = person(taste, ITEMS, 99 + taste)
    return Setting(TASK, base, make(own[0][:20], own[1][:20]), candidates, means, Settings.of(TASK), 0)


@pytest.mark.parametrize("taste", [0, 1])
def test_those_of_the_same_camp_are_found_and_tell_what_else_will_be_liked(taste: int) -> None:
    setting = board(taste)
    personal = neighbours(setting)
    assert np.mean([int(name[1:]) % 2 == taste for name in personal.kept]) > 0.8
    x, y = person(taste, ITEMS, 99 + taste)
    before = score("auc", outputs(load(TASK, setting.base), x[20:])[0], y[20:])
    after = score("auc", outputs(load(TASK, personal.weights), x[20:])[0], y[20:])
    assert after > before + 0.25


def test_items_that_no_neighbour_has_and_tables_stay_as_the_pool_left_them() -> None:
    setting = board(0)
    personal = neighbours(setting)
    assert personal.weights["items.liking"][0, 0] == setting.base["items.liking"][0, 0]
    assert np.array_equal(personal.weights["items.vector.weight"], setting.base["items.vector.weight"])


def test_without_contributors_neighbours_is_local_training() -> None:
    alone = replace(board(0), candidates=())
    found, expected = neighbours(alone).weights, local(alone).weights
    assert all(np.array_equal(found[key], expected[key]) for key in expected)


def test_clicks_are_rehearsed_at_more_samples_than_other_tasks() -> None:
    people = [person(taste % 2, ITEMS, 40 + taste) for taste in range(6)]
    x, y = np.concatenate([x for x, _ in people]), np.concatenate([y for _, y in people])
    who = np.repeat(np.arange(6), [len(y) for _, y in people])
    figures = rehearse(TASK, x, y, who, seed=0, epochs=1)
    assert {figure.shots for figure in figures} <= {10, 30, 100}
    assert {figure.recipe for figure in figures if figure.shots == 10} == {"local", "neighbours"}
    assert all(figure.boards == 6 for figure in figures if figure.shots == 10)


def test_a_task_without_items_has_no_neighbours() -> None:
    with pytest.raises(ValueError, match="no items"):
        neighbours(world.board(world.style(1, 0.5), []))


def test_only_click_tasks_have_neighbours() -> None:
    from edgelearn.personalize.recipes import applicable, choosable

    assert "neighbours" not in applicable(world.TASK)
    clicks = Task("c", "c", InputSchema((5,), "int32", items=9), ("no", "yes"), ModelSpec("din"), metric="auc")
    assert "neighbours" in applicable(clicks)
    assert set(choosable(clicks)) <= set(applicable(clicks))
    assert set(choosable(world.TASK)) <= set(applicable(world.TASK))
