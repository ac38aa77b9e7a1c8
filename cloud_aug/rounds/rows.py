"""Which rows of tables boards touch, where they are sent those rows and no others (FedSubAvg).

A board tells before it is invited, and again when its samples change. The service so learns which items it has samples
of.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import sqlalchemy as sa

from cloud_aug import db, tasks
from cloud_aug.cloud import Cloud
from cloud_aug.rounds import series as all_series
from cloud_aug.rounds.plan import Series, submodels
from edgelearn.federated.arrays import Arrays
from edgelearn.federated.fedsubavg import involvement
from edgewire.errors import CorruptFile, InvalidMessage, NotFound, RateLimited, Refused
from edgewire.files import digest
from edgewire.rounds import ROWS_LIMIT_BYTES, RowsReply, pack_rows, unpack_rows

AGAIN_S = 60.0  # from one time that a board tells other rows to the next


def tell(cloud: Cloud, board: str, task_id: str, series: str, body: bytes, *, now: float) -> RowsReply:
    """A board tells its rows. Told again, nothing changes; told others, its next invitation is for those. Raises
    NotFound, Refused where nobody asks for them, RateLimited where it told others just now, InvalidMessage, TooLarge.
    """
    with cloud.database.reading() as connection:
        made = all_series.read(all_series.find(connection, series))
    if made.task != task_id:
        raise NotFound(f"there is no series '{series}' of this task")
    if not submodels(made.plan) or tasks.load(cloud, task_id).privacy.rows is not True:
        raise Refused("nobody asks for rows here", hint="join again")
    told, meta = unpack_rows(body, limit_bytes=ROWS_LIMIT_BYTES)
    if meta.samples > made.plan.max_samples:
        raise InvalidMessage(f"{meta.samples} samples are more than one board may have")
    _check(told, made.tables)
    if pack_rows(told, meta) != body:
        raise InvalidMessage("rows are packed with something beside them")
    name = digest(body)
    with cloud.database.reading() as connection:
        again = _told_already(connection, made, board, name, now=now)
    cloud.blobs.put(body)  # on disk, also again: it may be damaged by now; a row comes next, and only then an answer
    if again:
        return RowsReply(False)
    with cloud.database.writing(board) as connection:
        if _told_already(connection, made, board, name, now=now):
            return RowsReply(False)
        connection.execute(db.touched.insert().values(series=made.id, board=board, blob=name, at=now))
    return RowsReply(True)


def _told_already(connection: sa.Connection, made: Series, board: str, name: str, *, now: float) -> bool:
    """Raises RateLimited for other rows than a moment ago: each stay on disk."""
    if knows(connection, made, board, name):
        return True
    column = db.touched.c
    last = sa.select(sa.func.max(column.at)).where(column.series == made.id, column.board == board)
    at = connection.execute(last).scalar()
    if at is not None and now - at < AGAIN_S:
        raise RateLimited("this board has told its rows a moment ago", retry_after_s=AGAIN_S)
    return False


def knows(connection: sa.Connection, made: Series, board: str, name: str) -> bool:
    """Whether this board told the rows with this digest."""
    column = db.touched.c
    query = sa.select(column.at).where(column.series == made.id, column.board == board, column.blob == name)
    return connection.execute(query).first() is not None


def forget(connection: sa.Connection, made: Series, board: str, name: str) -> None:
    """That this board told these rows: it will be asked again."""
    column = db.touched.c
    mine = db.touched.delete().where(column.series == made.id, column.board == board, column.blob == name)
    connection.execute(mine)


def involved(cloud: Cloud, connection: sa.Connection, made: Series, number: int) -> tuple[Arrays, float]:
    """By table, the samples of all boards that touch each row; and those of all boards together (see `FedSubAvg`): of
    every board of which an update counts in this round or counted in one before, by the last of them. What is frozen
    never changes, so whoever counts again finds the same. Raises CorruptFile that names the board whose rows are
    damaged."""
    column, asked = db.updates.c, db.invitations.c
    mine = sa.and_(asked.series == column.series, asked.number == column.number, asked.board == column.board)
    query = sa.select(column.board, column.samples, asked.rows_blob).join_from(db.updates, db.invitations, mine)
    counted = query.where(column.series == made.id, column.counted_in <= number, column.dropped == "")
    last = {row.board: row for row in connection.execute(counted.order_by(column.counted_in, column.board))}
    rows = [row for _, row in sorted(last.items())]
    sums = {
        name: involvement(((_of_board(cloud, row)[name], row.samples) for row in rows), rows=count)
        for name, count in made.tables.items()
    }
    return sums, float(sum(row.samples for row in rows))


def _of_board(cloud: Cloud, row: Any) -> Arrays:
    try:
        return load(cloud, row.rows_blob)
    except (CorruptFile, NotFound, InvalidMessage) as error:
        why = f"the rows that board {row.board} told are gone or damaged: {error.message}"
        raise CorruptFile(why, hint="restore them from a backup") from None


def load(cloud: Cloud, name: str) -> Arrays:
    """Rows that were told, by table: int64 and ascending. Raises CorruptFile, NotFound."""
    return {table: ids.astype(np.int64) for table, ids in _read(cloud, name).items()}


@lru_cache(maxsize=8)
def _read(cloud: Cloud, name: str) -> Arrays:
    raw = cloud.blobs.read(name)
    if digest(raw) != name:
        raise InvalidMessage("rows that a board told are damaged")
    return unpack_rows(raw, limit_bytes=ROWS_LIMIT_BYTES)[0]


def _check(told: Arrays, tables: dict[str, int]) -> None:
    """Raises InvalidMessage unless these are ascending rows of these tables."""
    if told.keys() != tables.keys():
        raise InvalidMessage(f"rows of {sorted(told)[:3]}, the tables are {sorted(tables)[:3]}")
    for name, ids in told.items():
        if len(ids) == 0 or ids[-1] >= tables[name] or bool((ids[1:] <= ids[:-1]).any()):
            raise InvalidMessage(f"the rows of '{name}' must ascend and stay below {tables[name]}")
