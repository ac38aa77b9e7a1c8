"""Joules of ways to train, with sensors whose truth is known and a clock of the test's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from edgectl import comparing
from edgectl.comparing import Bench, Way, compare, synthetic
from edgectl.telemetry.reading import Reading
from edgewire.files import exclusive
from edgewire.tasks import InputSchema, ModelSpec, Task
from tests.board.conftest import Board
from tests.board.synced import Synced
from tests.learn import world

WAYS = (Way(1, 8), Way(1, 32))


class Board2W:
    """Takes 2 W doing nothing and 5 W while it trains; each look at the clock passes 10 ms."""

    def __init__(self, *, power: bool = True, throttled: bool | None = False) -> None:
        self.now, self.idle, self.power, self.throttled = 0.0, True, power, throttled
        self.told: list[str] = []

    def clock(self) -> float:
        self.now += 0.01
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def tell(self, line: str) -> None:
        self.told.append(line)
        self.idle = line.startswith("idle")

    def read(self) -> Reading:
        if not self.power:
            return Reading(self.now, 0.0, missing={"power_w": "no power sensor"})
        watts = 2.0 if self.idle else 5.0
        return Reading(
            self.now, 0.0, power_w=watts, power_quality="measured", temperature_c=60.0, throttled=self.throttled
        )

    def bench(self, **changes: object) -> Bench:
        made = Bench(self.read, 1.0, 1.0, 2, clock=self.clock, sleep=self.sleep, on_event=self.tell)
        return replace(made, **changes)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Another test's thread count is none of ours."""
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_what_is_idle_is_subtracted() -> None:
    found = compare(world.TASK, world.base(), synthetic(world.TASK), WAYS, Board2W().bench())
    assert found.idle_w == pytest.approx(2.0)
    for row in found.rows:
        assert row.energy.joules == pytest.approx(5.0 * row.energy.seconds)
        assert row.joules_per_step == pytest.approx(3.0 * row.seconds / row.steps)
        assert row.energy.quality == "measured"
        assert row.energy.largest_gap_s < 0.5


def test_the_same_steps_with_more_samples_cost_less_per_sample() -> None:
    found = compare(world.TASK, world.base(), synthetic(world.TASK), WAYS, Board2W().bench())
    assert found.cheapest == found.fastest == 1  # by the test's clock a step takes as long with 8 samples as with 32
    small, large = found.rows
    assert small.joules_per_1000_samples == pytest.approx(4 * (large.joules_per_1000_samples or 0.0), rel=0.05)


def test_ways_take_turns_forwards_and_backwards() -> None:
    board = Board2W()
    compare(world.TASK, world.base(), synthetic(world.TASK), WAYS, board.bench())
    assert [line.rpartition(" ")[2] for line in board.told[1:]] == ["8", "32", "32", "8"]


def test_between_turns_nothing_is_counted() -> None:
    found = compare(world.TASK, world.base(), synthetic(world.TASK), WAYS, Board2W().bench())
    assert all(row.energy.seconds <= row.seconds + 0.1 for row in found.rows)


def test_without_a_sensor_energy_is_unknown_and_says_why() -> None:
    board = Board2W(power=False)
    found = compare(world.TASK, world.base(), synthetic(world.TASK), WAYS, board.bench())
    assert (found.cheapest, found.idle_w, found.reason) == (None, None, "no power sensor")
    assert all(row.joules_per_step is None and row.energy.quality == "none" for row in found.rows)
    assert found.rows[found.fastest].samples_per_s > 0


def test_a_board_that_throttled_meanwhile_is_marked() -> None:
    found = compare(world.TASK, world.base(), synthetic(world.TASK), WAYS, Board2W(throttled=True).bench())
    assert all(row.throttled for row in found.rows)


@pytest.mark.parametrize(
    ("dtype", "shape", "model"),
    [("float32", (2, 3), "cnn1d"), ("uint8", (8, 8, 1), "cnn2d"), ("int16", (64, 2), "cnn1d")],
)
def test_synthetic_samples_have_the_tasks_shape(dtype: str, shape: tuple[int, ...], model: str) -> None:
    task = Task("t", "T", InputSchema(shape, dtype), ("a", "b"), ModelSpec(model))  # type: ignore[arg-type]
    made = synthetic(task)
    assert (made.x.dtype, made.x.shape[1:]) == (np.dtype(dtype), shape)
    assert set(made.y) == {0, 1}


def test_the_report_is_json() -> None:
    found = compare(world.TASK, world.base(), synthetic(world.TASK), WAYS[:1], Board2W().bench(rounds=1))
    json.dumps(comparing.report_of(found), allow_nan=False)


def test_a_wrong_list_of_threads_is_a_usage_error(board: Board) -> None:
    done = board.edgectl("bench", "energy", "--threads", "1,many")
    assert done.returncode == 2
    assert b"whole numbers" in done.stderr


def test_the_command_trains_on_this_boards_samples_and_says_what_it_does_not_know(synced: Synced) -> None:
    synced.add(world.style(3, 1.0))
    synced.sync()
    line = "bench energy --threads 1 --batch 4,8 --seconds 1 --idle-seconds 1 --rounds 1 --json"
    done = synced.board.edgectl(*line.split())
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["task"], report["data"]) == (world.TASK.id, "own")
    assert [row["batch"] for row in report["rows"]] == [4, 8]
    for row in report["rows"]:
        assert row["steps"] > 0
        assert (row["joules_per_step"] is None) == (row["energy"]["quality"] == "none")
    assert (report["cheapest"] is None) == bool(report["reason"])


def test_the_command_does_not_meter_while_a_training_runs(synced: Synced) -> None:
    synced.sync()
    with exclusive(synced.board.home.lock("train"), doing="testing"):
        assert synced.board.edgectl("bench", "energy", "--synthetic").returncode == 9
