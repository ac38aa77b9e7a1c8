"""Updates of boards: checked, on disk, and in a row, in this order, before they are acknowledged. Sent again under the
same id, one changes nothing and gets the same answer."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import sqlalchemy as sa

from cloud_aug import db, writes
from cloud_aug.cloud import Cloud
from cloud_aug.rounds import attendance, pacing
from cloud_aug.rounds import rows as told_rows
from cloud_aug.rounds.plan import Plan, Series, settings_of
from edgelearn.compression.catalogue import CODECS
from edgelearn.federated import turn
from edgelearn.federated.algorithm import Order, Update
from edgelearn.federated.catalogue import ALGORITHMS
from edgelearn.federated.updates import Limits, UpdateRefused
from edgewire.errors import Conflict, Gone, InvalidMessage, Refused, Revoked, TooLarge
from edgewire.files import digest
from edgewire.messages import WEIGHTS_LIMIT_BYTES
from edgewire.rounds import (
    UPDATE_LIMIT_BYTES,
    UPDATE_SPARE_BYTES,
    Parts,
    UpdateMeta,
    UpdateReply,
    unpack_order,
    unpack_update,
)


def room(cloud: Cloud, board: str, task_id: str, series: str, number: int, told: int | None) -> int:
    """How many bytes an update of this board may have, before any of it is read. told: how many it says it has.

    Raises NotFound or Refused for a round that is not this board's, TooLarge."""
    with cloud.database.reading() as connection:
        made = attendance.of_task(connection, series, task_id)
        most = _most(attendance.invitation_of(connection, made, number, board))
    if told is not None and told > most:
        _count(cloud, made, number, board, "refused")
        raise TooLarge(f"the update has {told} bytes, the limit is {most}")
    return most


def receive(
    cloud: Cloud, board: str, task_id: str, series: str, number: int, upload_id: str, body: bytes, *, now: float
) -> UpdateReply:
    """Take an update of an invited board.

    Raises NotFound or Refused for a round that is not this board's, Gone for one that is closed (the update does not
    count), InvalidMessage for what does not fit the order, TooLarge, Conflict for a second update to the same round.
    """
    with cloud.database.reading() as connection:
        made = attendance.of_task(connection, series, task_id)
        asked = attendance.invitation_of(connection, made, number, board)
        known, last = _known(connection, board, upload_id), attendance.memory_of(connection, made, board)
        open_yet = attendance.wanted(connection, made, number)
        twice = known is None and attendance.answered(connection, made, number, board)
    if known is not None:
        return _again(known, made, number, body)
    if twice:  # nothing of it stays on disk
        raise _second(number)
    if not open_yet:
        raise _late(cloud, made, number, board)
    if made.tables and asked.rows_blob is None:
        raise Refused("this board has not fetched its invitation, nor the rows it is for", hint="join first")
    try:
        meta = _checked(cloud, made, asked, last, upload_id, body)
    except (InvalidMessage, TooLarge):
        _count(cloud, made, number, board, "refused")
        raise
    cloud.blobs.put(body)  # on disk; a row comes next, and only then an answer
    return _record(cloud, made, asked, meta, body, now=now)


def read(cloud: Cloud, made: Series, row: Any) -> Update:
    """An update that has a row, as the algorithm takes it. Raises CorruptFile or NotFound if its blob is damaged,
    UpdateRefused, InvalidMessage."""
    parts, meta = unpack_update(cloud.blobs.read(row.digest), limit_bytes=UPDATE_LIMIT_BYTES)
    return _opened(made, row, cloud, parts, meta, limits_of(made.plan))


def with_orders() -> sa.Select[Any]:
    """Rows of `updates`, with the order that each started from."""
    column, rounds, asked = db.updates.c, db.rounds.c, db.invitations.c
    origin = sa.and_(rounds.series == column.series, rounds.number == column.number)
    mine = sa.and_(asked.series == column.series, asked.number == column.number, asked.board == column.board)
    query = sa.select(db.updates, rounds.order_blob, asked.own_blob, asked.rows_blob)
    return query.join_from(db.updates, db.rounds, origin).outerjoin(db.invitations, mine)


def order_of(cloud: Cloud, made: Series, row: Any) -> Order:
    """The order that an invitation or an update names, in arrays which take no memory. Raises CorruptFile, NotFound."""
    like = shapes(cloud, row.own_blob or row.order_blob)
    rows = told_rows.load(cloud, row.rows_blob) if row.rows_blob else {}
    return Order(row.number - 1, like.main, settings_of(made.plan.local), like.extra, rows)


def _most(asked: Any) -> int:
    """Bytes of an update that answers this invitation: no compression makes it larger than two of its orders."""
    order_bytes = int(asked.own_bytes or asked.order_bytes)
    return min(UPDATE_LIMIT_BYTES, 2 * order_bytes + UPDATE_SPARE_BYTES)


