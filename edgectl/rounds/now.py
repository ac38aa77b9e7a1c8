"""Take part now, if the owner wants it, the signed task allows it, and the board is cool and idle."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from edgectl import enrolment, tasks
from edgectl.agent.children import Children, Done
from edgectl.agent.condition import not_now
from edgectl.board import network
from edgectl.config import Settings
from edgectl.connecting import connect
from edgectl.enrolment import Enrolment
from edgectl.governor.start import heat_limit
from edgectl.home import Home
from edgectl.rounds.joining import Board, Outcome, take_part
from edgectl.rounds.service import RoundsOverHttp
from edgectl.store import Store
from edgectl.telemetry.reading import Reading, Sensors
from edgectl.telemetry.watching import settled
from edgewire.errors import NotFound
from edgewire.files import exclusive
from edgewire.rounds import JoinRequest

NOT_NOW_S, NEVER_S = 30.0, 3600.0  # when to ask again where the board itself does not want to


def take_part_now(
    home: Home,
    settings: Settings,
    *,
    task: str | None,
    site: Sequence[Path],
    stopped: Callable[[], bool],
    clock: Callable[[], float] = time.time,
) -> list[Outcome]:
    """A turn of each task that wants one. settings: with what the profile recommends; site: folders with profiles of
    its own; stopped: whether a stop was asked. Raises what the cloud raises, and Busy if another process is at it.
    """
    known = enrolment.load(home)
    if not settings.flag("rounds"):
        return []
    chosen = [task] if task is not None else list(known.tasks)
    wanted = [(one, count) for one in chosen if (count := _samples(home, known, one, clock())) > 0]
    if not wanted or stopped():
        return []
    with Sensors(site=site) as sensors:
        reading = settled(sensors)
    limit_c = heat_limit(settings, reading).limit_c
    if why := not_now(reading, limit_c=limit_c, idle_load=settings.whole("agent_idle_percent") / 100):
        return [Outcome(one, note=why, wait_s=NOT_NOW_S) for one, _ in wanted]
    if settings.text("train_scope") == "none":
        why = "this board does not train (train_scope is 'none')"
        return [Outcome(one, note=why, wait_s=NEVER_S) for one, _ in wanted]
    with exclusive(home.ensure().lock("rounds"), doing="taking part in rounds"):
        return _all(home, known, settings, wanted, reading, stopped)


def _all(
    home: Home,
    known: Enrolment,
    settings: Settings,
    wanted: Sequence[tuple[str, int]],
    reading: Reading,
    stopped: Callable[[], bool],
) -> list[Outcome]:
    cloud = connect(home, known, settings, deadline=None)  # a training may take longer than any sync
    made = []
    try:
        for one, count in wanted:
            if stopped():
                break
            told = reading.temperature_c if settings.flag("telemetry_share") else None
            request = JoinRequest(count, network.kind(), told)
            board = Board(home, known, request, _trainer(home, stopped))
            made.append(take_part(board, one, RoundsOverHttp(cloud)))
    finally:
        cloud.close()
    return made


def _trainer(home: Home, stopped: Callable[[], bool]) -> Callable[[str, float, Callable[[], bool]], Done]:
    """`edgectl round train` in a process of its own: this one stays without torch, and without its memory."""

    def train(task: str, limit_s: float, unwanted: Callable[[], bool]) -> Done:
        children = Children(home.root.absolute(), lambda: stopped() or unwanted())
        return children.run(["round", "train", "--task", task, "--json"], limit_s)

    return train


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
