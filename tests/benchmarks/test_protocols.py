"""How click logs are dealt: by time, with nothing of the future in a history."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import protocols
from benchmarks.protocols import Board, folds
from demo.data import find


def board(y: list[int]) -> Board:
    here = np.arange(len(y))
    return Board("b", np.zeros((len(y), 3), np.int32), np.asarray(y), here, {}, here, in_time=True)


def test_a_share_is_the_earliest_rows_and_the_rest_is_tested() -> None:
    one = board([0, 1] * 5)
    assert one.local(20).tolist() == [0, 1]
    assert one.held_out(20).tolist() == list(range(2, 10))
    assert one.local(50).tolist() == [0, 1, 2, 3, 4]


def test_what_nothing_can_rank_is_not_tested() -> None:
    one = board([0, 1, 0, 1, 0, 1, 1, 1, 1, 1])
    assert len(one.held_out(20)) == 8
    assert len(one.held_out(60)) == 0


def test_a_history_holds_the_latest_liked_items_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocols, "HISTORY", 2)
    liked = np.asarray([7, 8, 9])
    x = protocols._click_samples(np.asarray([1, 2, 3]), liked, np.asarray([0, 1, 3]), np.asarray([0, 1, 3]))
    assert x.tolist() == [[1, 0, 0], [2, 7, 0], [3, 9, 8]]


@pytest.mark.parametrize("name", ["amazon", "movielens"])
def test_only_what_was_liked_at_an_earlier_time_is_in_a_history(name: str) -> None:
    try:
        (fold,) = folds(name, seed=0)
    except ValueError as missing:
        pytest.skip(str(missing))
    assert fold.task.problems() == []
    assert fold.x.min() >= 0
    assert fold.x.max() <= fold.task.input.items
    assert len(fold.boards) + fold.left_out == {"amazon": 200, "movielens": 100}[name]
    assert not {f"user-{who}" for who in np.unique(fold.user)} & {one.name for one in fold.boards}
    for one in fold.boards[:20]:
        for row in range(len(one.y)):
            history = one.x[row, 1:][one.x[row, 1:] > 0]
            assert set(history) <= set(one.x[:row, 0][one.y[:row] == 1])


def test_films_that_were_rated_in_the_same_second_do_not_know_of_each_other() -> None:
    try:
        data = np.load(find("movielens_latest_small.npz"), allow_pickle=False)
        (fold,) = folds("movielens", seed=0)
    except ValueError as missing:
        pytest.skip(str(missing))
    one = fold.boards[0]
    mine = data["user"] == int(one.name.removeprefix("user-"))
    time = np.sort(data["timestamp"][mine])
    for row in range(1, len(time)):
        past = [item for i, item in enumerate(one.x[:, 0]) if one.y[i] and time[i] < time[row]]
        expected = past[::-1][: protocols.HISTORY]
        assert one.x[row, 1 : 1 + len(expected)].tolist() == expected
        assert not one.x[row, 1 + len(expected) :].any()
