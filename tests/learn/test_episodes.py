"""Practising with contributors as boards."""

from __future__ import annotations

import numpy as np
import pytest

from edgelearn.episodes import EpisodeSettings, deal, practise
from edgelearn.examples import Examples, make
from edgelearn.models.build import build, get_weights, load, outputs
from edgelearn.retrieval.prototypes import class_means
from tests.learn import world


def _pool(people: int) -> tuple[Examples, np.ndarray]:
    parts = [world.samples(world.style(500 + person, 1.5), 12, person) for person in range(people)]
    x, y = np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])
    return make(x, y, np.arange(len(y)) // 3), np.repeat(np.arange(people), 12 * world.CLASSES)


def test_what_is_judged_shares_no_recording_with_the_shots() -> None:
    pool, contributor = _pool(2)
    rows = np.flatnonzero(contributor == 1)
    for seed in range(5):
        support, query = deal(pool, rows, 2, 24, np.random.default_rng(seed))
        assert np.bincount(pool.y[support]).tolist() == [2] * world.CLASSES
        assert len(query) == 24
        assert not set(pool.group[support]) & set(pool.group[query])
        assert set(contributor[np.concatenate([support, query])]) == {1}


def test_a_class_of_one_recording_still_gives_shots() -> None:
    pool = make(np.zeros((8, 2), np.float32), np.repeat([0, 1], 4), np.repeat([0, 1], 4))
    support, query = deal(pool, np.arange(8), 1, 24, np.random.default_rng(0))
    assert len(support) == 2
    assert len(query) == 6
    assert not set(support) & set(query)


def _prototype_accuracy(weights: dict[str, np.ndarray]) -> float:
    """Of nearest class means of three samples, over people that nobody practised with."""
    right = []
    for person in range(900, 912):
        moved = world.style(person, 1.5)
        x, y = world.samples(moved, 3, person)
        far_x, far_y = world.samples(moved, 30, person + 50)
        model = load(world.TASK, weights)
        means, _ = class_means(outputs(model, x)[1], y, world.CLASSES)
        distance = ((outputs(model, far_x)[1][:, None] - means) ** 2).sum(axis=2)
        right.append((distance.argmin(axis=1) == far_y).mean())
    return float(np.mean(right))


def test_practice_makes_embeddings_in_which_few_samples_tell_classes_apart() -> None:
    pool, contributor = _pool(20)
    model = build(world.TASK, seed=0)  # one that knows nothing yet
    before = _prototype_accuracy(get_weights(model))
    rounds = list(practise(model, pool, contributor, EpisodeSettings(150), seed=0))
    assert rounds == list(range(1, 151))
    assert _prototype_accuracy(get_weights(model)) > before + 0.03


def test_the_same_seed_gives_the_same_bytes() -> None:
    pool, contributor = _pool(5)
    found = []
    for _ in range(2):
        model = load(world.TASK, world.base())
        for _ in practise(model, pool, contributor, EpisodeSettings(5), seed=3):
            pass
        found.append(get_weights(model))
    assert all(np.array_equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize("per_person", [1, 2])
def test_contributors_with_few_samples_are_no_boards(per_person: int) -> None:
    x, y = world.samples(world.style(1, 1.0), per_person, 1)
    model = load(world.TASK, world.base())
    assert list(practise(model, make(x, y), np.zeros(len(y)), EpisodeSettings(5), seed=0)) == []
