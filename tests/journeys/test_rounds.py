"""Three boards and a cloud play three rounds over TLS; each of them is killed once, and the model is the same."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgewire.decoding import encode
from tests.cloud import toys
from tests.journeys.conftest import Box, Place, own_file

ROUNDS, BOARDS = 3, 3


@pytest.fixture
def boards(place: Place) -> list[Box]:
    """With samples that differ, and with their owners' consent. This machine counts as idle and cool."""
    allowed = replace(toys.TASK, privacy=replace(toys.TASK.privacy, rounds=True))
    (place.folder / "task.json").write_bytes(encode(allowed))
    place.cloud("task", "publish", place.folder / "task.json")
    return [a_board(place, number) for number in range(BOARDS)]


def a_board(place: Place, number: int) -> Box:
    made = place.board(f"board-{number}")
    made.report("config", "set", "rounds", "true")
    made.report("config", "set", "agent_idle_percent", "100")
    made.report("sync")
    made.report("data", "add", own_file(place.folder / f"{number}.npz", shift=number - 1.0, seed=number))
    return made


def started(place: Place, algorithm: str = "scaffold") -> str:
    plan = ["--algorithm", algorithm, "--compression", "topk", "--rounds", str(ROUNDS)]
    size = ["--cohort", str(BOARDS), "--quorum", str(BOARDS), "--epochs", "2", "--seed", "3"]
    times = ["--gather", "60s", "--deadline", "300s", "--silence", "60s"]
    return str(place.cloud("round", "create", "--task", "toy", *plan, *size, *times, "--start")["series"])


def status(place: Place, series: str) -> dict[str, Any]:
    return dict(place.cloud("round", "status", series)["series"])


def weights(place: Place, series: str) -> bytes:
    file = place.folder / f"{series}.safetensors"
    place.cloud("round", "fetch", series, "--out", file)
    return file.read_bytes()


def playing(board: Box, seconds: int = 120) -> subprocess.Popen[str]:
    return board.start("round", "join", "--for", str(seconds), "--json")


def finish(place: Place, boards: list[Box], series: str) -> dict[str, Any]:
    """Let boards play on until the series ends."""
    until = time.monotonic() + 240
    while (told := status(place, series))["state"] == "running" and time.monotonic() < until:
        processes = [playing(board, 5) for board in boards]
        for process in processes:
            _, err = process.communicate(timeout=200)
            assert "Traceback" not in err
    return told


def wait_for(what: str, seen: Any, limit_s: float = 120) -> None:
    until = time.monotonic() + limit_s
    while not seen():
        assert time.monotonic() < until, f"{what} never came"
        time.sleep(0.02)


@pytest.mark.slow
def test_each_is_killed_once_and_the_model_has_the_same_bits(place: Place, boards: list[Box]) -> None:
    whole = Place(Path(shutil.copytree(place.data, place.folder / "undisturbed")), place.server, place.folder)
    twins = [Box(Path(shutil.copytree(board.folder, board.folder.with_name(f"{board.folder.name}-twin")))) for board in boards]
    series = started(place)
    for number, board in enumerate(boards):  # each in another state of its turn
        file = ("invitation.json", "update.safetensors", "order")[number]
        process = playing(board)
        if number < BOARDS - 1:
            time.sleep(0)  # whoever is not last is only there, so far
        kill_when(process, board.state / "rounds" / "toy" / file, last=number == BOARDS - 1)
    place.server.process.kill()
    place.server.process.wait(30)
    with toys.serving(place.data) as server:
        move(boards, server.url)
        told = finish(place, boards, series)
    assert (told["state"], told["closed"], told["failed"]) == ("finished", ROUNDS, 0)
    assert [r["answered"] for r in told["history"]] == [BOARDS] * ROUNDS
    with toys.serving(whole.data) as server:
        move(twins, server.url)
        undisturbed = started(whole)
        assert finish(whole, twins, undisturbed)["state"] == "finished"
        assert weights(place, series) == weights(whole, undisturbed)
