"""Moves running series on: draws cohorts, closes rounds, declares them failed, begins the next. No round hangs: every
state but the counting itself has a deadline.

Any process of any service may do it; a lock of the database lets one at a time, and whoever comes first does. What was
decided is in the database before anything is counted, so that a process that is killed is followed by another one that
counts the same updates in the same order: the same bits.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Literal

import sqlalchemy as sa

from cloud_aug.cloud import Cloud
from cloud_aug.database import first_line
from cloud_aug.rounds import attendance, counting, orders, pacing
from cloud_aug.rounds import series as all_series
from cloud_aug.rounds.plan import Series
from edgelearn.federated.catalogue import ALGORITHMS
from edgewire.errors import Busy, CorruptFile, EdgeError, InvalidMessage, NotFound

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
        pause_s = self._tick_s
        while not self._ended:
            self._woken.clear()
            pause_s = self._tick_s if self._move_all() else min(2 * pause_s, LONGEST_S)
            self._woken.wait(pause_s)

    def _move_all(self) -> bool:
        """Whether it could be done. A thread that ended would leave rounds open for ever."""
        try:
            advance_all(self._cloud, clock=self._clock)
        except sa.exc.DBAPIError as error:
            _log.warning("rounds wait for the database: %s", first_line(error))
        except Exception:
            _log.exception("rounds could not be moved on")
        else:
            return True
        return False


def advance_all(cloud: Cloud, *, clock: Callable[[], float]) -> None:
    """Move on every series that runs. What is wrong with one does not keep the others."""
    with cloud.database.reading() as connection:
        found = all_series.running(connection)
    for made in found:
        try:
            advance(cloud, made.id, clock=clock)
        except Busy:
            continue  # another process is at it
        except (EdgeError, OSError) as error:  # a full disk, a store that is away: tried again
            _log.warning("series %s waits: %s", made.id, error)
        except sa.exc.DBAPIError as error:
            _log.warning("series %s waits: %s", made.id, first_line(error))
        except Exception:
            _log.exception("series %s could not be moved on", made.id)


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
            _fail(connection, made, last, reason, now=now)
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
    everybody = len(all_series.entitled(connection, made.task))
    if by_coin(made) and everybody:
        return "draw", ""  # whoever is drawn may come until the round's deadline
    there = len(attendance.present(connection, made, now=now))
    if there >= plan.quorum and (over or there >= everybody):
        return "draw", ""
    return ("fail", f"{there} boards came, the quorum is {plan.quorum}") if over else ("wait", "")


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
    boards = attendance.draw(connection, made, last.number, now=now)
    samples = attendance.told_samples(connection, made, boards)
    forecast = pacing.forecast(connection, made, orders.of_row(last).likely_bytes, now=now)
    within_s = forecast.within_s(samples)
    turns = {board: forecast.turn(board, samples.get(board), within_s) for board in boards}
    attendance.invite(connection, made, last.number, turns, now=now)
    failed = counting.state_of(connection, made.id, last.number - 1) == "failed"
    until = now + forecast.deadline_s(within_s, failed=failed)
    counting.set_round(connection, made.id, last.number, state="open", deadline_at=until, within_s=within_s)


def _freeze(connection: sa.Connection, made: Series, last: sa.Row[Any]) -> None:
    """From here on it is certain what counts in this round."""
    counting.freeze(connection, made, last.number)
    counting.set_round(connection, made.id, last.number, state="closing")


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
    """Outside of any transaction: it may take long."""
    try:
        counted = counting.count(cloud, made, number)
    except (CorruptFile, NotFound, InvalidMessage) as error:  # no time heals that: a person has to restore it
        with cloud.database.writing() as connection:
            reason = f"round {number} cannot be counted: {error.message}"
            all_series.set_state(connection, made.id, "failed", reason, now=now)
        return
    with cloud.database.writing() as connection:
        last = all_series.last_round(connection, made.id)
        if last is None or last.number != number or last.state != "closing":
            return  # it was restored from a backup meanwhile
        counting.mark_damaged(connection, counted.damaged)
        if counted.order is None:
            _fail(connection, made, last, counted.problem, now=now)
            return
        counting.set_round(connection, made.id, number, state="closed", result=counted.server, closed_at=now)
        _learn_of_overdue(connection, made, last, now=now)
        old = counting.forget_old(connection, made, number)
        if counting.closed(connection, made.id) >= made.plan.rounds:
            all_series.set_state(connection, made.id, "finished", "", now=now)
            all_series.drop_waiting(connection, made.id, "series over")
        else:
            all_series.begin(connection, made, last, counted.server, counted.order, now=now)
    for digest in old:
        cloud.blobs.remove(digest)
