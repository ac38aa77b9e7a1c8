"""Three boards and a cloud play three rounds over TLS; each of them is killed once, and the model has the same bits."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgewire.decoding import encode
from edgewire.rounds import unpack_order, unpack_rows
from tests.cloud import clicks, toys
from tests.journeys.conftest import Box, Place, own_file

ROUNDS, BOARDS = 3, 3
LIMIT_S = 240.0


@pytest.fixture
def willing(place: Place) -> Place:
    """A cloud whose task allows rounds."""
    allowed = replace(toys.TASK, privacy=replace(toys.TASK.privacy, rounds=True))
    (place.folder / "task.json").write_bytes(encode(allowed))
    place.cloud("task", "publish", place.folder / "task.json")
    return place


def a_board(place: Place, number: int) -> Box:
    """Its samples are like nobody else's; its owner consents. This machine counts as idle and cool."""
    made = place.board(f"board-{number}")
    made.report("config", "set", "rounds", "true")
    made.report("config", "set", "agent_idle_percent", "100")
    made.report("sync", "--no-rounds")
    made.report("data", "add", own_file(place.folder / f"{number}.npz", shift=number - 1.0, seed=number))
    return made


def started(place: Place, *, boards: int = BOARDS) -> str:
    plan = ["--algorithm", "scaffold", "--compression", "topk", "--down", "changes"]
    plan += ["--rounds", str(ROUNDS), "--epochs", "2", "--seed", "3"]
    times = ["--gather", "60s", "--deadline", "300s", "--silence", "60s"]
    size = ["--cohort", str(boards), "--quorum", str(boards)]
    return str(place.cloud("round", "create", "--task", "toy", *plan, *size, *times, "--start")["series"])


def status(place: Place, series: str) -> dict[str, Any]:
    return dict(place.cloud("round", "status", series)["series"])


def weights(place: Place, series: str) -> bytes:
    file = place.folder / f"{series}.safetensors"
    place.cloud("round", "fetch", series, "--out", str(file))
    return file.read_bytes()


def playing(board: Box) -> subprocess.Popen[str]:
    return board.start("round", "join", "--for", "200", "--json")


def finish(place: Place, boards: list[Box], series: str) -> dict[str, Any]:
    """Let boards play, again where they gave up, until the series ends."""
    until = time.monotonic() + LIMIT_S
    while (told := status(place, series))["state"] == "running" and time.monotonic() < until:
        for process in [playing(board) for board in boards]:
            _, err = process.communicate(timeout=LIMIT_S)
            assert "Traceback" not in err
    return told


def children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def kill_all(process: subprocess.Popen[str]) -> None:
    """As a power cut does: the process and what it started."""
    for pid in (*children(process.pid), process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=30)


def killed_as_soon_as(seen: dict[subprocess.Popen[str], Callable[[], bool]]) -> None:
    """Kill each process once it is that far."""
    until = time.monotonic() + LIMIT_S
    while seen and time.monotonic() < until:
        for process in [process for process, reached in seen.items() if reached()]:
            kill_all(process)
            del seen[process]
        time.sleep(0.01)
    assert not seen, "a board never came that far"


@pytest.mark.slow
def test_each_is_killed_once_and_the_model_has_the_same_bits(willing: Place) -> None:
    place, port = willing, willing.server.port
    boards = [a_board(place, number) for number in range(BOARDS)]
    undisturbed = replace(place, data=Path(shutil.copytree(place.data, place.folder / "undisturbed")))
    twins = [Box(Path(shutil.copytree(board.folder, place.folder / f"{board.folder.name}-twin"))) for board in boards]
    series = started(place)
    folders = [board.state / "rounds" / "toy" for board in boards]
    training, fetching, sending = (playing(board) for board in boards)
    killed_as_soon_as(
        {
            training: lambda: (folders[0] / "invitation.json").exists() and bool(children(training.pid)),
            fetching: lambda: (folders[1] / "order.digest").exists(),
            sending: lambda: (folders[2] / "update.safetensors").exists(),
        }
    )
    assert status(place, series)["closed"] == 0
    place.server.process.kill()
    place.server.process.wait(30)
    with toys.serving(place.data, "--port", str(port)):
        told = finish(place, boards, series)
    assert (told["state"], told["closed"], told["failed"]) == ("finished", ROUNDS, 0)
    assert [one["answered"] for one in told["history"]] == [BOARDS] * ROUNDS
    with toys.serving(undisturbed.data, "--port", str(port)):
        twin = started(undisturbed)
        assert finish(undisturbed, twins, twin)["state"] == "finished"
    assert weights(place, series) == weights(undisturbed, twin)


def test_who_did_not_consent_takes_no_part(willing: Place) -> None:
    board = a_board(willing, 0)
    started(willing, boards=1)
    board.report("config", "set", "rounds", "false")
    assert "config set rounds true" in board.fails(5, "round", "join")
    assert "rounds" not in board.report("sync")
    assert not (board.state / "rounds").exists()


