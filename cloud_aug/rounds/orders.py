"""What the boards of a round are sent: the weights as boards know them, and a shorter way there.

An order is whole, so that any board can start from it. With `--down` there is a short blob beside it, from which a
board makes the same order, to the byte: the weights in 8 bits, or what changed since the order before. Who was away for
some rounds is sent each change. The server's own weights stay exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import sqlalchemy as sa

from cloud_aug import db
from cloud_aug.cloud import Cloud
from cloud_aug.rounds.plan import Series, algorithm_of, settings_of, submodels
from edgelearn.compression.broadcast import started
from edgelearn.compression.catalogue import CODECS, DOWN
from edgelearn.federated.algorithm import Algorithm, Server
from edgelearn.federated.arrays import Arrays
from edgelearn.federated.catalogue import no_classroom
from edgelearn.federated.mutual import Classroom
from edgewire.messages import WEIGHTS_LIMIT_BYTES, BlobRef
from edgewire.rounds import CHANGES_AT_MOST, Parts, Shortcut, pack_order, unpack_order


@dataclass(frozen=True)
class Ordered:
    """order: what a round starts from; short: from which it can be made; None where there is nothing shorter."""

    order: BlobRef
    short: BlobRef | None = None

    @property
    def likely_bytes(self) -> int:
        """What most boards of the round will fetch."""
        return self.short.size if self.short else self.order.size


def keep(cloud: Cloud, made: Series, server: Server, before: Ordered | None) -> Ordered:
    """Put on disk what boards get for these weights. before: of the round before, if any. Done again, it gives the same
    bytes. Raises CorruptFile, NotFound, InvalidMessage for an order before that is damaged."""
    if submodels(made.plan):  # of which each board gets its part
        return Ordered(cloud.blobs.put(pack_order(Parts(server.weights), made.task)))
    order = _algorithm(made).order(server, settings_of(made.plan.local))
    rng = np.random.default_rng((made.plan.seed, server.round, 7))  # as in cloud_aug.simulation.down
    weights, sent = order.weights, None
    if made.plan.down == "eight-bit":
        codec = CODECS[DOWN[made.plan.down]]
        sent, _ = codec.encode(weights, memory={}, rng=rng)
        weights = codec.decode(sent, weights)
    elif made.plan.down == "changes" and before is not None:
        ahead = started(load(cloud, before.order.digest)).advanced(weights, CODECS[DOWN["changes"]], rng, keep=1)
        weights, sent = ahead.public, ahead.changes[-1]
    whole = cloud.blobs.put(pack_order(Parts(weights, order.extra), made.task))
    if sent is None:
        return Ordered(whole)
    names = sorted(weights) if made.plan.down == "eight-bit" else None
    short = cloud.blobs.put(pack_order(Parts(sent, order.extra), made.task, names=names))
    return Ordered(whole, short if short.size < whole.size else None)


def keep_part(cloud: Cloud, made: Series, whole: str, rows: Arrays) -> BlobRef:
    """Put the part of an order on disk that has these rows of tables, and all else. Raises CorruptFile, NotFound."""
    weights = {name: array[rows[name]] if name in rows else array for name, array in _weights(cloud, whole).items()}
    return cloud.blobs.put(pack_order(Parts(weights), made.task))


def tasks_of_own(cloud: Cloud, board: str, blob: str) -> set[str]:
    """The tasks of series in which this board was sent an order of its own with this digest: for nobody else."""
    asked, series = db.invitations.c, db.series.c
    query = sa.select(series.task).join_from(db.invitations, db.series, asked.series == series.id)
    with cloud.database.reading() as connection:
        return set(connection.execute(query.where(asked.board == board, asked.own_blob == blob)).scalars())


def begun(made: Series, weights: Arrays, classroom: Callable[[], Classroom]) -> Server:
    """The server before the first round. classroom: see `FedMutual`."""
    return _algorithm(made, classroom).start(weights)


def load(cloud: Cloud, blob: str) -> Arrays:
    """The weights of an order. Raises CorruptFile, NotFound, InvalidMessage."""
    return unpack_order(cloud.blobs.read(blob), limit_bytes=2 * WEIGHTS_LIMIT_BYTES).main


@lru_cache(maxsize=2)
def _weights(cloud: Cloud, blob: str) -> Arrays:
    """Of which many boards get parts one after the other; nobody changes them."""
    return load(cloud, blob)


def of_row(row: sa.Row[Any]) -> Ordered:
    """What a row of `rounds` says."""
    short = BlobRef(row.short_blob, row.short_bytes) if row.short_blob else None
    return Ordered(BlobRef(row.order_blob, row.order_bytes), short)


def shortcut(connection: sa.Connection, made: Series, number: int, holds: str) -> Shortcut | None:
    """The shorter way to a round's order for a board that holds the order with this digest ('': none), if there is
    one."""
    codec = DOWN[made.plan.down]
    if made.plan.down == "none":
        return None
    column = db.rounds.c  # a round that failed has the order of the one after it
    steps = sa.or_(column.number == number, sa.and_(column.number < number, column.state == "closed"))
    newest = sa.select(db.rounds).where(column.series == made.id, steps).order_by(column.number.desc())
    rows = [of_row(row) for row in connection.execute(newest.limit(CHANGES_AT_MOST + 1))]
    if made.plan.down == "eight-bit":
        return Shortcut(codec, [rows[0].short]) if rows[0].short else None
    changes: list[BlobRef] = []
    last = ""
    for one in rows:
        if one.order.digest == holds:
            small = sum(change.size for change in changes) < rows[0].order.size
            return Shortcut(codec, changes[::-1], holds) if changes and small else None
        if one.order.digest != last:  # of a round that changed nothing
            if one.short is None:
                return None
            changes.append(one.short)
        last = one.order.digest
    return None


def _algorithm(made: Series, classroom: Callable[[], Classroom] = no_classroom) -> Algorithm:
    """To make orders and a first state: nothing is judged or drawn then."""
    return algorithm_of(made, value=_nothing_to_judge_by, rng=np.random.default_rng, classroom=classroom)


def _nothing_to_judge_by(_weights: object) -> float:
    raise ValueError("no weights are judged here")
