"""The agent's loop, with commands that only pretend: a day passes in no time."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from edgectl.agent.children import Done, last_words
from edgectl.agent.condition import not_now
from edgectl.agent.folder import WatchedFolder
from edgectl.agent.loop import Agent, Rules, World
from edgectl.agent.pace import Pace
from edgectl.telemetry.reading import Reading
from edgewire import errors

COOL = Reading(0.0, 0.0, temperature_c=40.0, cpu_load=0.0, throttled=False)


@dataclass
class Day:
    """A board whose commands answer what `answers` says, by their first word; `stored`: what `data add` was given."""

    folder: Path
    now: float = 0.0
    asked: bool = False
    reading: Reading = COOL
    health: Reading | None = None  # another one than `reading`
    tasks: Callable[[], Sequence[str]] = lambda: ["gestures"]
    all_tasks: Sequence[str] = ("gestures", "digits")
    answers: dict[str, Callable[[], Done]] = field(default_factory=dict)
    lines: list[tuple[str, ...]] = field(default_factory=list)
    at: list[tuple[float, str]] = field(default_factory=list)
    stored: set[str] = field(default_factory=set)
    duplicates: int = 0
    events: list[tuple[str, str]] = field(default_factory=list)
    until: float = float("inf")
    rules: Rules | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)

    def run(self, arguments: Sequence[str], limit_s: float | None) -> Done:
        self.lines.append(tuple(arguments))
        self.at.append((self.now, arguments[0]))
        if arguments[0] in self.answers:
            return self.answers[arguments[0]]()
        if arguments[0] == "data":
            return self.add(Path(arguments[2]))
        return Done(0, {"changed": False, "skipped": True, "task": "gestures", "reason": "it would not pay"})

    def add(self, path: Path) -> Done:
        text = path.read_text()
        if text == "nonsense":
            return Done(2, {}, "it is not a table -> give CSV")
        self.duplicates += text in self.stored
        self.stored.add(text)
        return Done(0, {"added": 1, "duplicates": 0, "task": "gestures"})

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        self.asked = self.asked or self.now >= self.until
        return self.asked

    def agent(self) -> Agent:
        world = World(
            tasks=lambda: self.tasks(),
            all_tasks=lambda: self.all_tasks,
            run=self.run,
            read=lambda: self.reading,
            health=lambda: self.health or self.reading,
            heat_limit_c=lambda reading: 77.0,
            keep=lambda reading: None,
            free_mib=lambda: 9999.0,
            clock=lambda: self.now,
            wait=self.wait,
            tell=lambda kind, line, **known: self.events.append((kind, line)),
            rng=Random(1),
        )
        return Agent(self.rules or Rules(self.folder), world)

    def drop(self, name: str, text: str = "a") -> Path:
        (self.folder / name).write_text(text)
        return self.folder / name

    def named(self, word: str) -> list[tuple[str, ...]]:
        return [line for line in self.lines if line[0] == word]

    def told(self, kind: str) -> list[str]:
        return [line for name, line in self.events if name == kind]


@pytest.fixture
def day(tmp_path: Path) -> Day:
    return Day(tmp_path / "inbox")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


# The watched folder


def test_one_round_adds_syncs_and_trains(day: Day) -> None:
    day.drop("one.csv")
    assert day.agent().once() == 0
    assert [line[0] for line in day.lines] == ["data", "sync", "train"]
    assert (names(day.folder), names(day.folder / "done")) == ([], ["one.csv"])


def test_a_file_that_never_fits_is_refused_beside_its_reason(day: Day) -> None:
    day.drop("bad.csv", "nonsense")
    assert day.agent().once() == 0
    assert names(day.folder / "refused") == ["bad.csv", "bad.csv.reason.txt"]
    assert "not a table" in (day.folder / "refused" / "bad.csv.reason.txt").read_text()


def test_a_half_written_file_is_left_until_it_is_whole(day: Day) -> None:
    path, agent = day.drop("slow.csv", "a"), day.agent()
    for number in range(5):
        agent.round()
        path.write_text("a" * (number + 2))
    assert day.stored == set()
    agent.round()
    agent.round()
    assert day.stored == {"aaaaaa"}


def test_a_file_that_changes_while_it_is_read_stays(day: Day) -> None:
    path = day.drop("slow.csv", "half")
    agent = day.agent()

    def grow() -> Done:
        path.write_text("half and half")
        return Done(2, {}, "half a file")

    day.answers["data"] = grow
    agent.once()
    assert names(day.folder) == ["slow.csv"]
    del day.answers["data"]
    agent.round()
    assert day.stored == {"half and half"}


def test_unfinished_names_are_passed_over(day: Day) -> None:
    for name in (".hidden.csv", "one.csv.part", "two.tmp"):
        day.drop(name)
    assert day.agent().once() == 0
    assert day.named("data") == []


def test_a_link_and_a_pipe_are_refused_without_being_opened(day: Day, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (day.folder / "link.csv").symlink_to(tmp_path / "secret")
    os.mkfifo(day.folder / "pipe.csv")
    day.agent().once()
    assert day.named("data") == []
    assert len(list((day.folder / "refused").glob("*.reason.txt"))) == 2
    assert (tmp_path / "secret").read_text() == "secret"


def test_a_name_that_was_used_before_overwrites_nothing(day: Day) -> None:
    for text in ("first", "second"):
        day.drop("same.csv", text)
        day.agent().once()
    assert {path.read_text() for path in (day.folder / "done").iterdir()} == {"first", "second"}


def test_killed_between_adding_and_moving_it_is_moved_by_the_next_agent(
    day: Day, monkeypatch: pytest.MonkeyPatch
) -> None:
    day.drop("one.csv")
    with monkeypatch.context() as killed:
        killed.setattr(WatchedFolder, "done", _die)
        with pytest.raises(Killed):
            day.agent().once()
    assert (day.stored, names(day.folder)) == ({"a"}, ["one.csv"])
    day.agent().once()
    assert (day.stored, day.duplicates, names(day.folder / "done")) == ({"a"}, 1, ["one.csv"])


def test_killed_between_the_reason_and_the_move_it_is_refused_once(day: Day, monkeypatch: pytest.MonkeyPatch) -> None:
    day.drop("bad.csv", "nonsense")
    with monkeypatch.context() as killed:
        killed.setattr(WatchedFolder, "_move", _die)
        with pytest.raises(Killed):
            day.agent().once()
    assert names(day.folder) == ["bad.csv"]
    day.agent().once()
    assert names(day.folder / "refused") == ["bad.csv", "bad.csv.reason.txt"]


class Killed(BaseException):
    """Nothing in the program may catch it, as nothing catches SIGKILL."""


def _die(*_: object) -> None:
    raise Killed


def test_what_cannot_be_added_now_is_tried_again_less_and_less_often(day: Day) -> None:
    day.answers["data"] = lambda: Done(6, {}, "the disk is full")
    day.drop("one.csv")
    day.until = 3600.0
    day.agent().forever()
    times = [at for at, word in day.at if word == "data"]
    assert 5 <= len(times) <= 10
    assert names(day.folder) == ["one.csv"]


def test_a_file_that_waited_for_the_first_sync_is_added_right_after_it(day: Day) -> None:
    day.drop("one.csv")
    day.answers["data"] = lambda: (
        day.add(day.folder / "one.csv") if day.named("sync") else Done(1, {}, "nothing is known yet of the task")
    )
    assert day.agent().once() == 0
    assert day.stored == {"a"}


def test_a_sync_does_not_make_a_file_whole_that_somebody_writes(day: Day) -> None:
    """One that waits is tried again right after a sync; what came a moment ago is not."""
    day.rules = Rules(day.folder, sync_s=1.0)
    day.drop("waits.csv", "one that cannot be added now")
    day.answers["data"] = lambda: Done(6, {}, "the disk is full")
    agent = day.agent()
    for number in range(4):
        if number == 3:
            day.drop("new.csv", "half")
        agent.round()
        day.now += 10.0
    assert {Path(line[2]).name for line in day.named("data")} == {"waits.csv"}


def test_a_name_that_is_used_again_and_again_stays_cheap(day: Day, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, looks, there = WatchedFolder(day.folder), list[str](), os.path.lexists
    for number in range(200):
        folder.done(day.drop("same.csv", str(number)))
    assert {path.read_text() for path in (day.folder / "done").iterdir()} == {str(number) for number in range(200)}
    monkeypatch.setattr(os.path, "lexists", lambda path: looks.append(str(path)) or there(path))
    folder.done(day.drop("same.csv"))
    assert len(looks) < 20


def test_with_several_tasks_each_has_a_folder(day: Day) -> None:
    day.tasks = lambda: ["gestures", "digits"]
    (day.folder / "digits").mkdir()
    (day.folder / "digits" / "one.csv").write_text("a")
    day.agent().once()
    assert day.named("data")[0][3:5] == ("--task", "digits")
    assert [line[2] for line in day.named("train")] == ["gestures", "digits"]


def test_a_file_that_waited_while_a_sync_brought_a_second_task_is_not_refused_for_that(day: Day) -> None:
    path, here = day.drop("one.csv"), ["gestures"]

    def add() -> Done:
        if "--task" not in day.lines[-1] and len(here) > 1:
            return Done(2, {}, "this board has several tasks")
        return day.add(path) if day.named("sync") else Done(1, {}, "nothing is known yet of the task")

    day.answers = {"data": add, "sync": lambda: here.append("digits") or Done(0)}
    day.tasks = lambda: list(here)
    assert day.agent().once() == 0
    assert (day.stored, names(day.folder / "done")) == ({"a"}, ["one.csv"])


def test_the_folder_of_a_task_that_the_board_no_longer_has_is_no_sample_of_another(day: Day) -> None:
    day.tasks = lambda: ["gestures", "digits"]
    agent = day.agent()
    agent.round()
    (day.folder / "digits" / "one.csv").write_text("a")
    day.tasks = lambda: ["gestures"]  # recalled, or the owner set `task`
    for _ in range(3):
        agent.round()
    day.agent().once()
    assert day.named("data") == []
    assert (day.folder / "digits" / "one.csv").exists()


def test_a_folder_that_is_called_like_the_task_may_be_dropped(day: Day) -> None:
    (day.folder / "gestures" / "wave").mkdir(parents=True)
    (day.folder / "gestures" / "wave" / "one.csv").write_text("a")
    day.answers["data"] = lambda: Done(0, {"added": 1})
    day.agent().once()
    assert [Path(line[2]).name for line in day.named("data")] == ["gestures"]


def test_what_lies_beside_the_folders_of_several_tasks_is_told_once(day: Day) -> None:
    day.drop("one.csv")
    day.tasks = lambda: ["gestures", "digits"]
    agent = day.agent()
    for number in range(5):
        agent.round()
        day.drop(f"{number}.csv")
    assert day.named("data") == []
    assert len(day.told("astray")) == 1
    assert "several tasks; move it into a sub-folder (gestures, digits)" in day.told("astray")[0]
    day.agent().once()
    assert len(day.told("astray")) == 2


def test_wrong_settings_refuse_no_file(day: Day) -> None:
    """`data add` ends with 2 because somebody broke the settings a moment ago."""
    day.drop("one.csv")

    def broken() -> Done:
        day.tasks = _unusable
        return Done(2, {}, "unknown setting")

    day.answers["data"] = broken
    with pytest.raises(errors.UsageError):
        day.agent().once()
    assert names(day.folder) == ["one.csv"]


def _unusable() -> Sequence[str]:
    raise errors.UsageError("unknown setting")


# Sync


def test_syncs_come_at_the_interval_with_jitter(day: Day) -> None:
    day.until = 10 * 3600.0
    day.agent().forever()
    times = [at for at, word in day.at if word == "sync"]
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert len(times) in (10, 11)
    assert all(3600 * 0.9 <= gap <= 3600 * 1.1 + 10 for gap in gaps)
    assert len(set(gaps)) > 5


def test_offline_syncs_back_off_and_the_board_goes_on(day: Day) -> None:
    day.answers["sync"] = lambda: Done(3, {}, "offline")
    day.until = 6 * 3600.0
    day.agent().forever()
    times = [at for at, word in day.at if word == "sync"]
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert gaps[0] <= 70
    assert max(gaps) >= 1800
    assert len(times) < 20
    assert day.named("train")


def test_a_round_that_found_the_cloud_offline_ends_with_3(day: Day) -> None:
    day.answers["sync"] = lambda: Done(3, {}, "offline")
    assert day.agent().once() == 3


@pytest.mark.parametrize(
    ("code", "kind"),
    [(2, errors.UsageError), (7, errors.UnsupportedBoard), (10, errors.NotEnrolled), (11, errors.Refused)],
)
def test_what_cannot_heal_ends_the_loop(day: Day, code: int, kind: type[errors.EdgeError]) -> None:
    day.answers["sync"] = lambda: Done(code, {}, "this board was revoked")
    with pytest.raises(kind, match="revoked"):
        day.agent().forever()


def test_a_library_that_this_processor_cannot_run_is_an_unsupported_board(day: Day) -> None:
    day.answers["sync"] = lambda: Done(-signal.SIGILL)
    with pytest.raises(errors.UnsupportedBoard, match="processor"):
        day.agent().forever()


@pytest.mark.parametrize("code", [1, 4, 6, 8, 9, -9])
def test_what_may_heal_does_not(day: Day, code: int) -> None:
    day.answers["sync"] = day.answers["train"] = lambda: Done(code, {}, "something")
    day.until = 7200.0
    assert day.agent().forever() == 0
    assert len(day.named("sync")) > 1


# Training


def test_training_waits_until_the_board_is_cool_and_says_so_once(day: Day) -> None:
    day.reading = replace(COOL, temperature_c=75.0)
    agent = day.agent()
    for _ in range(20):
        agent.round()
    assert (day.named("train"), len(day.told("wait"))) == ([], 1)
    day.reading = COOL
    agent.round()
    assert len(day.named("train")) == 1


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ({"cpu_load": 0.9}, "idle"),
        ({"gpu_load": 0.9}, "idle"),
        ({"throttled": True}, "throttled"),
        ({"under_voltage": True}, "voltage"),
        ({"temperature_c": 73.0}, "cool"),
    ],
)
def test_why_training_waits(state: dict[str, Any], why: str) -> None:
    assert why in not_now(replace(COOL, **state), limit_c=77.0, idle_load=0.5)


def test_peaks_of_current_hold_nothing_up() -> None:
    """A Jetson in its fastest mode has them in every training: the next turn of a round would wait for its own."""
    peaks = replace(COOL, throttled=True, throttle_flags=("over-current",))
    assert not_now(peaks, limit_c=77.0, idle_load=0.5) == ""
    assert "voltage" in not_now(replace(peaks, under_voltage=True), limit_c=77.0, idle_load=0.5)


def test_what_no_sensor_tells_holds_nothing_up() -> None:
    assert not_now(Reading(0.0, 0.0), limit_c=77.0, idle_load=0.5) == ""


@pytest.mark.parametrize("code", [7, -signal.SIGILL])
def test_a_board_that_cannot_train_syncs_and_adds_all_the_same(day: Day, code: int) -> None:
    day.answers["train"] = lambda: Done(code, {}, "torch is not installed")
    day.until = 3 * 3600.0
    day.agent().forever()
    assert len(day.named("train")) == 1
    assert len(day.named("sync")) >= 3
    assert len(day.told("untrained")) == 1


def test_a_stop_during_training_is_no_failure(day: Day) -> None:
    def interrupted() -> Done:
        day.asked = True
        return Done(130)

    day.answers["train"] = interrupted
    assert day.agent().forever() == 0
    assert (day.told("trouble"), len(day.told("stopped"))) == ([], 1)


def test_a_training_that_was_refused_for_memory_is_tried_again_later(day: Day) -> None:
    day.answers["train"] = lambda: Done(6, {}, "too little memory")
    day.until = 3600.0
    day.agent().forever()
    assert 3 <= len(day.named("train")) <= 10


def test_a_task_whose_training_fails_holds_up_no_other_and_counts_as_a_failure(day: Day) -> None:
    day.tasks = lambda: ["gestures", "digits"]
    day.answers["train"] = lambda: Done(1, {}, "an unexpected fault")
    assert day.agent().once() == 1
    assert len(day.named("train")) == 2


@pytest.mark.parametrize("code", [3, 4, 6, 8, 9, -signal.SIGKILL])
def test_a_task_that_can_never_be_trained_does_not_keep_the_others_from_it(day: Day, code: int) -> None:
    """Its model needs more memory than the board has, say: 6 each time."""
    day.tasks = lambda: ["large", "small"]
    answers = {"large": Done(code, {}, "too little memory"), "small": Done(0, {"skipped": True})}
    day.answers["train"] = lambda: answers[day.lines[-1][2]]
    day.until = 3.5 * 3600.0
    day.agent().forever()
    assert 3 <= len([line for line in day.named("train") if line[2] == "small"]) <= 5
    assert len([line for line in day.named("train") if line[2] == "large"]) >= 5
    assert "train large: too little memory" in day.told("trouble")[0]


def test_a_task_that_was_asked_is_not_asked_again_while_another_one_waits(day: Day) -> None:
    day.tasks = lambda: ["first", "second"]

    def heats() -> Done:
        day.reading = replace(COOL, temperature_c=76.0)
        return Done(0, {"skipped": True})

    day.answers["train"] = heats
    agent = day.agent()
    for _ in range(20):
        agent.round()
        day.reading = COOL if day.reading is not COOL and day.now > 60.0 else day.reading
        day.now += 10.0
    assert [line[2] for line in day.named("train")] == ["first", "second"]


def test_nothing_of_a_board_without_tasks_is_trained(day: Day) -> None:
    day.tasks = list
    assert day.agent().once() == 0
    assert day.named("train") == []


# Health, and whatever else goes wrong


def test_health_tells_of_trouble_and_again_when_it_is_over(day: Day) -> None:
    agent = day.agent()
    for reading in (COOL, replace(COOL, under_voltage=True), COOL):
        day.reading = reading
        agent.round()
        day.now += 600
    assert day.told("health") == ["health: good", "health: under-voltage", "health: good"]


def test_health_is_about_all_that_happened_since_the_last_look(day: Day) -> None:
    day.health = replace(COOL, under_voltage=True)  # for a moment, minutes ago
    assert day.agent().once() == 0
    assert (day.told("health"), len(day.named("train"))) == (["health: under-voltage"], 1)


def test_peaks_of_current_are_no_trouble(day: Day) -> None:
    day.health = replace(COOL, throttled=True, throttle_flags=("over-current",))
    day.agent().once()
    assert day.told("health") == ["health: good"]


def test_a_folder_that_may_not_be_read_stops_nothing_else(day: Day, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    day.rules = Rules(tmp_path / "file")
    assert day.agent().once() == 1
    assert len(day.named("sync")) == 1


def test_a_fault_in_a_step_is_told_and_the_others_go_on(day: Day) -> None:
    def fault() -> Done:
        raise ZeroDivisionError("a fault")

    day.answers["sync"] = fault
    assert day.agent().once() == 1
    assert "ZeroDivisionError" in day.told("trouble")[0]
    assert len(day.named("train")) == 1


def test_a_pace_never_waits_longer_than_its_interval() -> None:
    pace = Pace(600.0, Random(0))
    waits = [pace.failed(0.0) for _ in range(50)]
    assert waits[0] <= 60.0
    assert max(waits) <= 600.0


def test_last_words_are_the_error_with_its_advice() -> None:
    assert last_words("warning: x\nedgectl: no\n  -> do that\n") == "no -> do that"
    assert last_words("Killed\n") == "Killed"


# Federated rounds


def test_a_board_whose_owner_wants_rounds_asks_for_them_as_often_as_the_cloud_says(day: Day) -> None:
    day.rules = replace(Rules(day.folder), rounds_s=30.0)
    turn = {"task": "gestures", "state": "waiting", "note": "no rounds are running for this task"}
    day.answers["round"] = lambda: Done(0, {"wait_s": 900.0, "turns": [turn]})
    day.until = 2000.0
    assert day.agent().forever() == 0
    assert day.named("round") == [("round", "join", "--for", "60", "--json")] * 3
    assert day.told("round gestures") == ["gestures: no rounds are running for this task"]
    assert all("--no-rounds" in line for line in day.named("sync"))


def test_a_turn_is_told_and_one_that_failed_is_tried_again_later(day: Day) -> None:
    day.rules = replace(Rules(day.folder), rounds_s=30.0)
    sent = {"task": "gestures", "series": "0" * 16, "number": 2, "state": "sent"}
    answers = itertools.chain(
        [Done(3, {}, "no connection")], itertools.repeat(Done(0, {"wait_s": 5.0, "turns": [sent]}))
    )
    day.answers["round"] = lambda: next(answers)
    day.until = 100.0
    day.agent().forever()
    assert "rounds: no connection" in day.told("trouble")[0]
    assert day.told("round")[0] == "gestures: round 2: sent"


def test_why_a_turn_came_to_nothing_is_told(day: Day) -> None:
    day.rules = replace(Rules(day.folder), rounds_s=30.0)
    turn = {"task": "gestures", "series": "0" * 16, "number": 2, "state": "refused", "note": "not finite"}
    day.answers["round"] = lambda: Done(0, {"wait_s": 60.0, "turns": [turn]})
    day.agent().once()
    assert day.told("round") == ["gestures: round 2: refused (not finite)"]


def test_turns_that_were_played_are_told_where_another_task_failed(day: Day) -> None:
    day.rules = replace(Rules(day.folder), rounds_s=30.0)
    sent = {"task": "gestures", "series": "0" * 16, "number": 2, "state": "sent"}
    failed = {"task": "postures", "series": "", "number": 0, "state": "failed", "note": "forged"}
    day.answers["round"] = lambda: Done(8, {"wait_s": 5.0, "turns": [sent, failed]}, "postures: forged")
    assert day.agent().once() == 8
    assert day.told("round") == ["gestures: round 2: sent"]
    assert day.told("round postures") == ["postures: forged"]
    assert "rounds: postures: forged" in day.told("trouble")[0]


def test_a_task_that_always_fails_does_not_slow_down_the_turns_of_another(day: Day) -> None:
    day.rules = replace(Rules(day.folder), rounds_s=30.0)
    nothing, failing = (
        Done(0, {"wait_s": 900.0, "turns": []}),
        Done(8, {"wait_s": 5.0, "turns": []}, "postures: forged"),
    )
    answers = itertools.chain([nothing], itertools.repeat(failing))
    day.answers["round"] = lambda: next(answers)
    day.until = 4600.0
    day.agent().forever()
    assert len(day.named("round")) > 50


def test_an_owner_who_changes_their_mind_does_not_end_the_agent(day: Day) -> None:
    day.rules = replace(Rules(day.folder), rounds_s=30.0)
    day.answers["round"] = lambda: Done(5, {}, "this board takes no part in federated rounds")
    assert day.agent().once() == 0
    assert day.told("trouble") == []


def test_without_consent_nobody_asks_for_rounds(day: Day) -> None:
    day.agent().once()
    assert day.named("round") == []
