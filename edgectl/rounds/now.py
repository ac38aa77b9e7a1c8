"""Take part now, if the owner wants it, the signed task allows it, and the board is cool and idle."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from edgectl import config, enrolment, tasks
from edgectl.agent.condition import not_now
from edgectl.board import memory, network
from edgectl.budget import LOADING_MIB
from edgectl.config import Places, Settings
from edgectl.connecting import connect
from edgectl.enrolment import Enrolment
from edgectl.governor.start import heat_limit
from edgectl.home import Home
from edgectl.rounds.able import Able
from edgectl.rounds.folder import RoundFolder
from edgectl.rounds.joining import Board, Outcome, Train, take_part
from edgectl.rounds.pauses import NEVER_S, RETRY_S, Pause, mark_of
from edgectl.rounds.service import Rounds, RoundsOverHttp
from edgectl.rounds.trainer import Trainer
from edgectl.stopping import Stop
from edgectl.store import Store
from edgectl.telemetry.reading import Reading, Sensors
from edgectl.telemetry.watching import settled
from edgewire.errors import (
    Busy,
    EdgeError,
    IntegrityError,
    InvalidMessage,
    NotFound,
    NotGranted,
    Offline,
    RetryLater,
    TimedOut,
    from_os_error,
)
from edgewire.files import exclusive
from edgewire.rounds import JoinRequest

NOT_NOW_S = 30.0  # when to ask again where the board itself does not want to now, or cannot reach the cloud
MAY_PASS = (RetryLater.exit_code, TimedOut.exit_code, Busy.exit_code)
"""How a turn failed that may go well later without anybody's doing."""
_BAD_DATA = (
    IntegrityError,
    InvalidMessage,
)  # from the cloud or the disk, however it shows: no wrong usage of the board


@dataclass(frozen=True)
class World:
    """read: the board's state over the last moment; rounds: the cloud, while the block lasts; train: see joining.Train;
    can_train: whether this board has what training needs; let_go: of the memory that training keeps between turns;
    room_mib: of memory that training may come to hold, torch included, disk_mib: that is free, None: not known;
    consents: whether the owner lets an update with that much noise go, by what is set now; clock: seconds since
    1970."""

    read: Callable[[], Reading]
    rounds: Callable[[Enrolment], contextlib.AbstractContextManager[Rounds]]
    train: Train
    can_train: bool
    stopped: Callable[[], bool]
    let_go: Callable[[], None] = lambda: None
    room_mib: Callable[[], float | None] = lambda: None
    disk_mib: Callable[[], float | None] = lambda: None
    consents: Callable[[float], bool] = lambda noise: True
    clock: Callable[[], float] = time.time


@contextlib.contextmanager
def until_stopped(home: Home, settings: Settings, places: Places) -> Iterator[tuple[World, Stop]]:
    """This board's world while the block lasts, and whether somebody asked it to end."""
    with (
        Stop().listening() as stop,
        real(
            home, settings, site=places.profiles, stopped=lambda: stop.asked, current=lambda: config.load(places)
        ) as world,
    ):
        yield world, stop


@contextlib.contextmanager
def real(
    home: Home,
    settings: Settings,
    *,
    site: Sequence[Path],
    stopped: Callable[[], bool],
    current: Callable[[], Settings],
) -> Iterator[World]:
    """This board's, while the block lasts. site: folders with a site's own profiles; stopped: whether a stop was asked;
    current: the settings as they are by now."""

    @contextlib.contextmanager
    def rounds(known: Enrolment) -> Iterator[Rounds]:
        cloud = connect(home, known, settings, deadline=None)  # a training may take longer than any sync
        try:
            yield RoundsOverHttp(cloud)
        finally:
            cloud.close()

    can_train = settings.text("train_scope") != "none" and find_spec("torch") is not None
    trainer = Trainer(home.root.absolute(), stopped)  # this process stays without torch, and without its memory

    def room_mib() -> float | None:
        free = memory.available_mib()  # what a process that stays has loaded, is not in it
        return free if free is None or not trainer.running else free + LOADING_MIB

    def disk_mib() -> float:
        return shutil.disk_usage(home.root).free / (1 << 20)

    def consents(noise: float) -> bool:
        by_now = current()
        return by_now.flag("rounds") and noise >= by_now.number("rounds_noise")

    with Sensors(site=site) as sensors, contextlib.closing(trainer):
        read, turn, let_go = Senses(sensors).read, trainer.turn, trainer.close
        yield World(read, rounds, turn, can_train, stopped, let_go, room_mib, disk_mib, consents)


class Senses:
    """The board's state for question after question. sensors: those of one world.

    A load takes half a second to tell, longer than many a turn, and after a turn it would be the turn's own: one that
    was seen counts for a while. All else is read anew."""

    def __init__(self, sensors: Sensors, *, settle: Callable[[Sensors], Reading] = settled) -> None:
        self._sensors, self._settle = sensors, settle
        self._seen: Reading | None = None

    def read(self) -> Reading:
        now = self._sensors.read()
        if self._seen is None or now.monotonic_s - self._seen.monotonic_s >= NOT_NOW_S:
            now = self._seen = self._settle(self._sensors)
        return replace(now, cpu_load=self._seen.cpu_load, gpu_load=self._seen.gpu_load)


