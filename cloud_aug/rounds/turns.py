"""How each board of one round did, for people. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from cloud_aug import db
from cloud_aug.cloud import Cloud
from cloud_aug.rounds import attendance, counting, results
from cloud_aug.rounds import series as all_series
from cloud_aug.rounds.plan import Series
from edgewire.errors import NotFound


@dataclass(frozen=True)
class Turn:
    """fate: 'counted'; 'waits' to be; why it was dropped; or, without an update that was taken, 'at work', 'gave up'
    (also of one that was refused or late) or 'silent'. samples, score, energy_j: as the board told; steps: that it was
    limited to, None: to none; worth: how much better the round's model is for it (leave-one-out), None: not known."""

    board: str
    name: str
    fate: str
    samples: int | None
    steps: int | None
    score: float | None
    worth: float | None
    energy_j: float | None
    bytes: int


def of_round(cloud: Cloud, series: str, which: str, *, now: float) -> tuple[int, list[Turn]]:
    """A round's number, and its boards by name. which: as for `results.fetch`. Raises NotFound, NotReady,
    UsageError."""
    asked, came, boards = db.invitations.c, db.updates.c, db.boards.c
    answer = sa.and_(came.series == asked.series, came.number == asked.number, came.board == asked.board)
    told = (came.digest, came.counted_in, came.dropped, came.samples.label("told"), came.size)
    query = sa.select(db.invitations, boards.name, *told, came.score, came.worth, came.energy_j)
    with cloud.database.reading() as connection:
        made = all_series.read(all_series.find(connection, series))
        number = results.number_of(connection, made, which)
        if counting.state_of(connection, made.id, number) is None:
            raise NotFound(f"series {series} has no round {number}", hint=f"cloud-aug round status {series}")
        mine = query.where(asked.series == made.id, asked.number == number)
        rows = connection.execute(
            mine.join_from(db.invitations, db.boards).outerjoin(db.updates, answer).order_by(boards.name, asked.board)
        ).all()
        over = not attendance.wanted(connection, made, number)
    return number, [_turn(row, made, over=over, now=now) for row in rows]


def _turn(row: Any, made: Series, *, over: bool, now: float) -> Turn:
    return Turn(
        board=row.board,
        name=row.name,
        fate=_fate(row, made, over=over, now=now),
        samples=row.told,
        steps=row.steps,
        score=row.score,
        worth=row.worth,
        energy_j=row.energy_j,
        bytes=row.size or 0,
    )


def _fate(row: Any, made: Series, *, over: bool, now: float) -> str:
    if row.digest is not None:
        return row.dropped or ("waits" if row.counted_in is None else "counted")
    if row.gave_up:
        return "gave up"
    return "at work" if not over and attendance.alive(row, made.plan, now=now) else "silent"
