"""Whether a board takes part now: its owner's wish, the signed task, its samples, and how it feels."""

from __future__ import annotations

import contextlib
import errno
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from edgectl import config, store_schema
from edgectl.agent.children import Done
from edgectl.budget import LOADING_MIB
from edgectl.commands.sync import _failed
from edgectl.config import Places, Settings
from edgectl.rounds.folder import RoundFolder
from edgectl.rounds.joining import Outcome
from edgectl.rounds.now import NOT_NOW_S, Senses, World, real, take_part_now
from edgectl.rounds.pauses import NEVER_S, RETRY_S, Pause, mark_of
from edgectl.store import Store
from edgectl.telemetry.reading import Reading, Sensors
from edgewire import samples as sample_columns
from edgewire.errors import EdgeError, Forged, InvalidMessage, NotGranted, NotReady, Offline, Revoked, TimedOut
from edgewire.files import exclusive
from edgewire.rounds import JoinReply, JoinRequest, Sign, SignReply, UpdateMeta, UpdateReply
from tests.board.conftest import GESTURES, Board
from tests.board.synced import BOTH, Synced
from tests.learn import world

COOL = Reading(0.0, 0.0, temperature_c=40.0, cpu_load=0.0, throttled=False)


@dataclass
class Asked:
    """A service that only listens."""

    requests: list[JoinRequest] = field(default_factory=list)
    error: EdgeError | None = None
    asked: list[str] = field(default_factory=list)
    errors: dict[str, EdgeError] = field(default_factory=dict)

    def join(self, task_id: str, request: JoinRequest) -> JoinReply:
        self.asked.append(task_id)
        if (error := self.errors.get(task_id, self.error)) is not None:
            raise error
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

    board: Board
    service: Asked = field(default_factory=Asked)
    reading: Reading = COOL
    can_train: bool = True
    stopped: bool = False
    synced: Synced | None = None
    room_mib: float | None = None

    def settings(self, **flags: config.Value) -> Settings:
        folder = self.board.folder
        plain = config.load(Places({}, folder / "etc", folder / "none.toml", False))
        return plain.override(**{"rounds": True, **flags})

    def takes_part(self, *, anyway: bool = False, **flags: config.Value) -> list[Outcome]:
        def train(task: str, limit_s: float, unwanted: Callable[[], bool]) -> Done:
            raise AssertionError("nobody was invited")

        around = World(
            lambda: self.reading,
            lambda known: contextlib.nullcontext(self.service),
            train,
            self.can_train,
            lambda: self.stopped,
            room_mib=lambda: self.room_mib,
            clock=self.board.server.clock,
        )
        return take_part_now(self.board.home, self.settings(**flags), around, anyway=anyway)


def synced_of(ready: Ready) -> Synced:
    assert ready.synced is not None
    return ready.synced


@pytest.fixture
def ready(synced: Synced) -> Ready:
    """Allowed, synced, with samples."""
    synced.task = replace(BOTH, privacy=replace(BOTH.privacy, rounds=True))
    synced.publish()
    synced.sync()
    synced.add(world.style(3, 0.5))
    return Ready(synced.board, synced=synced)


@pytest.fixture
def two(newcomer: Board) -> Ready:
    """A board with samples of two tasks that allow rounds."""
    tasks = [replace(GESTURES, id=name, privacy=replace(GESTURES.privacy, rounds=True)) for name in ("one", "two")]
    newcomer.enroll("one", "two")
    for task in tasks:
        newcomer.receive(task)
        with Store.open(newcomer.home.database) as store:
            columns = sample_columns.make(np.zeros((1, 2, 3), np.float32), np.zeros(1, np.int64))
            store.add_samples(task, columns, now=0.0)
    return Ready(newcomer)


def test_a_board_that_may_and_can_asks(ready: Ready) -> None:
    assert [one.note for one in ready.takes_part()] == ["not invited yet"]
    assert ready.service.requests[0].samples == 12


def test_a_board_whose_owner_said_nothing_takes_no_part(ready: Ready) -> None:
    assert ready.takes_part(rounds=False) == ready.service.requests == []
    assert config.KEYS["rounds"].default is False


@pytest.mark.parametrize(
    ("flags", "consents"),
    [({}, True), ({"rounds_noise": 0.5}, True), ({"rounds_noise": 2.0}, False), ({"rounds": False}, False)],
)
def test_an_owner_consents_by_what_is_set_when_an_update_is_to_leave(
    ready: Ready, flags: dict[str, config.Value], consents: bool
) -> None:
    before, now = ready.settings(), ready.settings(**flags)
    with real(ready.board.home, before, site=(), stopped=lambda: False, current=lambda: now) as world:
        assert world.consents(1.0) is consents


def test_a_task_that_says_nothing_of_rounds_is_left_out(ready: Ready) -> None:
    synced_of(ready).task = BOTH
    synced_of(ready).publish()
    synced_of(ready).sync()
    assert ready.takes_part() == ready.service.requests == []


def test_a_board_without_samples_or_that_is_to_stop_does_not_ask(ready: Ready) -> None:
    ready.stopped = True
    assert ready.takes_part() == []
    ready.stopped = False
    with synced_of(ready).store() as store:
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


# What goes wrong in one task


