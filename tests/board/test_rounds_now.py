"""Whether a board takes part now: its owner's wish, the signed task, its samples, and how it feels."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from edgectl import config
from edgectl.agent.children import Done
from edgectl.config import Places, Settings
from edgectl.rounds.joining import Outcome
from edgectl.rounds.now import NOT_NOW_S, Senses, World, take_part_now
from edgectl.telemetry.reading import Reading, Sensors
from edgewire.errors import EdgeError, NotGranted
from edgewire.rounds import JoinReply, JoinRequest, Sign, SignReply, UpdateMeta, UpdateReply
from tests.board.synced import BOTH, Synced
from tests.learn import world

COOL = Reading(0.0, 0.0, temperature_c=40.0, cpu_load=0.0, throttled=False)


@dataclass
class Asked:
    """A service that only listens."""

    requests: list[JoinRequest] = field(default_factory=list)
    error: EdgeError | None = None

    def join(self, task_id: str, request: JoinRequest) -> JoinReply:
        if self.error is not None:
            raise self.error
        self.requests.append(request)
        return JoinReply(note="not invited yet")

    def sign(self, task_id: str, series: str, number: int, told: Sign) -> SignReply:
        raise AssertionError("nobody was invited")

    def update(self, task_id: str, meta: UpdateMeta, body: bytes) -> UpdateReply:
        raise AssertionError("nobody was invited")

    def blob(self, digest: str, size: int, target: object) -> int:
        raise AssertionError("nobody was invited")

    def trust(self, after: int) -> list[bytes]:
        return []


@dataclass
class Ready:
    """A board that could take part; what it asked of the service."""

    synced: Synced
    service: Asked = field(default_factory=Asked)
    reading: Reading = COOL
    can_train: bool = True
    stopped: bool = False

    def settings(self, **flags: config.Value) -> Settings:
        folder = self.synced.board.folder
        plain = config.load(Places({}, folder / "etc", folder / "none.toml", False))
        return plain.override(**{"rounds": True, **flags})

    def takes_part(self, **flags: config.Value) -> list[Outcome]:
        def train(task: str, limit_s: float, unwanted: Callable[[], bool]) -> Done:
            raise AssertionError("nobody was invited")

        around = World(
            lambda: self.reading,
            lambda known: contextlib.nullcontext(self.service),
            train,
            self.can_train,
            lambda: self.stopped,
            self.synced.board.server.clock,
        )
        return take_part_now(self.synced.board.home, self.settings(**flags), around)


@pytest.fixture
def ready(synced: Synced) -> Ready:
    """Allowed, synced, with samples."""
    synced.task = replace(BOTH, privacy=replace(BOTH.privacy, rounds=True))
    synced.publish()
    synced.sync()
    synced.add(world.style(3, 0.5))
    return Ready(synced)


def test_a_board_that_may_and_can_asks(ready: Ready) -> None:
    assert [one.note for one in ready.takes_part()] == ["not invited yet"]
    assert ready.service.requests[0].samples == 12


def test_a_board_whose_owner_said_nothing_takes_no_part(ready: Ready) -> None:
    assert ready.takes_part(rounds=False) == ready.service.requests == []
    assert config.KEYS["rounds"].default is False


def test_a_task_that_says_nothing_of_rounds_is_left_out(ready: Ready) -> None:
    ready.synced.task = BOTH
    ready.synced.publish()
    ready.synced.sync()
    assert ready.takes_part() == ready.service.requests == []


def test_a_board_without_samples_or_that_is_to_stop_does_not_ask(ready: Ready) -> None:
    ready.stopped = True
    assert ready.takes_part() == []
    ready.stopped = False
    with ready.synced.store() as store:
        store.expire(BOTH.id, older_than=None, ids=None)
    assert ready.takes_part() == ready.service.requests == []


@pytest.mark.parametrize(
    ("change", "why"),
    [({"temperature_c": 79.0}, "not cool"), ({"cpu_load": 0.9}, "not idle"), ({"throttled": True}, "throttled")],
)
def test_a_board_that_is_hot_or_busy_waits(ready: Ready, change: dict[str, float], why: str) -> None:
    ready.reading = replace(COOL, **change)
    [one] = ready.takes_part(train_temp_c=80)
    assert (one.state, why in one.note, one.wait_s) == ("waiting", True, NOT_NOW_S)
    assert ready.service.requests == []


def test_a_board_that_cannot_train_does_not_ask(ready: Ready) -> None:
    ready.can_train = False
    [one] = ready.takes_part()
    assert "does not train" in one.note
    assert ready.service.requests == []


def test_heat_is_told_only_with_telemetry(ready: Ready) -> None:
    ready.takes_part()
    ready.takes_part(telemetry_share=True)
    assert [request.temperature_c for request in ready.service.requests] == [None, 40.0]


def test_a_recalled_task_is_no_error(ready: Ready) -> None:
    ready.service.error = NotGranted("this board is not granted task 'toy'")
    [one] = ready.takes_part()
    assert (one.state, "not granted" in one.note) == ("waiting", True)


def test_a_load_that_was_seen_counts_for_a_while_and_heat_is_of_now(tmp_path: Path) -> None:
    def settle(sensors: Sensors) -> Reading:
        return replace(COOL, monotonic_s=sensors.read().monotonic_s, cpu_load=loads.pop(0))

    now, loads = [100.0], [0.1, 0.9]
    with Sensors(tmp_path, monotonic=lambda: now[0]) as sensors:
        senses = Senses(sensors, settle=settle)
        assert senses.read().cpu_load == 0.1
        now[0] += NOT_NOW_S - 1
        assert (senses.read().cpu_load, senses.read().temperature_c) == (0.1, None)  # no sensor there tells it
        now[0] += 1
        assert senses.read().cpu_load == 0.9
