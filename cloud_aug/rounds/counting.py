"""From the updates of a round to its result: one update in memory at a time, always in the same order."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import sqlalchemy as sa

from cloud_aug import db
from cloud_aug.cloud import Cloud
from cloud_aug.rounds import orders, receiving
from cloud_aug.rounds import rows as told_rows
from cloud_aug.rounds import series as all_series
from cloud_aug.rounds.judging import classroom, judge
from cloud_aug.rounds.orders import Ordered
from cloud_aug.rounds.plan import Series, algorithm_of
from edgelearn.federated.algorithm import Algorithm, Server, Update
from edgelearn.federated.turn import close
from edgelearn.federated.updates import UpdateRefused
from edgewire.errors import CorruptFile, EdgeError, InvalidMessage, NotFound, TooLarge

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Counted:
    """server: digest of weights and state after the round; order: of the next one; None: nothing counted. problem: why;
    damaged: (board, upload id) of updates that could not be read; worth: what each board was worth to the round, where
    the algorithm asks."""

    server: str
    order: Ordered | None
    problem: str
    damaged: tuple[tuple[str, str], ...]
    worth: Mapping[str, float]


def count(cloud: Cloud, made: Series, number: int) -> Counted:
    """Count what is frozen in a round. Raises OSError (full disk), RetryLater (a store that is away); CorruptFile,
    NotFound or InvalidMessage if the round's own weights are damaged."""
    with cloud.database.reading() as connection:
        row = connection.execute(_round_query(made.id, number)).one()
        rows = _frozen(connection, made.id, number)
        steps = _steps_since(connection, made.id, rows)
        involved, total = told_rows.involved(cloud, connection, made, number) if made.tables else ({}, 0.0)
    damaged: list[tuple[str, str]] = []
    worth: dict[str, float] = {}
    value = judge(cloud, made)
    algorithm = algorithm_of(
        made,
        value=value,
        rng=lambda _: _generator(row.entropy),
        buffered=row.buffered,
        involved=involved,
        total_samples=total,
        judged=worth.update,
        classroom=classroom(cloud, made),
    )
    before = all_series.load_server(cloud, row.server, number - 1)
    server, problem = _closed(algorithm, before, _updates(cloud, made, rows, steps, number, damaged))
    if not problem and not _finite(server):
        problem = "the weights would not have been finite numbers"
    if problem:
        return Counted(row.server, None, problem, tuple(damaged), {})
    kept, order = all_series.keep_server(cloud, made, server), orders.keep(cloud, made, server, orders.of_row(row))
    return Counted(kept.digest, order, "", tuple(damaged), worth)


def _closed(algorithm: Algorithm, server: Server, updates: Iterable[Update]) -> tuple[Server, str]:
    """As `close`; an algorithm that cannot go on must not keep the series."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # whether the result is finite is asked afterwards
            return close(algorithm, server, updates)
    except (EdgeError, OSError):  # it is not the algorithm that failed
        raise
    except Exception as error:
        _log.exception("a round could not be counted")
        return server, f"the algorithm failed: {type(error).__name__}: {error}"


def _updates(
    cloud: Cloud, made: Series, rows: list[Any], steps: Mapping[int, int], number: int, damaged: list[tuple[str, str]]
) -> Iterator[Update]:
    """One after the other, in the order of rounds and boards, however they came in. steps: see _steps_since."""
    for row in rows:
        receiving.order_of(cloud, made, row)  # if that is damaged, no update is to blame
        try:
            update = receiving.read(cloud, made, row)
        except (CorruptFile, NotFound, InvalidMessage, TooLarge, UpdateRefused) as error:
            _log.error("series %s: the update of %s is damaged and left out: %s", made.id, row.board, error)
            damaged.append((row.board, row.upload_id))
        else:
            yield replace(update, round=number - 1 - steps[row.number])  # a round that failed made nothing older


def _finite(server: Server) -> bool:
    return all(bool(np.isfinite(array).all()) for array in (*server.weights.values(), *server.state.values()))


def _generator(entropy: bytes) -> np.random.Generator:
    """Of the server's noise in one round: nobody can guess it, and a round that is counted again has the same."""
    return np.random.default_rng(int.from_bytes(bytes(entropy), "big"))


# What the tables say


def pending(connection: sa.Connection, made: Series, number: int) -> list[Any]:
    """Updates that would count if round `number` closed now."""
    column = db.updates.c
    query = _with_boards().where(column.series == made.id, column.dropped == "", column.counted_in.is_(None))
    if _buffered(connection, made.id, number):
        query = query.where(column.number >= all_series.oldest(connection, made.id, made.plan.staleness))
    else:
        query = query.where(column.number == number)
    return list(connection.execute(query.where(db.boards.c.revoked_at.is_(None))))


def of_round(connection: sa.Connection, series: str, number: int) -> list[Any]:
    """Updates that started from this round's weights, whether they count or not."""
    column = db.updates.c
    return list(connection.execute(sa.select(db.updates).where(column.series == series, column.number == number)))


