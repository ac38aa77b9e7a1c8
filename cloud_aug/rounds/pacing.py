"""How fast boards are, from what the service saw of their turns, and what a plan lets follow from it. The rules are
those of `edgelearn.federated.adaptive`; this measures, and asks them.

Paces are a task's: a series knows those of the series before it. What was decided with them is written down with the
round and with each invitation, so that whoever follows a killed service gives the same orders.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from cloud_aug import db, writes
from cloud_aug.rounds.plan import Plan, Series, settings_of
from edgelearn.federated.adaptive import (
    SHARE,
    SLACK,
    Pace,
    buffer_now,
    buffering_gain,
    deadline_s,
    expected,
    local_steps,
    seen,
)
from edgelearn.federated.catalogue import ALGORITHMS
from edgelearn.federated.local import steps_of
from edgewire.rounds import UpdateMeta

LATELY_S = 30 * 86400.0  # a board that took no part for so long says nothing of the others


@dataclass(frozen=True)
class Turn:
    """What a board is asked for. samples: that it told of, None: it told nothing; steps: at most, None: as many as its
    samples make; expected_s: from its start to its update, None: nobody can tell."""

    samples: int | None
    steps: int | None = None
    expected_s: float | None = None


@dataclass(frozen=True)
class Forecast:
    """What boards should take. known: by board; held: how many samples those have; moved_bytes: there and back.

    It knows nobody where the plan is fixed, and before anybody took part: then it answers as if nothing was measured.
    """

    plan: Plan
    known: Mapping[str, Pace]
    held: Mapping[str, int]
    moved_bytes: float

    def within_s(self, samples: Mapping[str, int]) -> float | None:
        """In how much time most of these boards should do all that is wanted of them, and at least a quorum."""
        if not (self.known and samples):
            return None
        share = max(SHARE, min(1.0, self.plan.quorum / len(samples)))
        return min(self.plan.deadline_s, deadline_s(self._all_s(samples), share=share, slack=1.0))

    def deadline_s(self, within_s: float | None, *, failed: bool = False) -> float:
        """Of a round, from its opening on. Beside the time that most need, each may take as long to fetch its
        invitation as it may be silent. failed: the round before; then nothing is risked."""
        if "deadline" not in self.plan.adapt or within_s is None or failed:
            return self.plan.deadline_s
        return min(self.plan.deadline_s, self.plan.silence_s + SLACK * within_s)

    def turn(self, board: str, samples: int | None, within_s: float | None) -> Turn:
        """What to ask of a board that should be done by then."""
        if not self.known or samples is None:
            return Turn(samples)
        pace, steps = self.pace(board), _wanted(self.plan, samples)
        if "steps" not in self.plan.adapt or within_s is None:
            return Turn(samples, None, pace.seconds(steps=steps, moved_bytes=self.moved_bytes))
        steps = local_steps(pace, wanted=steps, moved_bytes=self.moved_bytes, within_s=within_s)
        return Turn(samples, steps, pace.seconds(steps=steps, moved_bytes=self.moved_bytes))

    def buffers(self, *, before: bool) -> bool:
        """Whether the next round waits for nobody. before: whether the last one did so."""
        if "switch" not in self.plan.adapt:
            return ALGORITHMS[self.plan.algorithm].takes_late
        if not self.held:
            return before
        limit_s = self.deadline_s(self.within_s(self.held))
        return buffer_now(buffering_gain(self._all_s(self.held), within_s=limit_s), buffered=before)

    def _all_s(self, samples: Mapping[str, int]) -> list[float]:
        """What these boards should take for all that is wanted of them."""
        return [
            self.pace(board).seconds(steps=_wanted(self.plan, count), moved_bytes=self.moved_bytes)
            for board, count in samples.items()
        ]

    def pace(self, board: str) -> Pace:
        """What is expected of it. Raises ValueError where nobody's pace is known."""
        return expected(board, self.known)


def forecast(connection: sa.Connection, made: Series, order_bytes: int, *, now: float) -> Forecast:
    """From all boards that may take part and did lately."""
    rows = _rows(connection, made.task, since=now - LATELY_S) if made.plan.adapt else []
    return _forecast(connection, made, rows, order_bytes)