def test_boards_train_only_the_rows_of_their_items_and_tell_which_where_their_owners_let_them(tmp_path: Path) -> None:
    data = clicks.published(tmp_path / "cloud")
    with toys.serving(data) as server:
        place = Place(data, server, tmp_path)
        boards = [place.board(f"board-{number}") for number in range(2)]
        for number, board in enumerate(boards):
            board.report("config", "set", "rounds", "true")
            board.report("config", "set", "agent_idle_percent", "100")
            board.report("sync", "--no-rounds")
            file = toys.data_file(tmp_path / f"{number}.npz", clicks.columns(8, 20 + number, people=1))
            board.report("data", "add", file)
        plan = ["--algorithm", "fedsubavg", "--rounds", "2", "--cohort", "2", "--quorum", "2", "--epochs", "1"]
        times = ["--gather", "60s", "--deadline", "300s", "--silence", "60s"]
        series = str(place.cloud("round", "create", "--task", "toy", *plan, *times, "--start")["series"])
        [turn] = boards[0].report("round", "join")["turns"]
        assert "config set rounds_rows true" in turn["note"]
        assert not (boards[0].state / "rounds" / "toy" / "rows.safetensors").exists()
        for board in boards:
            board.report("config", "set", "rounds_rows", "true")
        for process in [playing(board) for board in boards]:
            said, err = process.communicate(timeout=LIMIT_S)
            turns = json.loads(said)["turns"]
            assert [turn["number"] for turn in turns if turn["state"] == "sent"] == [1, 2], err
        told = status(place, series)
        assert (told["state"], told["closed"], told["failed"]) == ("finished", 2, 0)
        assert [one["answered"] for one in told["history"]] == [2, 2]
        for board in boards:
            folder = board.state / "rounds" / "toy"
            rows = unpack_rows((folder / "rows.safetensors").read_bytes(), limit_bytes=1 << 20)[0][clicks.TABLE]
            sent = unpack_order((folder / "order").read_bytes(), limit_bytes=1 << 20).main[clicks.TABLE]
            assert len(sent) == len(rows) < clicks.ITEMS


def test_an_owner_wants_noise_and_sees_what_it_cost(willing: Place) -> None:
    board = a_board(willing, 0)
    board.report("config", "set", "rounds_noise", "1")
    plan = ["--rounds", "1", "--cohort", "1", "--quorum", "1", "--epochs", "1", "--gather", "60s"]
    quiet, loud = (
        str(willing.cloud("round", "create", "--task", "toy", *plan, "--noise", noise)["series"])
        for noise in ("0.5", "2")
    )
    willing.cloud("round", "start", quiet)
    turns = board.report("round", "join", "--for", "60")["turns"]
    declined = next(turn for turn in turns if turn["state"] == "given-up")
    assert "boards of this series add noise 0.5, the owner of this one wants 1" in declined["note"]
    assert not (board.state / "rounds" / "toy" / "order").exists()
    [away] = board.report("sync")["rounds"]
    assert (away["state"], away["note"]) == ("waiting", declined["note"])
    assert board.report("status")["rounds"] is None
    willing.cloud("round", "stop", quiet)
    willing.cloud("round", "start", loud)
    board.report("config", "set", "rounds_noise", "2")  # and so it asks again
    turns = board.report("round", "join", "--for", "60")["turns"]
    assert [turn["state"] for turn in turns if turn["state"] != "waiting"] == ["sent"]
    [task] = board.report("status")["tasks"]
    assert (task["rounds"]["updates"], task["rounds"]["noised"]) == (1, 1)
    assert 0 < task["rounds"]["epsilon"] == pytest.approx(status(willing, loud)["epsilon"], abs=1e-3)


def test_turns_are_reported_where_the_cloud_cannot_be_reached(willing: Place) -> None:
    board = a_board(willing, 0)
    willing.server.process.terminate()
    willing.server.process.wait(30)
    done = board.run("round", "join", "--for", "1", "--json")
    [turn] = json.loads(done.stdout)["turns"]
    assert (done.returncode, turn["task"], turn["state"], turn["code"]) == (3, "toy", "failed", 3)
    assert "edgectl: toy: " in done.stderr


def test_sync_takes_part_and_what_nobody_asks_for_says_so(willing: Place) -> None:
    board = a_board(willing, 0)
    assert "no round waits" in board.fails(1, "round", "train")
    [turn] = board.report("sync")["rounds"]
    assert (turn["state"], turn["note"]) == ("waiting", "no rounds are running for this task")
    started(willing, boards=1)
    [turn] = board.report("sync")["rounds"]
    assert (turn["state"], turn["note"]) == ("waiting", "not invited yet")
