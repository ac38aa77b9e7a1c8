"""Boards: enrol with a one-time token, grant tasks, revoke. Only a board's public key is known here."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from cloud_aug import audit, auth, db, keys, tasks
from cloud_aug.cloud import Cloud
from edgewire.decoding import convert
from edgewire.errors import NotFound, Revoked
from edgewire.messages import BoardInfo, EnrolReply, EnrolRequest, Name
from edgewire.signing import key_id, unb64, unverified


def enrol(cloud: Cloud, raw: bytes, *, now: float) -> EnrolReply:
    """Introduce a board by a request signed with the key inside it. Sent twice, it gets the same answer.

    Raises Forged, Expired, WrongClock, TokenRefused, or Revoked: a new token does not bring a revoked key back.
    """
    request = convert(EnrolRequest, unverified(raw).body, what="enrolment request")
    auth.open_request(raw, request.public_key, type="enroll", now=now)
    board = f"b{key_id(unb64(request.public_key))}"
    with cloud.database.writing() as connection:
        row = {"id": board, "public_key": request.public_key, "enrolled_at": now}
        new = db.insert_new(connection, db.boards, [{**row, "name": request.name, "profile": request.profile}])
        if _find(connection, board).revoked_at is not None:
            raise Revoked("this board was revoked", hint="make it a new key and enroll again")
        wanted = auth.spend_enrolment_token(connection, request.token, board, now=now)
        granted = _grant(connection, board, wanted, now=now)
        if new or granted:
            audit.note(connection, at=now, actor=board, action="enroll", subject=request.name, tasks=wanted)
        held = sorted(auth.granted(connection, board))
    return EnrolReply(board, tuple(held), tuple(envelope.decode() for envelope in keys.chain(cloud.database)))


def list_all(cloud: Cloud) -> list[BoardInfo]:
    """Every board, oldest first."""
    with cloud.database.reading() as connection:
        rows = connection.execute(sa.select(db.boards).order_by(db.boards.c.enrolled_at, db.boards.c.id)).all()
        granted: dict[str, list[str]] = {row.id: [] for row in rows}
        for grant in connection.execute(sa.select(db.grants).order_by(db.grants.c.task)):
            granted[grant.board].append(grant.task)
    return [
        BoardInfo(
            row.id, row.name, row.profile, tuple(granted[row.id]), row.enrolled_at, row.last_seen_at, row.revoked_at
        )
        for row in rows
    ]


def grant(cloud: Cloud, board: str, task: str, *, actor: str = audit.SHELL, now: float) -> bool:
    """Let a board use a task; returns whether that is new. Raises NotFound."""
    with cloud.database.writing() as connection:
        identity = _find(connection, board).id
        tasks.get(connection, task)
        changed = _grant(connection, identity, [task], now=now) > 0
        if changed:
            audit.note(connection, at=now, actor=actor, action="grant", subject=identity, task=task)
    return changed


def revoke(cloud: Cloud, board: str, *, actor: str = audit.SHELL, now: float) -> bool:
    """Shut a lost board out at once, tokens it holds included; returns whether it was not before. Raises NotFound."""
    with cloud.database.writing() as connection:
        row = _find(connection, board)
        if row.revoked_at is not None:
            return False
        connection.execute(db.boards.update().where(db.boards.c.id == row.id).values(revoked_at=now))
        audit.note(connection, at=now, actor=actor, action="revoke", subject=row.id)
    return True


def set_groups(
    cloud: Cloud, board: str, groups: Collection[str], *, actor: str = audit.SHELL, now: float
) -> tuple[str, bool]:
    """Put a board into these groups and no others; its id, and whether that changed anything. Raises NotFound,
    InvalidMessage."""
    wanted = sorted(set(convert(list[Name], list(groups), what="groups")))
    with cloud.database.writing() as connection:
        identity, column = str(_find(connection, board).id), db.board_groups.c
        had = connection.execute(sa.select(column.name).where(column.board == identity).order_by(column.name)).scalars()
        if list(had) == wanted:
            return identity, False
        connection.execute(db.board_groups.delete().where(column.board == identity))
        db.insert_new(connection, db.board_groups, [{"board": identity, "name": name} for name in wanted])
        audit.note(connection, at=now, actor=actor, action="group", subject=identity, groups=wanted)
    return identity, True


def find(connection: sa.Connection, board: str) -> str:
    """The id of a board named by its id, or by its name where it is the only one of that name. Raises NotFound."""
    return str(_find(connection, board).id)


def _find(connection: sa.Connection, board: str) -> sa.Row[Any]:
    """By id, or by name where it is the only one of that name."""
    same = sa.or_(db.boards.c.id == board, db.boards.c.name == board)
    rows = connection.execute(sa.select(db.boards).where(same)).all()
    exact = [row for row in rows if row.id == board] or rows
    if not exact:
        raise NotFound(f"there is no board '{board}'", hint="see 'cloud-aug boards list'")
    if len(exact) > 1:
        raise NotFound(f"{len(exact)} boards are named '{board}'", hint="give the board's id instead")
    return exact[0]


def _grant(connection: sa.Connection, board: str, wanted: list[str], *, now: float) -> int:
    rows = [{"board": board, "task": task, "granted_at": now} for task in wanted]
    return db.insert_new(connection, db.grants, rows)