def forecast_of(connection: sa.Connection, made: Series, board: str, order_bytes: int, *, now: float) -> Forecast:
    """For one board, which is asked for by itself: the others count only while it is unknown."""
    mine = _rows(connection, made.task, board=board) if made.plan.adapt else []
    return _forecast(connection, made, mine, order_bytes) if mine else forecast(connection, made, order_bytes, now=now)


def learn(connection: sa.Connection, made: Series, asked: Any, meta: UpdateMeta, size: int, *, now: float) -> None:
    """An update of `size` bytes came. asked: the board's invitation, with `order_bytes`. The board's own clock only
    says how much of the time that passed here was training."""
    if asked.started_at is None:
        return  # it was invited before this was measured
    samples = min(meta.samples, made.plan.max_samples)
    turn = seen(
        steps=min(meta.steps, asked.steps or _wanted(made.plan, samples)),
        moved_bytes=(asked.order_bytes if asked.down_bytes is None else asked.down_bytes) + size,
        span_s=now - asked.started_at,
        trained_s=meta.train_s if isinstance(meta.train_s, float) else None,
    )
    found = _rows(connection, made.task, board=asked.board)
    pace = _pace_of(found[0]).learned(turn) if found else turn
    _keep(connection, made.task, asked.board, pace, samples=samples, now=now)


def learn_of_overdue(
    connection: sa.Connection, made: Series, at_work: Iterable[Any], order_bytes: int, *, now: float
) -> None:
    """A round is over, and these boards still give signs of life: they take at least as long as they took till now.
    at_work: their invitations."""
    late = [row for row in at_work if row.started_at is not None and row.samples is not None]
    rows = _rows(connection, made.task) if late else []
    guess = _forecast(connection, made, rows, order_bytes)
    for asked in late if rows else ():
        pace, steps = guess.pace(asked.board), asked.steps or _wanted(made.plan, asked.samples)
        times = (now - asked.started_at) / pace.seconds(steps=steps, moved_bytes=guess.moved_bytes)
        if times > 1:
            slower = pace.learned(pace.slowed(times))
            _keep(connection, made.task, asked.board, slower, samples=asked.samples, now=now)


def _forecast(connection: sa.Connection, made: Series, rows: list[Any], order_bytes: int) -> Forecast:
    known = {row.board: _pace_of(row) for row in rows}
    held = {row.board: int(row.samples) for row in rows}
    return Forecast(made.plan, known, held, order_bytes + _update_bytes(connection, made.id, order_bytes))


def _wanted(plan: Plan, samples: int) -> int:
    return steps_of(min(samples, plan.max_samples), settings_of(plan.local))


def _update_bytes(connection: sa.Connection, series: str, order_bytes: int) -> int:
    """What a board of this series sends: as much as the last one, or, before the first, what it gets."""
    column = db.updates.c
    sizes = sa.select(column.size).where(column.series == series).order_by(column.number.desc()).limit(1)
    return int(connection.execute(sizes).scalar() or order_bytes)


def _rows(connection: sa.Connection, task: str, *, board: str | None = None, since: float = 0.0) -> list[Any]:
    """Paces of boards that still may take part, in order."""
    column, boards, grants = db.paces.c, db.boards.c, db.grants.c
    granted = sa.and_(grants.task == column.task, grants.board == column.board)
    query = sa.select(db.paces).join_from(db.paces, db.boards).join(db.grants, granted)
    query = query.where(column.task == task, column.at >= since, boards.revoked_at.is_(None)).order_by(column.board)
    return list(connection.execute(query if board is None else query.where(column.board == board)))


def _pace_of(row: Any) -> Pace:
    return Pace(row.steps_per_s, row.bytes_per_s)


def _keep(connection: sa.Connection, task: str, board: str, pace: Pace, *, samples: int, now: float) -> None:
    row = {"task": task, "board": board, "samples": samples, "at": now}
    writes.upsert(connection, db.paces, {**row, "steps_per_s": pace.steps_per_s, "bytes_per_s": pace.bytes_per_s})