def freeze(connection: sa.Connection, made: Series, number: int) -> None:
    """Let what is pending count in this round; of a board that was revoked nothing does."""
    column = db.updates.c
    waiting = db.updates.update().where(column.series == made.id, column.dropped == "", column.counted_in.is_(None))
    for row in pending(connection, made, number):
        mine = waiting.where(column.board == row.board, column.upload_id == row.upload_id)
        connection.execute(mine.values(counted_in=number))
    gone = sa.select(db.boards.c.id).where(db.boards.c.revoked_at.is_not(None))
    connection.execute(waiting.where(column.board.in_(gone)).values(dropped="revoked"))
    if _buffered(connection, made.id, number):
        too_old = waiting.where(column.number < all_series.oldest(connection, made.id, made.plan.staleness))
        connection.execute(too_old.values(dropped="too late"))


def drop(connection: sa.Connection, made: Series, number: int, why: str) -> None:
    """Updates of a round that failed never count; those that wait where nobody is waited for do so for the next."""
    column = db.updates.c
    frozen = column.counted_in == number
    mine = frozen if _buffered(connection, made.id, number) else sa.or_(frozen, column.number == number)
    these = db.updates.update().where(column.series == made.id, mine, column.dropped == "")
    connection.execute(these.values(dropped=why, counted_in=None))


def keep_worth(connection: sa.Connection, series: str, number: int, worth: Mapping[str, float]) -> None:
    column = db.updates.c
    for board, value in worth.items():
        mine = db.updates.update().where(column.series == series, column.counted_in == number, column.board == board)
        connection.execute(mine.values(worth=value))


def mark_damaged(connection: sa.Connection, damaged: Iterable[tuple[str, str]]) -> None:
    column = db.updates.c
    for board, upload_id in damaged:
        mine = db.updates.update().where(column.board == board, column.upload_id == upload_id)
        connection.execute(mine.values(dropped="damaged", counted_in=None))


def forget_old(connection: sa.Connection, made: Series, number: int) -> list[str]:
    """Digests of updates of earlier rounds that need not be kept any more; their rows stay."""
    column = db.updates.c
    settled = sa.or_(column.counted_in.is_not(None), column.dropped != "")
    old = sa.and_(column.series == made.id, column.number <= number - made.plan.kept_updates, column.kept, settled)
    digests = list(connection.execute(sa.select(column.digest).where(old)).scalars())
    connection.execute(db.updates.update().where(old).values(kept=False))
    return digests


def set_round(connection: sa.Connection, series: str, number: int, **values: Any) -> None:
    this = db.rounds.update().where(db.rounds.c.series == series, db.rounds.c.number == number)
    connection.execute(this.values(**values))


def state_of(connection: sa.Connection, series: str, number: int) -> str | None:
    """None for a round that there is not."""
    column = db.rounds.c
    query = sa.select(column.state).where(column.series == series, column.number == number)
    return connection.execute(query).scalar()


def failed_in_a_row(connection: sa.Connection, series: str) -> int:
    """Of the last rounds, since the series was started or resumed."""
    column, row = db.rounds.c, all_series.find(connection, series)
    since = sa.select(column.state).where(column.series == series, column.begun_at >= row.changed_at)
    query = since.order_by(column.number.desc())
    count = 0
    for state in connection.execute(query).scalars():
        if state != "failed":
            break
        count += 1
    return count


def closed(connection: sa.Connection, series: str) -> int:
    query = sa.select(sa.func.count()).select_from(db.rounds)
    mine = query.where(db.rounds.c.series == series, db.rounds.c.state == "closed")
    return int(connection.execute(mine).scalar_one())


def _frozen(connection: sa.Connection, series: str, number: int) -> list[Any]:
    """With the digest of the order that each started from."""
    column, query = db.updates.c, receiving.with_orders()
    frozen = query.where(column.series == series, column.counted_in == number, column.dropped == "")
    return list(connection.execute(frozen.order_by(column.number, column.board)))


def _steps_since(connection: sa.Connection, series: str, rows: list[Any]) -> dict[int, int]:
    """By round that an update started from: how many have closed since it began."""
    column = db.rounds.c
    query = sa.select(sa.func.count()).select_from(db.rounds).where(column.series == series, column.state == "closed")
    starts = {int(row.number) for row in rows}
    return {start: int(connection.execute(query.where(column.number >= start)).scalar_one()) for start in starts}


def _buffered(connection: sa.Connection, series: str, number: int) -> bool:
    column = db.rounds.c
    query = sa.select(column.buffered).where(column.series == series, column.number == number)
    return bool(connection.execute(query).scalar_one())


def _with_boards() -> sa.Select[Any]:
    return sa.select(db.updates.c.board, db.updates.c.upload_id).join_from(db.updates, db.boards)


def _round_query(series: str, number: int) -> sa.Select[Any]:
    return sa.select(db.rounds).where(db.rounds.c.series == series, db.rounds.c.number == number)
