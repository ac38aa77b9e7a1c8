"""The agent with real commands and a real cloud: a file is dropped, and a while later a model of one's own serves."""

from __future__ import annotations

import json
import signal
from typing import Any

import numpy as np
import pytest

from tests.journeys.conftest import Box, Place, own_file


@pytest.fixture
def board(place: Place) -> Box:
    """Enrolled only; a file waits in its folder. This machine counts as idle and cool, whatever it does."""
    made = place.board("one")
    for name, value in (("agent_watch_seconds", "1"), ("agent_idle_percent", "100")):
        made.report("config", "set", name, value)
    whole = np.load(own_file(place.folder / "one.npz"))
    mine = whole["part"] == "local"
    (made.state / "inbox").mkdir()
    np.savez(made.state / "inbox" / "one.npz", x=whole["x"][mine], y=whole["y"][mine])
    return made


def rounds(board: Box, code: int) -> dict[str, dict[str, Any]]:
    """One round, which must end with that exit code: the last event of each kind."""
    done = board.run("agent", "--once", "--json")
    assert done.returncode == code, done.stdout + done.stderr
    return {event["event"]: event for event in map(json.loads, done.stdout.splitlines())}


def test_what_is_dropped_becomes_a_model_and_a_second_round_changes_nothing(place: Place, board: Box) -> None:
    first = rounds(board, 0)
    assert first["added"]["added"] == 12
    assert first["trained"]["skipped"] is False
    again = rounds(board, 0)
    assert "added" not in again
    assert again["synced"]["changed"] is False or again["synced"]["sent"]
    assert again["trained"]["skipped"] is True
    place.server.process.terminate()
    place.server.process.wait(30)
    offline = rounds(board, 3)
    assert offline["trouble"]["doing"] == "sync"


def test_a_revoked_board_is_told_and_ends_with_11(place: Place, board: Box) -> None:
    place.cloud("boards", "revoke", board.report("status")["board"])
    assert "revoked" in rounds(board, 11)["end"]["line"]


def test_sigterm_during_training_ends_cleanly_and_the_next_round_trains(board: Box) -> None:
    with board.start("agent", "--json") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["event"] == "training":
                break
        process.send_signal(signal.SIGTERM)
        rest, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert [json.loads(line)["event"] for line in rest.splitlines()] == ["stopped"]
    assert rounds(board, 0)["trained"]["skipped"] is False


def test_a_training_that_is_asked_to_stop_ends_with_130_and_notes_it(board: Box) -> None:
    board.report("sync")
    board.report("data", "add", board.state / "inbox" / "one.npz")
    with board.start("train", "--recipe", "mpda") as process:
        assert process.stderr is not None
        assert any(line.startswith("why:") for line in process.stderr)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 130
    status = board.report("status")
    assert (status["interrupted"], status["tasks"][0]["runs"][0]["outcome"]) == ([], "failed")
    assert board.report("train", "--recipe", "mpda")["skipped"] is False
