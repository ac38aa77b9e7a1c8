"""Our half of the comparison over real transport; Flower itself is not needed for that."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.relay import relaying
from benchmarks.rounds_https import played_place
from benchmarks.transport_vs_flower import _figures
from benchmarks.transported import WARM_UP, Played, Seen, Shares


def shares(boards: int, *, per_board: int = 20) -> Shares:
    """Digits that a glance tells apart: each lights up pixels of its own."""
    rng = np.random.default_rng(0)
    y = np.tile(np.arange(10), (boards + 1) * per_board // 10)
    x = rng.integers(0, 60, (len(y), 784), np.uint8)
    for label in range(10):
        x[y == label, 70 * label : 70 * label + 70] += 150
    parts = np.array_split(np.arange(len(y)), boards + 1)
    return Shares(x, y, parts[:boards], (x[parts[-1]], y[parts[-1]]))


def told(round_s: float, size: float, mib: float, score: float) -> Played:
    """A side that took so long per round; the first rounds took longer."""
    ended = [0.0, 50.0, 99.0, *(99.0 + round_s * number for number in range(1, 5))]
    return Played(ended, size / 2, size / 2, round_s, mib, score)


def test_a_relay_passes_everything_on_and_counts_each_way() -> None:
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as there, relaying() as relay:
        relay.target = there.getsockname()[1]
        with socket.create_connection(("127.0.0.1", relay.port), timeout=10) as here, there.accept()[0] as peer:
            here.sendall(b"up")
            assert peer.recv(10) == b"up"
            peer.sendall(b"downwards")
            assert here.recv(20) == b"downwards"
        assert relay.between(began, time.monotonic()) == (2, 9)
        assert relay.between(time.monotonic(), time.monotonic()) == (0, 0)


def test_processor_time_is_of_the_rounds_after_the_first() -> None:
    seen = Seen(worked=[(0.0, 0.0), (98.0, 10.0), (100.0, 12.0), (103.0, 18.0)])
    assert seen.worked_s([0.0, 50.0, 99.0, 101.0, 103.0]) == 3.5


@pytest.mark.slow
def test_boards_play_rounds_over_https_and_what_passed_was_counted(tmp_path: Path) -> None:
    with played_place(tmp_path, shares(2)) as place:
        played = place.play(rounds=WARM_UP + 1)
    order = sum(array.nbytes for array in place.shares.weights.values())
    assert len(played.ended) == 1 + WARM_UP + 1
    assert 2 * 0.9 * order < played.up < 2 * 1.1 * order
    assert played.server_mib > 10
    assert played.worked_s > 0
    assert 0 <= played.score <= 1


def test_goals_are_against_flower() -> None:
    played = {
        "flower": told(20.0, 9e6, 400.0, 0.9),
        "ours": told(3.0, 8.9e6, 300.0, 0.899),
        "compressed": told(3.0, 4e6, 300.0, 0.89),
    }
    figures = {figure.name: figure for figure in _figures(played, 4)}
    assert (figures["time per round, of Flower's"].value, figures["time per round, of Flower's"].holds) == (0.15, True)
    assert figures["memory, of Flower's"].holds is False
    assert figures["accuracy, over Flower's"].value == pytest.approx(-0.1)
