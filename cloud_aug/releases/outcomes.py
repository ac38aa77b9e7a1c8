"""What boards tell of a release. Signed by the board, counted once, believed only of what it was offered."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from cloud_aug import auth, db, writes
from cloud_aug.cloud import Cloud
from cloud_aug.releases import plan as plans
from cloud_aug.releases import status, waves
from cloud_aug.releases.plan import BACK
from edgewire.decoding import convert, encode
from edgewire.errors import Conflict, Forged, NotFound, NotGranted, Outdated
from edgewire.files import digest
from edgewire.messages import UploadReply
from edgewire.releases import BasePayload, Outcome, proof_of


def keep(cloud: Cloud, board: str, task: str, raw: bytes, *, now: float) -> UploadReply:
    """Take an outcome, on disk when this returns; told again, it changes nothing.

    Raises InvalidMessage, Forged, Expired or WrongClock (the statement), NotFound (never offered to this board),
    Conflict (an id that said something else), Outdated (an order that a newer one replaced).
    """
    told = _open(cloud, board, task, raw, now=now)
    _check_proof(cloud, board, task, told)
    with cloud.database.writing() as connection:
        row, mine = _find(connection, board, task, told)
        if _seen(connection, board, task, told, now=now):
            return UploadReply(0, 1)
        _check_counter(row, mine, told)
        column = db.release_boards.c
        this = db.release_boards.update().where(column.release == row.id, column.board == board)
        connection.execute(this.values(state=told.verdict, told_at=now, outcome=encode(told)))
        waves.advance(connection, row.id, now=now)
        waves.settle(connection, status.row_of(connection, row.id))
    return UploadReply(1, 0)


def _open(cloud: Cloud, board: str, task: str, raw: bytes, *, now: float) -> Outcome:
    with cloud.database.reading() as connection:
        key = connection.execute(sa.select(db.boards.c.public_key).where(db.boards.c.id == board)).scalar_one()
    statement = auth.open_request(raw, key, type="outcome", task=task, now=now)
    told = convert(Outcome, statement.body, what="outcome")
    if (told.board, told.counter) != (board, statement.version):
        raise Forged("the outcome contradicts the statement that it came in")
    return told


def _seen(connection: sa.Connection, board: str, task: str, told: Outcome, *, now: float) -> bool:
    """Whether this was told before, ever: what was said since must not be undone by saying it again."""
    name, column = digest(encode(told)), db.uploads.c
    row = {"board": board, "upload_id": told.upload_id, "task": task, "kind": "outcome", "digest": name}
    if writes.insert_new(connection, db.uploads, [{**row, "items": 1, "accepted": 1, "received_at": now}]) == 1:
        return False
    query = sa.select(column.kind, column.digest).where(column.board == board, column.upload_id == told.upload_id)
    if tuple(connection.execute(query).one()) != ("outcome", name):
        raise Conflict(f"upload {told.upload_id} was something else", hint="make a new id for new content")
    return True


def _find(connection: sa.Connection, board: str, task: str, told: Outcome) -> tuple[sa.Row[Any], sa.Row[Any]]:
    """The release and the board's part in it, which must have been offered to it."""
    column = db.release_boards.c
    query = sa.select(db.release_boards).where(column.release == told.release, column.board == board)
    mine = connection.execute(query).one_or_none()
    row = None if mine is None else status.row_of(connection, told.release)
    if mine is None or row is None or row.task != task or mine.state == "waiting":
        raise NotFound("this board was not offered that release", hint="sync again")
    return row, mine


def _check_counter(row: sa.Row[Any], mine: sa.Row[Any], told: Outcome) -> None:
    """A verdict must be about the order that was given for it: a way back about the way back."""
    before = None if mine.outcome is None else status.outcome_of(mine.outcome).counter
    if told.verdict == "reverted":
        if row.state not in BACK or told.counter != row.revert_counter:
            raise Conflict("nobody told this board to go back", hint="sync again")
    elif told.counter not in (row.counter, before):
        raise Outdated(f"the outcome is of order {told.counter}, not of order {row.counter}", hint="sync again")


def _check_proof(cloud: Cloud, board: str, task: str, told: Outcome) -> None:
    """A board that says that it runs a base must have its bytes. What it does with them nobody can see from here.
    Looked at before anything is locked: the base may have to come from a bucket."""
    if told.verdict != "committed":
        return
    with cloud.database.reading() as connection:
        row, mine = _find(connection, board, task, told)
    payload = plans.read(row.document).payload
    if not isinstance(payload, BasePayload):
        return
    if told.proof != proof_of(cloud.blobs.path(payload.base.onnx.digest), mine.challenge):
        raise NotGranted("the outcome does not prove that the board has this base", hint="sync again")