def _checked(cloud: Cloud, made: Series, asked: Any, last: str, upload_id: str, body: bytes) -> UpdateMeta:
    """last: the board's last update that counts."""
    parts, meta = unpack_update(body, limit_bytes=_most(asked))
    if (meta.series, meta.number, meta.board, meta.upload_id) != (made.id, asked.number, asked.board, upload_id):
        raise InvalidMessage("the update is of another round, board or upload than its address")
    if ALGORITHMS[made.plan.algorithm].remembers and isinstance(meta.memory, str) and meta.memory != last:
        hint = "the board's memory of it is lost: it may take part in the next series"
        raise InvalidMessage("the update does not follow from the board's last, which would count twice", hint=hint)
    limits = limits_of(made.plan)
    limits = limits if asked.steps is None else replace(limits, steps=min(limits.steps, asked.steps))
    try:
        _opened(made, asked, cloud, parts, meta, limits)
    except UpdateRefused as refused:
        raise InvalidMessage(f"the update is refused: {refused}") from None
    return meta


def _opened(made: Series, row: Any, cloud: Cloud, parts: Parts, meta: UpdateMeta, limits: Limits) -> Update:
    """Decompressed and checked. How large it can become follows from the order, whatever it claims."""
    order = order_of(cloud, made, row)
    sent = Update(meta.board, meta.number - 1, meta.samples, meta.steps, parts.main, parts.extra, order.rows)
    return turn.receive(sent, order, CODECS[made.plan.compression], limits)


def limits_of(plan: Plan) -> Limits:
    return Limits(norm=plan.max_norm, num_samples=plan.max_samples)


@lru_cache(maxsize=8)
def shapes(cloud: Cloud, order_blob: str) -> Parts:
    """Arrays shaped as an order's, which take no memory."""
    parts = unpack_order(cloud.blobs.read(order_blob), limit_bytes=2 * WEIGHTS_LIMIT_BYTES)
    return Parts(_hollow(parts.main), _hollow(parts.extra))


def _hollow(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.broadcast_to(np.zeros((), array.dtype), array.shape) for name, array in arrays.items()}


def _known(connection: sa.Connection, board: str, upload_id: str) -> Any:
    column = db.updates.c
    query = sa.select(db.updates).where(column.board == board, column.upload_id == upload_id)
    return connection.execute(query).one_or_none()


def _again(known: Any, made: Series, number: int, body: bytes) -> UpdateReply:
    if (known.series, known.number, known.digest) != (made.id, number, digest(body)):
        raise Conflict(f"upload {known.upload_id} was something else", hint="make a new id for new content")
    return UpdateReply(False, known.counted_in or 0)


def _record(cloud: Cloud, made: Series, asked: Any, meta: UpdateMeta, body: bytes, *, now: float) -> UpdateReply:
    board, number = asked.board, asked.number
    with cloud.database.writing(board) as connection:
        known = _known(connection, board, meta.upload_id)
        if known is not None:
            return _again(known, made, number, body)
        if connection.execute(sa.select(db.boards.c.revoked_at).where(db.boards.c.id == board)).scalar() is not None:
            raise Revoked("this board was revoked", hint="ask the administrator")
        open_yet = attendance.wanted(connection, made, number)
        if open_yet:
            row = {"board": board, "upload_id": meta.upload_id, "series": made.id, "number": number}
            row |= {"digest": digest(body), "size": len(body), "samples": meta.samples, "score": meta.score}
            row |= {"energy_j": meta.energy_j if isinstance(meta.energy_j, float) else None}
            row |= {"received_at": now, "dropped": "", "kept": True}
            if writes.insert_new(connection, db.updates, [row]) != 1:
                raise _second(number)
            pacing.learn(connection, made, asked, meta, len(body), now=now)
    if not open_yet:
        raise _late(cloud, made, number, board)
    return UpdateReply(True)


def _second(number: int) -> Conflict:
    return Conflict(f"this board has answered round {number} already", hint="join the next round")


def _late(cloud: Cloud, made: Series, number: int, board: str) -> Gone:
    _count(cloud, made, number, board, "late")
    return Gone(f"round {number} is closed: the update does not count", hint="join the next round")


def _count(cloud: Cloud, made: Series, number: int, board: str, what: str) -> None:
    """Add to the round's tally of late or refused updates, once for each board. Who sent rubbish is not waited for."""
    rounds, invitations = db.rounds.c, db.invitations.c
    with cloud.database.writing(board) as connection:
        mine = db.invitations.update().where(invitations.series == made.id, invitations.number == number)
        first = mine.where(invitations.board == board, ~invitations.gave_up).values(gave_up=True)
        if connection.execute(first).rowcount:
            this = db.rounds.update().where(rounds.series == made.id, rounds.number == number)
            connection.execute(this.values({what: rounds[what] + 1}))
