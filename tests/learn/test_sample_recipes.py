"""Recipes that choose samples rather than contributors, on small cases."""

from __future__ import annotations

import numpy as np
import pytest

from edgelearn.metrics import accuracy
from edgelearn.models.build import load, outputs
from edgelearn.personalize.blend import mean_weights
from edgelearn.personalize.coda import likeness
from edgelearn.personalize.delta import cluster, directory_weights
from edgelearn.personalize.gathered import nearest_rows
from edgelearn.personalize.recipes import RECIPES, applicable
from tests.learn import world

STYLE = world.style(7, 1.6)


def test_nearest_rows_by_hand() -> None:
    mine, others = np.asarray([[0.0], [10.0]]), np.asarray([[9.0], [1.0], [0.5], [10.5], [0.1]])
    rows = nearest_rows(mine, np.asarray([0, 1]), others, np.asarray([0, 0, 0, 1, 1]), 2)
    assert rows.tolist() == [2, 1, 3, 4]


def test_codas_classifier_ranks_those_like_me_first() -> None:
    rng = np.random.default_rng(0)
    mine = rng.normal(1.5, 1, (30, 4))
    theirs = np.concatenate([rng.normal(1.5, 1, (20, 4)), rng.normal(-1.5, 1, (20, 4))])
    scores = likeness(mine, theirs)
    assert scores[:20].min() > np.quantile(scores[20:], 0.9)


def test_deltas_weights_by_hand() -> None:
    centroids = np.asarray([[1.0, 0.0], [0.0, 1.0]])
    weights = directory_weights(np.asarray([[1.0, 0.0]]), centroids)
    assert weights == pytest.approx([1 / (1 + np.exp(-10)), 1 / (1 + np.exp(10))])
    assert directory_weights(np.asarray([[1.0, 0.0], [0.0, 1.0]]), centroids) == pytest.approx([0.5, 0.5])


def test_clusters_find_separate_heaps() -> None:
    rng = np.random.default_rng(0)
    heaps = np.repeat(np.asarray([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]]), 20, axis=0) + rng.normal(0, 0.1, (60, 2))
    _, owner = cluster(heaps, 8, rng)
    assert all(len(set(owner[at : at + 20]) & set(np.delete(owner, np.s_[at : at + 20]))) == 0 for at in (0, 20, 40))


def test_mean_of_weights() -> None:
    found = mean_weights([{"a": np.asarray([1.0, 3.0], np.float32)}, {"a": np.asarray([3.0, 5.0], np.float32)}])
    assert found["a"].tolist() == [2.0, 4.0]
    assert found["a"].dtype == np.float32


@pytest.mark.parametrize("name", [name for name in applicable(world.TASK) if name not in ("base", "local", "random")])
def test_every_recipe_helps_a_board_of_a_strong_style(name: str) -> None:
    """Ten contributors of whom five share the board's style: any recipe must beat the base by far."""
    people = []
    for person in range(10):
        moved = STYLE if person < 5 else world.style(200 + person, 0.3)
        people.append(world.candidate(f"p{person}", *world.samples(moved, 12, 300 + person)))
    setting = world.board(STYLE, people, per_class=3)
    x, y = world.samples(STYLE, 60, 999)
    before = accuracy(outputs(load(world.TASK, world.base()), x)[0], y)
    after = accuracy(outputs(load(world.TASK, RECIPES[name](setting).weights), x)[0], y)
    assert after > before + 0.05


@pytest.mark.parametrize("name", sorted(applicable(world.TASK)))
def test_every_recipe_is_reproducible_and_leaves_the_base_alone(name: str) -> None:
    people = [world.candidate(f"p{i}", *world.samples(world.style(i, 0.5), 8, i)) for i in range(4)]
    first, second = (RECIPES[name](world.board(STYLE, people)).weights for _ in range(2))
    assert all(np.array_equal(first[key], second[key]) for key in first)
    again = load(world.TASK, world.base())
    assert np.isfinite(outputs(again, np.zeros((1, world.FEATURES), np.float32))[0]).all()
