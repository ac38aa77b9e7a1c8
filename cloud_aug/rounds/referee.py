"""Moves running series on: draws cohorts, closes rounds, declares them failed, begins the next. No round hangs: every
state but the counting itself has a deadline.

Any process of any service may do it; a lock of the database lets one at a time, and whoever comes first does. What was
decided is in the database before anything is counted, so that a process that is killed is followed by another one that
counts the same updates in the same order: the same bits.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import sqlalchemy as sa

from cloud_aug import tasks
from cloud_aug.cloud import Cloud
from cloud_aug.database import first_line
from cloud_aug.rounds import attendance, counting, orders, pacing
from cloud_aug.rounds import series as all_series
from cloud_aug.rounds.plan import Series
from edgelearn.federated.catalogue import ALGORITHMS
from edgewire.errors import Busy, CorruptFile, EdgeError, InvalidMessage, NotFound, Refused

_log = logging.getLogger(__name__)

TICK_S, LONGEST_S = 1.0, 60.0  # from one look to the next; while looking fails

Move = Literal["wait", "draw", "count", "fail"]


class Referee:
    """A thread that moves on whatever runs, now and then, and soon after `wake`."""

    def __init__(self, cloud: Cloud, clock: Callable[[], float], *, tick_s: float = TICK_S) -> None:
        self._cloud, self._clock, self._tick_s = cloud, clock, tick_s
        self._woken, self._ended = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="referee", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Something came that may end a round."""
        self._woken.set()

    def close(self) -> None:
        """Ends after what is being counted; that may take seconds, and may be cut off."""
        self._ended = True
        self._woken.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        pause_s, stuck = self._tick_s, Stuck(self._tick_s)
        while not self._ended:
            self._woken.clear()
            pause_s = self._tick_s if self._move_all(stuck) else min(2 * pause_s, LONGEST_S)
            self._woken.wait(pause_s)

    def _move_all(self, stuck: Stuck) -> bool:
        """Whether it could be done. A thread that ended would leave rounds open for ever."""
        try:
            advance_all(self._cloud, clock=self._clock, stuck=stuck)
        except sa.exc.DBAPIError as error:
            _log.warning("rounds wait for the database: %s", first_line(error))
        except Exception:
            _log.exception("rounds could not be moved on")
        else:
            return True
        return False


@dataclass
class Stuck:
    """Series that could not be moved on: each is tried again after a pause that doubles. first_s: the first one; clock:
    one that nobody sets."""

    first_s: float = TICK_S
    clock: Callable[[], float] = time.monotonic
    _pauses: dict[str, tuple[float, float]] = field(default_factory=dict)  # (until when, how long)

    def rests(self, series: str) -> bool:
        return series in self._pauses and self.clock() < self._pauses[series][0]

    def again(self, series: str) -> None:
        pause_s = min(2 * self._pauses[series][1], LONGEST_S) if series in self._pauses else self.first_s
        self._pauses[series] = (self.clock() + pause_s, pause_s)

    def goes_on(self, series: str) -> bool:
        """Whether it did not before."""
        return self._pauses.pop(series, None) is not None


def advance_all(cloud: Cloud, *, clock: Callable[[], float], stuck: Stuck) -> None:
    """Move on every series that runs. What is wrong with one does not keep the others, and stands in its round."""
    with cloud.database.reading() as connection:
        found = all_series.running(connection)
    for made in found:
        if stuck.rests(made.id):
            continue
        try:
            advance(cloud, made.id, clock=clock)
        except Busy:
            continue  # another process is at it
        except (EdgeError, OSError) as error:  # a full disk, a store that is away: tried again
            why = str(error)
            _log.warning("series %s waits: %s", made.id, why)
        except sa.exc.DBAPIError as error:
            why = first_line(error)
            _log.warning("series %s waits: %s", made.id, why)
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            _log.exception("series %s could not be moved on", made.id)
        else:
            if stuck.goes_on(made.id):
                _note(cloud, made, "")
            continue
        stuck.again(made.id)
        _note(cloud, made, f"waits: {why}")


def _note(cloud: Cloud, made: Series, reason: str) -> None:
    """In the round that goes on, where people look; unless the database itself is away."""
    with contextlib.suppress(sa.exc.DBAPIError, EdgeError, OSError), cloud.database.writing() as connection:
        last = all_series.last_round(connection, made.id)
        if last is not None and last.state in all_series.UNSETTLED and last.reason != reason:
            counting.set_round(connection, made.id, last.number, reason=reason)


