"""Who may log in to the console, and what each may do there. A removed account stays as a row that opens nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

import sqlalchemy as sa

from cloud_aug import audit, db, guesses, passwords, writes
from cloud_aug.cloud import Cloud
from edgewire.errors import Conflict, NotFound, Refused, UsageError

Role = Literal["viewer", "operator", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)  # each may do what those before it may
IDLE_S = 1800.0  # without use: then a session ends
ABSOLUTE_S = 12 * 3600.0  # however much it is used
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True)
class Account:
    """times: seconds since 1970, None: never. sessions: how many are open."""

    name: str
    role: Role
    created_at: float
    logged_in_at: float | None
    sessions: int


def check_role(role: str, needed: Role) -> None:
    """Raises Refused unless a role allows what another one may do. The only place that compares roles."""
    if role not in ROLES or ROLES.index(role) < ROLES.index(needed):
        raise Refused(f"this needs the role '{needed}', yours is '{role}'", hint="ask an administrator")


def role_named(text: str) -> Role:
    """Raises UsageError for what is no role."""
    found: Role | None = next((role for role in ROLES if role == text), None)
    if found is None:
        raise UsageError(f"there is no role '{text}'", hint=f"write one of {', '.join(ROLES)}")
    return found


def add(cloud: Cloud, name: str, role: Role, password: str, *, actor: str = audit.SHELL, now: float) -> None:
    """Let somebody log in. Raises Conflict if the account is there, UsageError for a weak password or an odd name."""
    _check_name(name)
    passwords.check(password, name=name)
    row = {"name": name, "role": role, "password": passwords.hashed(password), "created_at": now}
    with cloud.database.writing() as connection:
        if _row(connection, name) is not None:
            raise Conflict(
                f"there is an account '{name}'", hint="see 'cloud-aug admin password' and 'cloud-aug admin role'"
            )
        writes.upsert(connection, db.accounts, {**row, "logged_in_at": None, "removed_at": None})
        audit.note(connection, at=now, actor=actor, action="add-account", subject=name, role=role)


def set_role(cloud: Cloud, name: str, role: Role, *, actor: str = audit.SHELL, now: float) -> bool:
    """Change what somebody may do, from the next request on; returns whether it was different. Raises NotFound."""
    with cloud.database.writing() as connection:
        before = get(connection, name).role
        if before == role:
            return False
        connection.execute(_update(name).values(role=role))
        audit.note(connection, at=now, actor=actor, action="set-role", subject=name, before=before, role=role)
    return True


def set_password(cloud: Cloud, name: str, password: str, *, actor: str = audit.SHELL, now: float) -> None:
    """Set a new password; sessions end, and failed tries are forgotten. Raises NotFound, UsageError."""
    passwords.check(password, name=name)
    made = passwords.hashed(password)
    with cloud.database.writing() as connection:
        get(connection, name)
        connection.execute(_update(name).values(password=made))
        _end_sessions(connection, name)
        guesses.forget(connection, name)
        audit.note(connection, at=now, actor=actor, action="set-password", subject=name)


def remove(cloud: Cloud, name: str, *, actor: str = audit.SHELL, now: float) -> bool:
    """Shut somebody out at once; returns whether the account was there."""
    with cloud.database.writing() as connection:
        if _row(connection, name) is None:
            return False
        connection.execute(_update(name).values({"removed_at": now, "password": ""}))
        _end_sessions(connection, name)
        audit.note(connection, at=now, actor=actor, action="remove-account", subject=name)
    return True


def end_sessions(cloud: Cloud, name: str, *, actor: str, now: float) -> int:
    """Log somebody out everywhere; returns of how many sessions. Raises NotFound."""
    with cloud.database.writing() as connection:
        get(connection, name)
        ended = _end_sessions(connection, name)
        audit.note(connection, at=now, actor=actor, action="end-sessions", subject=name, sessions=ended)
    return ended


def list_all(cloud: Cloud, *, now: float) -> list[Account]:
    """Every account, by name."""
    column, mine = db.accounts.c, db.sessions.c.account == db.accounts.c.name
    opened = sa.select(sa.func.count()).where(mine, sa.not_(has_ended(now))).scalar_subquery()
    query = sa.select(db.accounts, opened.label("sessions")).where(column.removed_at.is_(None)).order_by(column.name)
    with cloud.database.reading() as connection:
        rows = connection.execute(query).all()
    return [Account(row.name, row.role, row.created_at, row.logged_in_at, row.sessions) for row in rows]


def has_ended(now: float) -> sa.ColumnElement[bool]:
    """Of a row of sessions: it was not used for a while, or is old."""
    column = db.sessions.c
    return sa.or_(column.seen_at < now - IDLE_S, column.created_at < now - ABSOLUTE_S)


def get(connection: sa.Connection, name: str) -> sa.Row[Any]:
    """The row of an account that is not removed. Raises NotFound."""
    row = _row(connection, name)
    if row is None:
        raise NotFound(f"there is no account '{name}'", hint="see 'cloud-aug admin list'")
    return row


def _row(connection: sa.Connection, name: str) -> sa.Row[Any] | None:
    column = db.accounts.c
    query = sa.select(db.accounts).where(column.name == name, column.removed_at.is_(None))
    return connection.execute(query).one_or_none()


def _check_name(name: str) -> None:
    if _NAME.fullmatch(name) is None:
        hint = "letters, digits, '.', '_' and '-', at most 63"
        raise UsageError(f"{name[:80]!r} is no name for an account", hint=hint)


def _update(name: str) -> sa.Update:
    return db.accounts.update().where(db.accounts.c.name == name)


def _end_sessions(connection: sa.Connection, name: str) -> int:
    return connection.execute(db.sessions.delete().where(db.sessions.c.account == name)).rowcount
