"""Take part now, if the owner wants it, the signed task allows it, and the board is cool and idle."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from edgectl import enrolment, tasks
from edgectl.agent.condition import not_now
from edgectl.board import network
from edgectl.config import Settings
from edgectl.connecting import connect
from edgectl.enrolment import Enrolment
from edgectl.governor.start import heat_limit
from edgectl.home import Home
from edgectl.rounds.joining import NEVER_S, Board, Outcome, Train, take_part
from edgectl.rounds.service import Rounds, RoundsOverHttp
from edgectl.rounds.trainer import Trainer
from edgectl.store import Store
from edgectl.telemetry.reading import Reading, Sensors
from edgectl.telemetry.watching import settled
from edgewire.errors import NotFound, NotGranted
from edgewire.files import exclusive
from edgewire.rounds import JoinRequest

NOT_NOW_S = 30.0  # when to ask again where the board itself does not want to now


@dataclass(frozen=True)
class World:
    """read: the board's state over the last moment; rounds: the cloud, while the block lasts; train: see joining.Train;
    can_train: whether this board has what training needs; let_go: of the memory that training keeps between turns;
    clock: seconds since 1970."""

    read: Callable[[], Reading]
    rounds: Callable[[Enrolment], contextlib.AbstractContextManager[Rounds]]
    train: Train
    can_train: bool
    stopped: Callable[[], bool]
    let_go: Callable[[], None] = lambda: None
    clock: Callable[[], float] = time.time


@contextlib.contextmanager
def real(home: Home, settings: Settings, *, site: Sequence[Path], stopped: Callable[[], bool]) -> Iterator[World]:
    """This board's, while the block lasts. site: folders with a site's own profiles; stopped: whether a stop was
    asked."""

    @contextlib.contextmanager
    def rounds(known: Enrolment) -> Iterator[Rounds]:
        cloud = connect(home, known, settings, deadline=None)  # a training may take longer than any sync
        try:
            yield RoundsOverHttp(cloud)
        finally:
            cloud.close()

    can_train = settings.text("train_scope") != "none" and find_spec("torch") is not None
    trainer = Trainer(home.root.absolute(), stopped)  # this process stays without torch, and without its memory
    with Sensors(site=site) as sensors, contextlib.closing(trainer):
        yield World(Senses(sensors).read, rounds, trainer.turn, can_train, stopped, trainer.close)


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


def take_part_now(home: Home, settings: Settings, world: World, *, task: str | None = None) -> list[Outcome]:
    """A turn of each task that wants one. settings: with what the profile recommends.

    Raises what the cloud raises, and Busy if another process is at it.
    """
    known = enrolment.load(home)
    if not settings.flag("rounds"):
        return []
    chosen = [task] if task is not None else list(known.tasks)
    wanted = {one: count for one in chosen if (count := _samples(home, known, one, world.clock())) > 0}
    if not wanted or world.stopped():
        return []
    if not world.can_train:
        why = "this board does not train (train_scope is 'none', or torch is not installed)"
        return [Outcome(one, note=why, wait_s=NEVER_S) for one in wanted]
    reading = world.read()
    limit_c = heat_limit(settings, reading).limit_c
    if why := not_now(reading, limit_c=limit_c, idle_load=settings.whole("agent_idle_percent") / 100):
        return [Outcome(one, note=why, wait_s=NOT_NOW_S) for one in wanted]
    told_c = reading.temperature_c if settings.flag("telemetry_share") else None
    requests = {one: JoinRequest(count, network.kind(), told_c) for one, count in wanted.items()}
    with exclusive(home.ensure().lock("rounds"), doing="taking part in rounds"), world.rounds(known) as rounds:
        boards = {
            one: Board(home, known, request, world.train, clock=world.clock, tells_rows=settings.flag("rounds_rows"))
            for one, request in requests.items()
        }
        return [_turn(board, world, rounds, one) for one, board in boards.items()]


def _turn(board: Board, world: World, rounds: Rounds, task: str) -> Outcome:
    if world.stopped():
        return Outcome(task, note="asked to stop")
    try:
        return take_part(board, task, rounds)
    except NotGranted as error:  # recalled since the last sync: of no other task's business
        return Outcome(task, note=error.message, wait_s=NEVER_S)


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