def advance(cloud: Cloud, series: str, *, clock: Callable[[], float]) -> bool:
    """Move a series on as far as it goes now; whether anything changed. Raises Busy while another process does so."""
    if not _may_move(cloud, series, now=clock()):
        return False
    changed = False
    with cloud.locked(f"rounds-{series}", doing=f"moving series {series} on"):
        while _step(cloud, series, now=clock()):
            changed = True
    return changed


def _may_move(cloud: Cloud, series: str, *, now: float) -> bool:
    """A look without the lock: most of the time there is nothing to do."""
    with cloud.database.reading() as connection:
        row, last = all_series.find(connection, series), all_series.last_round(connection, series)
        if row.state != "running" or last is None:
            return False
        return _move(connection, all_series.read(row), last, now)[0] != "wait"


def _step(cloud: Cloud, series: str, *, now: float) -> bool:
    """One move; whether there was one."""
    with cloud.database.writing() as connection:
        row = all_series.find(connection, series)
        last = all_series.last_round(connection, series)
        if row.state != "running" or last is None:
            return False
        made = all_series.read(row)
        move, reason = _move(connection, made, last, now)
        if move == "draw":
            _open(connection, made, last, now=now)
        elif move == "fail":
            _fail(connection, made, last, _recalled(connection, made) or reason, now=now)
        elif move == "count" and last.state != "closing":
            _freeze(connection, made, last)
    if move == "count":
        _count(cloud, made, last.number, now=now)
    return move != "wait"


def _move(connection: sa.Connection, made: Series, last: sa.Row[Any], now: float) -> tuple[Move, str]:
    """What is due in this round, and, if it has failed, why."""
    if last.state == "closing":
        return "count", ""
    if last.state == "gathering":
        return _of_gathering(connection, made, last, now)
    if last.state == "open":
        return _of_open(connection, made, last, now)
    return "wait", ""


def _of_gathering(connection: sa.Connection, made: Series, last: sa.Row[Any], now: float) -> tuple[Move, str]:
    plan, over = made.plan, now >= last.deadline_at
    if _recalled(connection, made):  # nobody would get an invitation
        return ("fail", "") if over else ("wait", "")
    everybody = len(all_series.entitled(connection, made.task))
    if by_coin(made) and everybody:
        return "draw", ""  # whoever is drawn may come until the round's deadline
    there = len(attendance.present(connection, made, now=now))
    if there >= plan.quorum and (over or there >= everybody):
        return "draw", ""
    return ("fail", f"{there} boards came, the quorum is {plan.quorum}") if over else ("wait", "")


def _recalled(connection: sa.Connection, made: Series) -> str:
    """How the task's policy no longer allows what this series asks; '' if it does."""
    try:
        all_series.check_allowed(tasks.get(connection, made.task), rows=bool(made.tables))
    except Refused as refused:
        return f"{refused.message} any more"
    return ""


def _of_open(connection: sa.Connection, made: Series, last: sa.Row[Any], now: float) -> tuple[Move, str]:
    plan, over = made.plan, now >= last.deadline_at
    came, quorum = len(counting.pending(connection, made, last.number)), quorum_of(made)
    if last.buffered:
        if came >= (quorum if over else enough_of(made)):
            return "count", ""
        return ("fail", f"{came} updates came in time, {quorum} are needed") if over else ("wait", "")
    asked = attendance.invited_rows(connection, made.id, last.number)
    answered = {row.board for row in counting.of_round(connection, made.id, last.number)}
    waiting = [row for row in asked if row.board not in answered and not row.gave_up]
    alive = [row for row in waiting if attendance.alive(row, plan, now=now)]
    if came >= quorum and (over or not alive):
        return "count", ""
    if over or not waiting:
        return "fail", f"{came} of {len(asked)} invited boards sent an update that counts, {quorum} are needed"
    return "wait", ""


def by_coin(made: Series) -> bool:
    return ALGORITHMS[made.plan.algorithm].invites == "coin"


def quorum_of(made: Series) -> int:
    """Updates without which a round fails. Who draws by coin takes what comes: noise is added also where nobody did."""
    return 0 if by_coin(made) else made.plan.quorum


