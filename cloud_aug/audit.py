"""Who did what, written in the same transaction as the deed. No secrets, no samples."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from cloud_aug import db
from edgewire.decoding import encode

SHELL = "shell"  # someone at the server's own command line


def note(connection: sa.Connection, *, at: float, actor: str, action: str, subject: str, **detail: Any) -> None:
    """Add a line to the audit log."""
    row = {"at": at, "actor": actor, "action": action, "subject": subject[:200], "detail": encode(detail).decode()}
    connection.execute(db.audit.insert().values(row))
