"""Which rows of tables boards touch, where they are sent those rows and no others (FedSubAvg).

A board tells before it is invited, and again when its samples change. The service so learns which items it has samples
of. What is known when a round's updates are frozen is what they are corrected by: whoever counts again knows the same.
"""

from __future__ import annotations

from collections.abc import Iterable
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
from edgewire.errors import InvalidMessage, NotFound, Refused, RetryLater
from edgewire.files import digest
from edgewire.rounds import ROWS_LIMIT_BYTES, RowsReply, unpack_rows

AGAIN_S = 60.0  # from one time that a board tells other rows to the next


def tell(cloud: Cloud, board: str, task_id: str, series: str, body: bytes, *, now: float) -> RowsReply:
    """A board tells its rows. Told again, nothing changes; other rows replace them from the next round that is counted
    on. Raises NotFound, Refused where nobody asks for them, RetryLater where it told others just now, InvalidMessage,
    TooLarge."""
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
    name = cloud.blobs.put(body).digest  # on disk; a row comes next, and only then an answer
    with cloud.database.writing(board) as connection:
        if knows(connection, made, board, name):
            return RowsReply(False)
        column = db.touched.c
        mine = sa.and_(column.series == made.id, column.board == board)
        last = connection.execute(sa.select(sa.func.max(column.at)).where(mine)).scalar()
        if last is not None and now - last < AGAIN_S:  # each stays on disk for a while
            raise RetryLater("this board has told its rows a moment ago", retry_after_s=AGAIN_S)
        connection.execute(db.touched.delete().where(mine, column.number.is_(None)))  # never counted with
        row = {"series": made.id, "board": board, "blob": name, "samples": meta.samples, "at": now}
        connection.execute(db.touched.insert().values(row))
    return RowsReply(True)


def knows(connection: sa.Connection, made: Series, board: str, name: str) -> bool:
    """Whether this board told the rows with this digest."""
    column = db.touched.c
    query = sa.select(column.at).where(column.series == made.id, column.board == board, column.blob == name)
    return connection.execute(query).first() is not None


def freeze(connection: sa.Connection, made: Series, number: int) -> None:
    """Let what was told until now be what the round `number` is corrected by."""
    column = db.touched.c
    new = db.touched.update().where(column.series == made.id, column.number.is_(None))
    connection.execute(new.values(number=number))


def involved(
    cloud: Cloud, connection: sa.Connection, made: Series, number: int, frozen: Iterable[Any]
) -> tuple[Arrays, float]:
    """By table, the samples of all boards that touch each row; and those of all boards together (see `FedSubAvg`): of
    every board that had told when the round was frozen, by what it told last; of those whose updates are `frozen`, by
    what they were sent."""
    column = db.touched.c
    query = sa.select(db.touched).where(column.series == made.id, column.number <= number)
    last = {row.board: row for row in connection.execute(query.order_by(column.number, column.at))}
    by_board = {board: (row.blob, row.samples) for board, row in last.items()}
    by_board |= {row.board: (row.rows_blob, row.samples) for row in frozen}
    told = [(load(cloud, name), samples) for _, (name, samples) in sorted(by_board.items())]
    counted = {
        name: involvement(((rows[name], samples) for rows, samples in told), rows=count)
        for name, count in made.tables.items()
    }
    return counted, float(sum(samples for _, samples in told))


def load(cloud: Cloud, name: str) -> Arrays:
    """Rows that were told, by table: int64 and ascending. Raises CorruptFile, NotFound."""
    return {table: ids.astype(np.int64) for table, ids in _read(cloud, name).items()}


@lru_cache(maxsize=64)
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