@pytest.mark.parametrize(
    ("error", "code"),
    [(Forged("not by it"), 8), (InvalidMessage("malformed"), 8), (NotReady("not yet"), 3), (Revoked("gone"), 11)],
)
def test_what_goes_wrong_in_one_task_is_told_and_no_other_tasks_business(
    two: Ready, error: EdgeError, code: int
) -> None:
    two.service.errors = {"one": error}
    bad, good = two.takes_part()
    assert (bad.task, bad.state, bad.code, bad.note) == ("one", "failed", code, error.message)
    assert (good.task, good.state, good.note) == ("two", "waiting", "not invited yet")


def test_a_damaged_manifest_of_one_task_is_no_other_tasks_business(two: Ready) -> None:
    two.board.home.manifest("one").write_bytes(b"{}")
    bad, good = two.takes_part()
    assert (bad.task, bad.state, bad.code) == ("one", "failed", 8)
    assert (good.task, good.note) == ("two", "not invited yet")


def test_how_soon_a_task_that_failed_is_asked_again_follows_from_what_failed(two: Ready) -> None:
    told = (Forged("x"), RETRY_S), (Revoked("x"), NEVER_S), (NotReady("x", retry_after_s=90.0), 90.0)
    for error, wait_s in told:
        two.service.errors = {"one": error}
        assert two.takes_part()[0].wait_s == wait_s


@pytest.mark.parametrize("error", [Offline("no connection"), TimedOut("silent")])
def test_while_the_cloud_cannot_be_reached_no_other_task_is_tried(two: Ready, error: EdgeError) -> None:
    two.service.errors = {"one": error}
    made = two.takes_part()
    assert [(one.task, one.state, one.code, one.wait_s) for one in made] == [
        (task, "failed", error.exit_code, NOT_NOW_S) for task in ("one", "two")
    ]
    assert two.service.asked == ["one"]


def test_another_process_that_is_at_it_is_waited_for(two: Ready) -> None:
    with exclusive(two.board.home.ensure().lock("rounds"), doing="taking part in rounds"):
        made = two.takes_part()
    assert [(one.state, one.code, one.wait_s) for one in made] == [("failed", 9, NOT_NOW_S)] * 2


def test_a_store_that_is_busy_is_waited_for(two: Ready, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_schema, "BUSY_TIMEOUT_S", 0.0)
    with contextlib.closing(sqlite3.connect(two.board.home.database, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        made = two.takes_part()
    assert [(one.state, one.code, one.wait_s) for one in made] == [("failed", 9, NOT_NOW_S)] * 2
    assert _failed(made) is None


def test_what_may_go_well_later_is_no_failure_of_a_sync(two: Ready) -> None:
    two.service.error = Offline("no connection")
    assert _failed(two.takes_part()) is None
    two.service.error, two.service.errors = None, {"two": Forged("not by this cloud")}
    failed = _failed(two.takes_part())
    assert failed is not None
    assert (failed.task, failed.code) == ("two", 8)


# A board that cannot do what it was asked for


def test_too_little_memory_to_begin_with_is_found_out_before_anybody_is_asked(ready: Ready) -> None:
    ready.room_mib = LOADING_MIB - 1.0
    [one] = ready.takes_part()
    assert (one.state, one.wait_s, "MiB are free and allowed" in one.note) == ("waiting", NOT_NOW_S, True)
    ready.room_mib = LOADING_MIB + 1.0
    [one] = ready.takes_part(train_memory_mib=LOADING_MIB - 1)
    assert ready.service.requests == []
    ready.takes_part()
    assert len(ready.service.requests) == 1


def test_a_board_that_stays_away_does_not_ask_unless_told_to_or_something_changed(two: Ready) -> None:
    now, home = two.board.server.clock(), two.board.home
    folder = RoundFolder(home, "one")
    folder.ensure()
    folder.pause(Pause(now + 1000, "unknown codec", mark_of(two.settings())))
    away, other = two.takes_part()
    assert (away.task, away.state, away.note) == ("one", "waiting", "unknown codec")
    assert away.wait_s == pytest.approx(1000, abs=100)
    assert (other.note, two.service.asked) == ("not invited yet", ["two"])
    two.service.asked.clear()
    two.takes_part(anyway=True)
    two.takes_part(rounds_noise=0.5)  # another setting
    assert two.service.asked == ["one", "two"] * 2
    two.service.asked.clear()
    for until in (now - 1, now + 2 * NEVER_S):  # over; and by a clock that has jumped since
        folder.pause(Pause(until, "unknown codec", mark_of(two.settings())))
        two.takes_part()
    (folder.path / "pause.json").write_bytes(b"\x00")
    two.takes_part()
    assert two.service.asked == ["one", "two"] * 3


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


def test_a_board_without_disk_for_a_pause_loses_no_turn(two: Ready, monkeypatch: pytest.MonkeyPatch) -> None:
    def declines(board: object, rounds: object, outcome: Outcome) -> Outcome:
        outcome.state, outcome.wait_s = "given-up", NEVER_S
        return outcome

    def full(folder: RoundFolder, pause: Pause) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("edgectl.rounds.now.take_part", declines)
    monkeypatch.setattr(RoundFolder, "pause", full)
    assert [one.state for one in two.takes_part()] == ["given-up"] * 2
