"""Who did what, written in the same transaction as the deed. No secrets, no samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from cloud_aug import db
from cloud_aug.cloud import Cloud
from edgewire.decoding import decode, encode

SHELL = "shell"  # someone at the server's own command line


@dataclass(frozen=True)
class Line:
    """id: rises; at: seconds since 1970."""

    id: int
    at: float
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]


def note(connection: sa.Connection, *, at: float, actor: str, action: str, subject: str, **detail: Any) -> None:
    """Add a line to the audit log."""
    row = {"at": at, "actor": actor, "action": action, "subject": subject[:200], "detail": encode(detail).decode()}
    connection.execute(db.audit.insert().values(row))


def take_back(connection: sa.Connection) -> None:
    """Leave out the line that this transaction has just added, which nobody else writes beside."""
    newest = sa.select(sa.func.max(db.audit.c.id)).scalar_subquery()
    connection.execute(db.audit.delete().where(db.audit.c.id == newest))


def lines(cloud: Cloud, *, before: int | None = None, actor: str = "", action: str = "", limit: int) -> list[Line]:
    """The newest lines, or those before a line, of whoever and whatever is asked for ('': all); newest first."""
    column = db.audit.c
    query = sa.select(db.audit).order_by(column.id.desc()).limit(limit)
    for wanted, value in ((column.actor, actor), (column.action, action)):
        query = query.where(wanted == value) if value else query
    if before is not None:
        query = query.where(column.id < before)
    with cloud.database.reading() as connection:
        rows = connection.execute(query).all()
    return [
        Line(r.id, r.at, r.actor, r.action, r.subject, decode(dict[str, Any], r.detail.encode(), what="audit line"))
        for r in rows
    ]
