"""A board's day: add what was dropped into the watched folder, sync, train when it pays and the board is cool and idle,
look after its health. What goes wrong is told and tried again, later and later; only what cannot heal ends the loop.

Everything arrives from outside (commands, sensors, clocks, waiting), so that tests live through a day in no time. It
keeps no state of its own: after kill -9 it looks again, and each command finds out what is left to do.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from edgectl.agent.children import Done, Run
from edgectl.agent.condition import not_now, troubles
from edgectl.agent.folder import WatchedFolder, is_plain
from edgectl.agent.pace import Pace
from edgectl.telemetry.reading import Reading
from edgewire import errors

ADD_LIMIT_S = 3600.0
SYNC_GRACE_S = 120.0  # to what a sync gives itself
ROUNDS_STAY_S = 60  # for which a process that takes part in rounds goes on asking
_NO_TRAINING = 7

Tell = Callable[..., None]
"""tell(kind, line, **known): one event."""


@dataclass(frozen=True)
class Rules:
    """watch: where files are dropped, watch_s: from one look to the next; sync_s, train_s, rounds_s: from one sync, one
    question whether training pays, and one for a federated round, to the next, 0: never; sync_limit_s: what a sync may
    take; idle_load: the share of the processor that others may use, 0..1; health_s: from one look at the board's health
    to the next."""

    watch: Path
    watch_s: float = 10.0
    sync_s: float = 3600.0
    sync_limit_s: float = 600.0
    train_s: float = 3600.0
    rounds_s: float = 0.0
    idle_load: float = 0.5
    health_s: float = 300.0


@dataclass(frozen=True)
class World:
    """tasks: those of this board, raises what the settings or the enrolment are refused for; all_tasks: also those that
    it only had, or that the settings leave out; run: an edgectl command; read: the board's state over the last moment;
    health: the same since it was last asked for; heat_limit_c: what training may not pass; keep: a reading for later,
    None or why not; free_mib: of the disk; clock: monotonic, in s; wait: sleep, and say whether to stop."""

    tasks: Callable[[], Sequence[str]]
    all_tasks: Callable[[], Collection[str]]
    run: Run
    read: Callable[[], Reading]
    health: Callable[[], Reading]
    heat_limit_c: Callable[[Reading], float | None]
    keep: Callable[[Reading], str | None]
    free_mib: Callable[[], float]
    clock: Callable[[], float]
    wait: Callable[[float], bool]
    tell: Tell
    rng: Random


class Agent:
    """One agent. The caller holds the lock."""

    def __init__(self, rules: Rules, world: World) -> None:
        self._rules, self._world = rules, world
        self._folders: dict[str | None, WatchedFolder] = {}
        self._later: dict[Path, Pace] = {}  # entries that could not be added, and when to try again
        self._sync = Pace(rules.sync_s, world.rng)
        self._train: dict[str, Pace] = {}  # by task
        self._rounds = Pace(rules.rounds_s, world.rng)
        self._health = Pace(rules.health_s, world.rng)
        self._look = Pace(rules.watch_s, world.rng)
        self._settings = Pace(rules.watch_s, world.rng)
        self._calm = Pace(rules.watch_s, world.rng)
        self._trains = rules.train_s > 0
        self._told: dict[str, str] = {}  # what stays as it is, is told once
        self._tasks: Sequence[str] = ()
        self._failures: dict[str, int] = {}  # what failed and did not succeed since -> exit code

    def forever(self) -> int:
        """Rounds until a stop is asked; 0. Raises UsageError, UnsupportedBoard, NotEnrolled or Refused: what no time
        heals."""
        while not self._stopped():
            self.round()
            self._world.wait(self._rules.watch_s)
        return 0

    def once(self) -> int:
        """One round; 0, or the exit code of the first thing that failed. Raises what `forever` raises."""
        self._ask_tasks()
        self._attempt("watch", self._look, self._look_first)
        if any(folder.waits() for folder in self._folders.values()):
            self._world.wait(self._rules.watch_s)
        self.round()
        return next(iter(self._failures.values()), 0)

    def round(self) -> None:
        """Everything that is due, in the order in which one helps the other."""
        self._ask_tasks()
        self._attempt("watch", self._look, self._watch)
        if self._rules.sync_s > 0:
            self._attempt("sync", self._sync, self._synchronise)
        if self._trains:
            self._attempt("train", self._calm, self._train_due)
        if self._rules.rounds_s > 0 and self._tasks:
            self._attempt("rounds", self._rounds, self._take_part)
        self._attempt("health", self._health, self._look_after)

    def _stopped(self) -> bool:
        return self._world.wait(0.0)

    def _ask_tasks(self) -> None:
        self._attempt("settings", self._settings, self._take_tasks)

    def _take_tasks(self) -> None:
        self._tasks = self._world.tasks()
        self._settings.reset()

    def _attempt(self, doing: str, pace: Pace, step: Callable[[], None]) -> None:
        """Do it if it is due. Whatever goes wrong in it, but for what cannot heal, is tried again later."""
        if self._stopped() or not pace.due(self._world.clock()):
            return
        try:
            step()
        except (errors.UsageError, errors.UnsupportedBoard, errors.NotEnrolled, errors.Refused):
            raise
        except Exception as error:
            known = error if isinstance(error, errors.EdgeError) else _known(error, doing)
            self._failed(doing, pace, known.exit_code, str(known))

    def _failed(self, doing: str, pace: Pace, code: int, reason: str, **known: Any) -> None:
        again_s = round(pace.failed(self._world.clock()))
        self._failures.setdefault(doing, code)
        line = f"{doing}: {reason}; again in {again_s} s"
        self._world.tell("trouble", line, doing=doing, code=code, again_s=again_s, **known)

    def _succeeded(self, doing: str, pace: Pace) -> None:
        self._failures.pop(doing, None)
        pace.done(self._world.clock())

    def _once_told(self, kind: str, line: str, **known: Any) -> None:
        if self._told.get(kind) != line:
            self._told[kind] = line
            self._world.tell(kind, line, **known)

    # The watched folder

    def _watched(self) -> list[WatchedFolder]:
        """The folder; with several tasks a sub-folder for each."""
        names: list[str | None] = [*self._tasks] if len(self._tasks) > 1 else [None]
        return [self._folder(name) for name in names]

    def _folder(self, task: str | None) -> WatchedFolder:
        if task not in self._folders:
            folder = self._rules.watch / (task or "")
            self._folders[task] = WatchedFolder(folder, task=task, tasks=self._world.all_tasks)
        return self._folders[task]

    def _look_first(self) -> None:
        for folder in self._watched():
            folder.look()
        if len(self._tasks) > 1:
            self._folder(None).look()

    def _watch(self) -> None:
        for folder in self._watched():
            for path in folder.look():
                self._add_in_time(folder, path)
        self._tell_astray()
        self._failures.pop("watch", None)
        self._look.reset()

    def _watch_again(self, waiting: set[Path]) -> None:
        """Only what was whole before: between this look and the last one too little time may have passed."""
        for folder in self._watched():
            for path in sorted(waiting & set(folder.look())):
                self._add_in_time(folder, path)

    def _add_in_time(self, folder: WatchedFolder, path: Path) -> None:
        pace = self._later.setdefault(path, Pace(ADD_LIMIT_S, self._world.rng))
        self._attempt(f"add {path.name}", pace, partial(self._add, folder, path))
        if not path.exists():
            self._later.pop(path, None)
            self._failures.pop(f"add {path.name}", None)

    def _tell_astray(self) -> None:
        """What lies beside the folders of several tasks: nobody can know which of them it is for."""
        if len(self._tasks) > 1 and self._folder(None).look():
            line = f"what lies in {self._rules.watch} itself is not added: this board has several tasks"
            hint = f"move it into a sub-folder ({', '.join(self._tasks)}), or: edgectl config set task NAME"
            self._once_told("astray", f"{line}; {hint}")
        else:
            self._told.pop("astray", None)

    def _add(self, folder: WatchedFolder, path: Path) -> None:
        if not is_plain(path):
            self._refuse(folder, path, "it is no plain file or folder: links are not followed")
            return
        # named also where it is the only one: a sync may bring another meanwhile, for which this was not dropped
        name = folder.task or next(iter(self._tasks), None)
        task = ["--task", name] if name else []
        done = self._world.run(["data", "add", str(path), *task, "--json"], ADD_LIMIT_S)
        if self._stopped() and done.code != 0:
            return
        if not folder.unchanged(path):  # somebody still writes; what was added of it is not added again
            self._world.tell("wait", f"{path.name} changed while it was read; it waits until it is whole")
        elif done.code == 0:
            self._added(folder, path, done)
        elif done.code in (errors.UsageError.exit_code, errors.UnsupportedBoard.exit_code):
            self._take_tasks()  # if it is the settings that are wrong, the file is not to blame
            self._refuse(folder, path, done.said)
        else:
            self._cannot_heal(done, (errors.NotEnrolled.exit_code,))
            self._failed(f"add {path.name}", self._later[path], done.code, _reason(done), file=path.name)

    def _added(self, folder: WatchedFolder, path: Path, done: Done) -> None:
        folder.done(path)
        added, twice = done.report.get("added", 0), done.report.get("duplicates", 0)
        line = f"{path.name}: {added} added, {twice} were there already"
        self._world.tell("added", line, file=path.name, task=done.report.get("task"), added=added, duplicates=twice)

    def _refuse(self, folder: WatchedFolder, path: Path, reason: str) -> None:
        folder.refuse(path, reason)
        self._world.tell("refused", f"{path.name} is refused: {reason}", file=path.name, reason=reason)

    # Sync

    def _synchronise(self) -> None:
        done = self._world.run(["sync", "--no-rounds", "--json"], self._rules.sync_limit_s + SYNC_GRACE_S)
        if done.code == 0:
            self._succeeded("sync", self._sync)
            changed = bool(done.report.get("changed"))
            line = "synced: something new" if changed else "synced: nothing new"
            self._world.tell("synced", line, **{key: value for key, value in done.report.items() if key in _OF_SYNC})
            if waiting := set(self._later):  # perhaps they waited for what is here now
                self._later.clear()
                self._watch_again(waiting)
        elif not self._stopped():
            self._cannot_heal(done, tuple(_ENDS))
            self._failed("sync", self._sync, done.code, _reason(done))

    # Training

    def _train_due(self) -> None:
        """Each task that is due in turn, while the board is cool and idle; what goes wrong in one holds up no other."""
        for task in self._tasks:
            pace = self._train.setdefault(task, Pace(self._rules.train_s, self._world.rng))
            if pace.due(self._world.clock()):
                if self._stopped() or not self._trains or self._must_wait():
                    break
                self._attempt(f"train {task}", pace, partial(self._train_one, task, pace))
        self._failures.pop("train", None)
        self._calm.reset()

    def _must_wait(self) -> bool:
        reading = self._world.read()
        why = not_now(reading, limit_c=self._world.heat_limit_c(reading), idle_load=self._rules.idle_load)
        if why:
            self._once_told("wait", f"training waits: {why}")
        else:
            self._told.pop("wait", None)
        return bool(why)

    def _train_one(self, task: str, pace: Pace) -> None:
        """Train if it pays, which the command finds out."""
        self._world.tell("training", f"{task}: asking whether training pays", task=task)
        done = self._world.run(["train", "--task", task, "--json"], None)
        if done.code == 0:
            self._succeeded(f"train {task}", pace)
            self._world.tell("trained", _outcome(done.report), **{key: done.report.get(key) for key in _OF_TRAINING})
        elif self._stopped():
            self._world.tell(
                "stopped", f"{task}: training was asked to stop; the next one goes on from there", task=task
            )
        elif done.illegal or done.code == _NO_TRAINING:
            self._trains = False
            self._world.tell("untrained", f"this board does not train: {_reason(done)}", task=task)
        elif done.code in (errors.NothingToDo.exit_code, errors.Refused.exit_code, errors.EdgeError.exit_code):
            self._once_told(f"train {task}", f"{task}: not trained: {_reason(done)}", task=task, code=done.code)
            if done.code == errors.EdgeError.exit_code:
                self._failures.setdefault(f"train {task}", done.code)
            pace.done(self._world.clock())
        else:
            self._cannot_heal(done, (errors.UsageError.exit_code, errors.NotEnrolled.exit_code))
            self._failed(f"train {task}", pace, done.code, _reason(done), task=task)

    # Federated rounds

    def _take_part(self) -> None:
        """Turns, if the cloud invites this board: the command finds that out, and whether it is cool and idle. It stays
        for a while where rounds go on: to start training anew for each takes longer than many a turn."""
        done = self._world.run(["round", "join", "--for", str(ROUNDS_STAY_S), "--json"], None)
        for turn in done.report.get("turns", []):  # also where another task's failed
            self._tell_turn(turn)
        if "wait_s" in done.report:
            self._rounds.every_s = max(self._rules.rounds_s, float(done.report["wait_s"]))
        if done.code in (0, errors.NothingToDo.exit_code):  # 5: the owner has changed the setting since
            self._succeeded("rounds", self._rounds)
        elif not self._stopped():
            self._cannot_heal(done, tuple(_ENDS))
            self._failed("rounds", self._rounds, done.code, _reason(done))

    def _tell_turn(self, turn: dict[str, Any]) -> None:
        known = {key: turn.get(key) for key in ("task", "series", "number", "state", "note")}
        if turn.get("state") in ("waiting", "failed"):
            self._once_told(f"round {turn.get('task')}", f"{turn.get('task')}: {turn.get('note')}", **known)
        else:
            why = f" ({turn['note']})" if turn.get("note") and turn.get("state") != "sent" else ""
            line = f"{turn.get('task')}: round {turn.get('number')}: {turn.get('state')}{why}"
            self._world.tell("round", line, **known)

    # Health

    def _look_after(self) -> None:
        reading = self._world.health()
        problems = [*troubles(reading, free_mib=self._world.free_mib())]
        if (unkept := self._world.keep(reading)) is not None:
            problems.append(unkept)
        self._succeeded("health", self._health)
        line = f"health: {'; '.join(problems)}" if problems else "health: good"
        self._once_told("health", line, problems=problems, reading=reading.plain())

    def _cannot_heal(self, done: Done, codes: Sequence[int]) -> None:
        """Raises if the command ended with one of these exit codes, or the processor does not know an instruction."""
        if done.illegal:
            raise errors.UnsupportedBoard(
                "a library does not run on this processor", hint="edgectl doctor says what to do"
            )
        if done.code in codes:
            raise _ENDS[done.code](done.said or f"a command ended with exit code {done.code}")


_ENDS: dict[int, type[errors.EdgeError]] = {
    kind.exit_code: kind for kind in (errors.UsageError, errors.UnsupportedBoard, errors.NotEnrolled, errors.Refused)
}
_OF_SYNC = ("changed", "sent", "refused", "bytes_up", "bytes_down")
_OF_TRAINING = ("task", "changed", "skipped", "shipped", "version", "cut", "gain", "joules", "seconds", "reason")


def _known(error: Exception, doing: str) -> errors.EdgeError:
    if isinstance(error, OSError):
        return errors.from_os_error(error, doing)
    return errors.EdgeError(f"unexpected {type(error).__name__}: {error}")


def _reason(done: Done) -> str:
    return done.said or (f"signal {-done.code} ended it" if done.code < 0 else f"exit code {done.code}")


def _outcome(report: dict[str, Any]) -> str:
    task, reason = report.get("task"), report.get("reason")
    if report.get("skipped"):
        return f"{task}: {reason}"
    if report.get("changed"):
        return f"{task}: version {report.get('version')} serves: recipe {report.get('shipped')}"
    return f"{task}: {report.get('shipped')} stays; {reason}"
