"""What boards tell about their own state: the last messages of each, older ones are dropped."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from cloud_aug import boards, db, standing
from cloud_aug.cloud import Cloud
from edgewire.decoding import decode, encode
from edgewire.errors import Conflict, InvalidMessage
from edgewire.messages import TELEMETRY_LIMIT_BYTES, Telemetry, TelemetryPoint, UploadReply


@dataclass(frozen=True)
class Told:
    """received_at: by this server's clock, in seconds since 1970; the points carry the board's."""

    received_at: float
    points: tuple[TelemetryPoint, ...]


def keep(cloud: Cloud, board: str, upload_id: str, body: bytes, *, now: float) -> UploadReply:
    """Keep a message, on disk when this returns. Raises InvalidMessage, TooLarge, Conflict."""
    told = decode(Telemetry, body, what="telemetry", limit_bytes=TELEMETRY_LIMIT_BYTES)
    if told.upload_id != upload_id:
        raise InvalidMessage("the telemetry is of another upload than its address")
    document, column = encode(told), db.telemetry.c
    with cloud.database.writing(board) as connection:
        known = connection.execute(
            sa.select(column.document).where(column.board == board, column.upload_id == upload_id)
        ).scalar_one_or_none()
        if known is not None and bytes(known) != document:
            raise Conflict(f"upload {upload_id} was something else", hint="make a new id for new content")
        if known is None:
            row = {"board": board, "upload_id": upload_id, "document": document, "received_at": now}
            connection.execute(db.telemetry.insert().values(row))
            standing.measured(connection, board, told.points[-1], now=now)
            _drop_old(connection, board, most=cloud.settings.limits.telemetry_per_board)
    return UploadReply(len(told.points), 0)


def _drop_old(connection: sa.Connection, board: str, *, most: int) -> None:
    column = db.telemetry.c
    kept = sa.select(column.id).where(column.board == board).order_by(column.id.desc()).limit(most)
    ids = connection.execute(kept).scalars().all()
    connection.execute(db.telemetry.delete().where(column.board == board, column.id < min(ids)))


def last(cloud: Cloud, board: str) -> list[Told]:
    """What is kept of a board (its id, or its name), oldest first. Raises NotFound."""
    column = db.telemetry.c
    with cloud.database.reading() as connection:
        query = sa.select(db.telemetry).where(column.board == boards.find(connection, board)).order_by(column.id)
        rows = connection.execute(query).all()
    return [Told(row.received_at, decode(Telemetry, bytes(row.document), what="telemetry").points) for row in rows]