def enough_of(made: Series) -> int:
    """Updates that close a round in which nobody is waited for: FedBuff's K. A series that has changed over to it takes
    half of what a cohort may be."""
    plan = made.plan
    if ALGORITHMS[plan.algorithm].takes_late:
        return plan.quorum
    return max(plan.quorum, min(plan.cohort, made.boards) // 2)


def _open(connection: sa.Connection, made: Series, last: sa.Row[Any], *, now: float) -> None:
    boards = attendance.draw(connection, made, last, now=now)
    samples = attendance.told_samples(connection, made, boards)
    forecast = pacing.forecast(connection, made, orders.of_row(last).likely_bytes, now=now)
    within_s = forecast.within_s(samples)
    turns = {board: forecast.turn(board, samples.get(board), within_s) for board in boards}
    attendance.invite(connection, made, last.number, turns, now=now)
    failed = counting.state_of(connection, made.id, last.number - 1) == "failed"
    until = now + forecast.deadline_s(within_s, failed=failed)
    opened = {"state": "open", "reason": "", "deadline_at": until, "within_s": within_s}
    counting.set_round(connection, made.id, last.number, **opened)


def _freeze(connection: sa.Connection, made: Series, last: sa.Row[Any]) -> None:
    """From here on it is certain what counts in this round."""
    counting.freeze(connection, made, last.number)
    counting.set_round(connection, made.id, last.number, state="closing", reason="")


def _fail(connection: sa.Connection, made: Series, last: sa.Row[Any], reason: str, *, now: float) -> None:
    """The weights stay; the next round begins with them, unless too many have failed in a row."""
    _log.warning("series %s: round %d failed: %s", made.id, last.number, reason)
    counting.set_round(connection, made.id, last.number, state="failed", reason=reason, closed_at=now)
    _learn_of_overdue(connection, made, last, now=now)
    counting.drop(connection, made, last.number, "round failed")
    failed = counting.failed_in_a_row(connection, made.id)
    if failed >= made.plan.failures:
        all_series.set_state(connection, made.id, "failed", f"{failed} rounds in a row failed: {reason}", now=now)
    else:
        all_series.begin(connection, made, last, last.server, orders.of_row(last), now=now)


def _learn_of_overdue(connection: sa.Connection, made: Series, last: sa.Row[Any], *, now: float) -> None:
    at_work = attendance.at_work(connection, made, last, now=now)
    pacing.learn_of_overdue(connection, made, at_work, orders.of_row(last).likely_bytes, now=now)


def _count(cloud: Cloud, made: Series, number: int, *, now: float) -> None:
    """Outside of any transaction: it may take long. A series that was stopped meanwhile counts it again if it goes on:
    the same updates, the same bits."""
    try:
        counted = counting.count(cloud, made, number)
    except (CorruptFile, NotFound, InvalidMessage) as error:  # no time heals that: a person has to restore it
        with cloud.database.writing() as connection:
            reason = f"round {number} cannot be counted: {error.message}"
            if _counts_yet(connection, made, number) is not None:
                all_series.set_state(connection, made.id, "failed", reason, now=now)
        return
    with cloud.database.writing() as connection:
        last = _counts_yet(connection, made, number)
        if last is None:
            return
        counting.mark_damaged(connection, counted.damaged)
        if counted.order is None:
            _fail(connection, made, last, counted.problem, now=now)
            return
        counting.keep_worth(connection, made.id, number, counted.worth)
        _learn_of_overdue(connection, made, last, now=now)
        closed = {"state": "closed", "reason": "", "result": counted.server, "closed_at": now}
        counting.set_round(connection, made.id, number, **closed)
        old = counting.forget_old(connection, made, number)
        if counting.closed(connection, made.id) >= made.plan.rounds:
            all_series.set_state(connection, made.id, "finished", "", now=now)
            all_series.drop_waiting(connection, made.id, "series over")
        else:
            all_series.begin(connection, made, last, counted.server, counted.order, now=now)
    for digest in old:
        cloud.blobs.remove(digest)


def _counts_yet(connection: sa.Connection, made: Series, number: int) -> sa.Row[Any] | None:
    """The round, if it still is to be closed: neither stopped nor restored from a backup meanwhile."""
    last = all_series.last_round(connection, made.id)
    if all_series.find(connection, made.id).state != "running" or last is None or last.number != number:
        return None
    return last if last.state == "closing" else None
