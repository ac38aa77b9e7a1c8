"""Boards: enrol with a one-time token, grant tasks, revoke. Only a board's public key is known here."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import sqlalchemy as sa

from cloud_aug import audit, auth, db, keys, tasks, writes
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
        new = writes.insert_new(connection, db.boards, [{**row, "name": request.name, "profile": request.profile}])
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


@dataclass(frozen=True)
class Selection:
    """Which boards: those that fit one of the patterns of each kind that is given. names: of ids or names, with * and
    ?; profiles: likewise. Nothing given is nobody: say `*` for everybody."""

    names: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()

    def fits(self, board: sa.Row[Any]) -> bool:
        """Whether a row of `boards` is meant."""
        named = any(fnmatchcase(of, pattern) for of in (board.id, board.name) for pattern in self.names)
        profiled = any(fnmatchcase(board.profile, pattern) for pattern in self.profiles)
        return bool(self.names or self.profiles) and (named or not self.names) and (profiled or not self.profiles)


def push(cloud: Cloud, task: str, selection: Selection, *, actor: str = audit.SHELL, now: float) -> tuple[int, int]:
    """Grant a task to every board that is meant: (meant, of these new). They fetch it with their next sync.

    Raises NotFound if there is no such task, or no such board: a push that reaches nobody is a mistake.
    """
    with cloud.database.writing() as connection:
        tasks.get(connection, task)
        meant = _meant(connection, selection)
        rows = [{"board": board, "task": task, "granted_at": now} for board in meant]
        new = writes.insert_new(connection, db.grants, rows)
        if new:
            audit.note(connection, at=now, actor=actor, action="push-task", subject=task, boards=new)
    return len(meant), new


def recall(cloud: Cloud, task: str, selection: Selection, *, actor: str = audit.SHELL, now: float) -> tuple[int, int]:
    """Take a task from every board that is meant: (meant, of these had it). Raises NotFound as `push` does.

    It counts from their next request on. What a board fetched before stays with it, and its own model serves on.
    """
    column = db.grants.c
    with cloud.database.writing() as connection:
        tasks.get(connection, task)
        meant, had = _meant(connection, selection), 0
        for board in meant:
            gone = connection.execute(db.grants.delete().where(column.task == task, column.board == board))
            had += gone.rowcount
        if had:
            audit.note(connection, at=now, actor=actor, action="recall-task", subject=task, boards=had)
    return len(meant), had


def _meant(connection: sa.Connection, selection: Selection) -> list[str]:
    rows = connection.execute(sa.select(db.boards).where(db.boards.c.revoked_at.is_(None))).all()
    meant = [str(row.id) for row in rows if selection.fits(row)]
    if not meant:
        raise NotFound("no board is meant by that", hint="see 'cloud-aug boards list' for names and profiles")
    return meant


def revoke(cloud: Cloud, board: str, *, actor: str = audit.SHELL, now: float) -> bool:
    """Shut a lost board out at once, tokens it holds included; returns whether it was not before. Raises NotFound."""
    with cloud.database.writing() as connection:
        row = _find(connection, board)
        if row.revoked_at is not None:
            return False
        connection.execute(db.boards.update().where(db.boards.c.id == row.id).values(revoked_at=now))
        audit.note(connection, at=now, actor=actor, action="revoke", subject=row.id)
    return True


def groups_of(connection: sa.Connection, board: str) -> list[str]:
    """The groups that a board is in."""
    column = db.board_groups.c
    return list(connection.execute(sa.select(column.name).where(column.board == board).order_by(column.name)).scalars())


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
        writes.insert_new(connection, db.board_groups, [{"board": identity, "name": name} for name in wanted])
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
    return writes.insert_new(connection, db.grants, rows)