def take_part_now(
    home: Home,
    settings: Settings,
    world: World,
    *,
    task: str | None = None,
    due: Callable[[str], bool] = lambda task: True,
    anyway: bool = False,
) -> list[Outcome]:
    """A turn of each task that wants one and is due. settings: with what the profile recommends; anyway: also where
    the board stays away for a while, because it could not do what it was asked for.

    What goes wrong in a turn is its outcome, and no other task's business. Raises NotEnrolled, CorruptFile.
    """
    known = enrolment.load(home)
    if not settings.flag("rounds"):
        return []
    wanted: dict[str, int] = {}
    made: list[Outcome] = []
    for one in (one for one in ([task] if task is not None else known.tasks) if due(one)):
        try:
            wanted[one] = _samples(home, known, one, world.clock())
        except EdgeError as error:  # what the last sync brought is damaged, or has expired; the store is busy
            made.append(_fail(Outcome(one), error))
    wanted = {one: count for one, count in wanted.items() if count > 0}
    if world.stopped():
        return made
    away = {} if anyway else _away(home, settings, world, wanted)
    coming = {one: count for one, count in wanted.items() if one not in away}
    return [*made, *away.values(), *(_turns(home, settings, world, known, coming) if coming else [])]


def _away(home: Home, settings: Settings, world: World, wanted: Mapping[str, int]) -> dict[str, Outcome]:
    """Tasks of which the board stays away for a while."""
    mark, now = mark_of(settings), world.clock()
    found = {one: RoundFolder(home, one).paused(mark, now) for one in wanted}
    return {one: Outcome(one, note=pause.note, wait_s=pause.until - now) for one, pause in found.items() if pause}


def _turns(home: Home, settings: Settings, world: World, known: Enrolment, wanted: Mapping[str, int]) -> list[Outcome]:
    """wanted: tasks, with how many samples there are."""
    if not world.can_train:
        why = "this board does not train (train_scope is 'none', or torch is not installed)"
        return [Outcome(one, note=why, wait_s=NEVER_S) for one in wanted]
    reading = world.read()
    limit_c = heat_limit(settings, reading).limit_c
    able = Able(_room_mib(settings, world), world.disk_mib(), settings.number("rounds_noise"))
    idle_load = settings.whole("agent_idle_percent") / 100
    if why := not_now(reading, limit_c=limit_c, idle_load=idle_load) or _too_small(able):
        return [Outcome(one, note=why, wait_s=NOT_NOW_S) for one in wanted]
    told_c = reading.temperature_c if settings.flag("telemetry_share") else None
    requests = {one: JoinRequest(count, network.kind(), told_c) for one, count in wanted.items()}
    try:
        with exclusive(home.ensure().lock("rounds"), doing="taking part in rounds"), world.rounds(known) as rounds:
            boards = {
                one: Board(
                    home,
                    known,
                    request,
                    world.train,
                    lambda: world.rounds(known),
                    stopped=world.stopped,
                    clock=world.clock,
                    able=able,
                    tells_rows=settings.flag("rounds_rows"),
                    consents=world.consents,
                )
                for one, request in requests.items()
            }
            return _one_by_one(boards, world, rounds, mark_of(settings))
    except Busy as error:
        return [_fail(Outcome(one), error) for one in wanted]


def _one_by_one(boards: Mapping[str, Board], world: World, rounds: Rounds, mark: str) -> list[Outcome]:
    """A turn of each, until the cloud cannot be reached: then it cannot for the others, either."""
    made = [Outcome(task) for task in boards]
    out: EdgeError | None = None
    for one, board in zip(made, boards.values(), strict=True):
        if out is None:
            out = _turn(board, world, rounds, one)
        else:
            _fail(one, out)
        if one.state == "given-up" and one.wait_s > RETRY_S:
            with contextlib.suppress(OSError):  # a full disk may be why it gave up: then it asks again sooner
                RoundFolder(board.home, one.task).pause(Pause(world.clock() + one.wait_s, one.note, mark))
    return made


def _turn(board: Board, world: World, rounds: Rounds, outcome: Outcome) -> EdgeError | None:
    """What goes wrong is in the outcome; returned where it is not about this task alone."""
    if world.stopped():
        outcome.note = "asked to stop"
        return None
    try:
        take_part(board, rounds, outcome)
    except NotGranted as error:  # recalled since the last sync
        outcome.note, outcome.wait_s = error.message, NEVER_S
    except EdgeError as error:
        _fail(outcome, error)
        return error if isinstance(error, (Offline, TimedOut)) else None
    except OSError as error:
        _fail(outcome, from_os_error(error, "taking part in rounds"))
    return None


def _fail(outcome: Outcome, error: EdgeError) -> Outcome:
    bad_data = isinstance(error, _BAD_DATA)
    outcome.state, outcome.note = "failed", str(error)
    outcome.code = IntegrityError.exit_code if bad_data else error.exit_code
    outcome.wait_s = RETRY_S if bad_data else NEVER_S
    if error.exit_code in MAY_PASS:
        outcome.wait_s = max(error.retry_after_s or 0.0, NOT_NOW_S)
    return outcome


def _room_mib(settings: Settings, world: World) -> float | None:
    """What training may come to hold, by the machine and by the owner."""
    limits = (settings.whole("train_memory_mib") or None, world.room_mib())
    return min((limit for limit in limits if limit is not None), default=None)


def _too_small(able: Able) -> str:
    """Why training cannot even begin, '' if it can."""
    if able.memory_mib is None or able.memory_mib >= LOADING_MIB:
        return ""
    return f"training needs {LOADING_MIB} MiB to begin with, {able.memory_mib:.0f} MiB are free and allowed"


def _samples(home: Home, known: Enrolment, task: str, now: float) -> int:
    """How many samples this board could train on; 0 where the signed task does not allow rounds, or is not here yet."""
    try:
        manifest = tasks.known_task(home, known, task, now)
    except NotFound:
        return 0
    if manifest.task.privacy.rounds is not True:
        return 0
    with Store.open(home.ensure().database) as store:
        return sum(store.label_counts(task).values())
