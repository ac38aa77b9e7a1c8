"""A word that is another whenever a sample may have left use: what a search remembers holds until it changes.

Reading it costs one row. It is written in the transaction of the change, so whoever reads the old word reads the old
pool.
"""

from __future__ import annotations

import secrets

import sqlalchemy as sa

from cloud_aug import db, writes

_NAME = "pool-changed"


def note(connection: sa.Connection) -> None:
    """Samples were withdrawn, rejected, deleted or restored, or a consent ends sooner."""
    writes.upsert(connection, db.service, {"name": _NAME, "value": secrets.token_hex(8)})


def word(connection: sa.Connection) -> str:
    """The present word; empty before the first change."""
    return str(connection.execute(sa.select(db.service.c.value).where(db.service.c.name == _NAME)).scalar() or "")
