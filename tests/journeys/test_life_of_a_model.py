"""A board through time: new samples are scored first, drift shows, a new base arrives, budgets end; something always
serves."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from tests.cloud import toys
from tests.journeys.conftest import Box, Place, synced, train


@pytest.fixture
def board(_trained_once: Box, tmp_path: Path) -> Box:
    """With twelve samples and a model of its own, at a cloud that is changed by nobody."""
    return _trained_once.copied(tmp_path / "one")


@pytest.fixture
def followed(place: Place) -> Box:
    """The same at a cloud of its own."""
    made = synced(place)
    train(made)
    return made


def new_base(place: Place) -> None:
    """The cloud trains another base on a larger pool of other people."""
    more = toys.people(4, 8, seed=9)
    more["user"] = np.asarray([f"late-{name}" for name in more["user"]])
    file = toys.data_file(place.folder / "more.npz", more)
    place.cloud("pool", "ingest", file, "--task", "toy", "--consent", "packs", "--consent-until", "2099-01-01")
    place.cloud("base", "train", "--task", "toy", "--epochs", "40", "--no-rehearse", "--seed", "5")
    place.cloud("index", "build", "--task", "toy")


def answers(board: Box, file: Path) -> tuple[int, list[str]]:
    said = board.report("infer", file)
    return said["version"], [one["label"] for one in said["predictions"]]


def test_when_a_new_base_arrives_the_old_model_serves_until_a_new_one_is_ready(place: Place, followed: Box) -> None:
    board, file = followed, followed.folder / "one.npz"
    before, old_base = answers(board, file), board.report("model", "show")["base"]
    new_base(place)
    synced = board.report("sync")["tasks"][0]
    assert (synced["changed"], synced["base_version"]) == (True, 2)
    assert answers(board, file) == before

    for kill in range(4):
        process = board.start("train", "--recipe", "matched", "--no-veto")
        time.sleep(1.0 + 0.7 * kill)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        version, labels = answers(board, file)
        assert version >= 1
        assert version > 1 or labels == before[1]

    done = board.run("train", "--recipe", "matched", "--no-veto", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["changed"] or "nothing changed" in done.stderr
    shown = board.report("model", "show")
    assert (shown["base_version"], shown["recipe"]) == (2, "matched")
    assert shown["base"] != old_base
    assert len(shown["kept"]) > 0


def test_a_training_says_that_a_new_base_is_its_reason_and_can_be_undone(place: Place, followed: Box) -> None:
    board, file = followed, followed.folder / "one.npz"
    before = answers(board, file)
    assert board.report("train", "--recipe", "local", "--no-veto")["skipped"]
    new_base(place)
    board.report("sync")
    trained = board.report("train", "--recipe", "local", "--no-veto")
    assert (trained["version"], trained["due"]) == (2, "a new base model, directory or packs arrived")
    assert board.report("model", "rollback")["version"] == 1
    assert answers(board, file) == before


def wave(path: Path, *, count: int, shift: float, seed: int) -> Path:
    """New labelled samples, each a recording of its own."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % 3
    x = rng.normal(toys.CENTRES[y] + shift * np.array([1.0, 0.5]), 0.4).astype(np.float32)
    np.savez(path, x=x, y=np.asarray(toys.TASK.labels)[y])
    return path


def test_drift_shows_in_the_status_and_is_a_reason_to_train(board: Box, tmp_path: Path) -> None:
    steady = board.report("data", "add", wave(tmp_path / "steady.npz", count=60, shift=1.0, seed=1))
    assert steady["right"] >= 57
    running = board.report("status")["tasks"][0]["running"]
    assert (running["versions"][-1]["version"], running["versions"][-1]["samples"]) == (1, 60)
    assert running["drift"]["state"] == "none"

    moved = board.report("data", "add", wave(tmp_path / "moved.npz", count=60, shift=6.0, seed=2))
    assert moved["right"] < 45
    drift = board.report("status")["tasks"][0]["running"]["drift"]
    assert drift["state"] == "drift"
    assert "edgectl train" in drift["hint"]

    trained = board.report("train", "--recipe", "local", "--no-veto")
    assert trained["due"].startswith("drift: the errors of")
    assert trained["changed"]
    assert board.report("status")["tasks"][0]["running"]["drift"]["state"] != "drift"
    later = board.report("data", "add", wave(tmp_path / "later.npz", count=30, shift=6.0, seed=3))
    assert later["right"] > moved["right"] / 2  # of half as many


def test_a_training_within_a_budget_ends_in_time_or_changes_nothing(board: Box) -> None:
    before = answers(board, board.folder / "one.npz")
    command = ("train", "--recipe", "local", "--no-veto", "--force")
    assert "--max-memory-mib" in board.fails(6, *command, "--max-memory-mib", "50")
    done = board.run(*command, "--max-seconds", "1", "--json")
    assert done.returncode in (0, 4), done.stderr
    if done.returncode == 4:
        assert "still serves" in done.stderr
    assert answers(board, board.folder / "one.npz")[0] >= before[0]
    assert board.report(*command, "--max-seconds", "1000")["cut"] == ""
