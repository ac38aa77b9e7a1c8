"""How long samples stay, how many, and what was shared of them."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from edgectl import retention, retraining
from edgectl.retention import Limits
from edgectl.store import Store
from edgewire import samples as sample_columns
from tests.board.conftest import GESTURES, Board

NOW = time.time()


def add(board: Board, labels: str, *, at: float = NOW) -> None:
    """One sample per digit of `labels`, in that order."""
    with Store.open(board.home.database) as store:
        for i, label in enumerate(labels):
            x = np.full((1, *GESTURES.input.shape), i + at % 1000 + 10 * int(label))
            made = sample_columns.make(x.astype(GESTURES.input.dtype), np.array([int(label)]))
            store.add_samples(GESTURES, made, now=at)


def kept(board: Board, limits: Limits, *, now: float = NOW) -> str:
    """The labels that stay, as digits in order."""
    with Store.open(board.home.database) as store:
        retention.apply(board.home, store, GESTURES.id, limits, now=now)
        rows = store.list_samples(GESTURES.id, 99)
    return "".join(str(GESTURES.labels.index(row.label)) for row in reversed(rows))


def test_without_limits_everything_stays(board: Board) -> None:
    add(board, "0011")
    assert kept(board, Limits(), now=NOW + 1e9) == "0011"


@pytest.mark.parametrize(
    ("labels", "most", "stay"),
    [("000111", 4, "0011"), ("00001", 2, "01"), ("0111111", 3, "011"), ("01", 5, "01"), ("0101", 1, "1")],
)
def test_the_oldest_of_the_commonest_label_goes(board: Board, labels: str, most: int, stay: str) -> None:
    add(board, labels)
    assert kept(board, Limits(most=most)) == stay


def test_what_is_too_old_goes(board: Board) -> None:
    add(board, "01", at=NOW - 3 * retention.DAY_S)
    add(board, "10", at=NOW)
    assert kept(board, Limits(days=2)) == "10"


def test_what_went_for_its_age_or_number_is_no_reason_to_train_again_but_a_deletion_is(board: Board) -> None:
    add(board, "0000011111")
    with Store.open(board.home.database) as store:
        newest = max(row.id for row in store.list_samples(GESTURES.id, 99))
        run = store.start_run(GESTURES.id, "train", NOW)
        store.finish_run(run, "local", {"newest_sample": newest, "local_samples": 10}, NOW)
        last = store.last_training(GESTURES.id)
        assert last is not None
        for most in (8, 6):
            retention.apply(board.home, store, GESTURES.id, Limits(most=most), now=NOW)
        assert retention.dropped(store, GESTURES.id, newest) == 4
        trigger = retraining.Trigger()
        assert retraining._new_samples(store, GESTURES.id, last, trigger, now=NOW) == ""
        store.expire(GESTURES.id, older_than=None, ids=[newest])
        assert retraining._new_samples(store, GESTURES.id, last, trigger, now=NOW).startswith("1 of the samples")


def test_the_limits_of_the_settings_hold_when_samples_are_added(board: Board) -> None:
    assert board.edgectl("config", "set", "samples_most", "3").returncode == 0
    x = np.arange(5 * GESTURES.input.values).reshape(5, *GESTURES.input.shape).astype(GESTURES.input.dtype)
    path = board.home.root / "five.npz"
    np.savez(path, x=x, y=np.asarray([GESTURES.labels[0]] * 5))
    report = json.loads(board.edgectl("data", "add", str(path), "--json").stdout)
    assert (report["added"], report["expired"], report["total"]) == (5, 2, 3)


def test_what_was_shared_and_taken_back_is_told(board: Board) -> None:
    add(board, "01")
    assert board.edgectl("data", "share", "--until", "30d", "--yes").returncode == 0
    assert board.edgectl("data", "withdraw").returncode == 0
    shown = json.loads(board.edgectl("data", "shared", "--json").stdout)["shared"]
    assert [(row["kind"], row["refusal"]) for row in shown] == [
        ("contribution", "withdrawn before it was sent"),
        ("withdrawal", None),
    ]
    assert shown[0]["params"]["samples"] == 2
    assert "taken back" in board.edgectl("data", "shared").stdout.decode()


def test_a_note_that_was_touched_counts_for_nothing(board: Board) -> None:
    with Store.open(board.home.database) as store:
        store.meta_set(f"dropped {GESTURES.id}", json.dumps({"newest": 7, "count": 3}))
        assert retention.dropped(store, GESTURES.id, 8) == 0
