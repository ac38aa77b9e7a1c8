"""The database as a file: what SQLite needs to be durable, who waits for whom, and its failures in our words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import ConnectionPoolEntry

from edgewire.errors import CorruptFile, DiskFull, EdgeError, ReadOnly, RetryLater
from edgewire.files import exclusive as lock_file

BUSY_TIMEOUT_MS = 15_000
# A batch of samples is some fifty kilobytes: over pages of 4096 bytes, the default, it takes twice as long to write.
# Counts for a new file; what is written a few rows at a time is no slower.
PAGE_BYTES = 16384
LOG_BYTES = 64 << 20  # that the write-ahead log may grow to before it is copied into the file

_PRAGMAS = (
    f"page_size={PAGE_BYTES}",
    "journal_mode=WAL",
    f"wal_autocheckpoint={LOG_BYTES // PAGE_BYTES}",
    "synchronous=FULL",
    "foreign_keys=ON",
    "secure_delete=ON",  # not every SQLite does unless told: what was withdrawn would be in the file's free pages
    f"busy_timeout={BUSY_TIMEOUT_MS}",
)


def connect(address: str) -> sa.Engine:
    """An engine for `sqlite:///FILE`."""
    engine = sa.create_engine(address)
    _tame(engine)
    return engine


def reading(engine: sa.Engine) -> sa.Engine:
    """Every transaction is a snapshot."""
    return engine


def lock_writers(_connection: sa.Connection, _scope: str) -> None:
    """Nothing to do: BEGIN IMMEDIATE took the file's one write lock, whatever the scope."""


@contextlib.contextmanager
def exclusive(_engine: sa.Engine, locks: Sequence[Path], *, doing: str) -> Iterator[None]:
    """Hold lock files: whoever else uses the database is on this machine. Raises Busy."""
    with contextlib.ExitStack() as held:
        for lock in locks:
            held.enter_context(lock_file(lock, doing=doing))
        yield


def explain(error: sa.exc.DBAPIError) -> EdgeError:
    """What to tell of a failure: full, read-only, busy, or broken."""
    text = str(error.orig)
    if "full" in text:
        return DiskFull("the disk is full", hint="free some space and do the same again")
    if "readonly" in text:
        return ReadOnly("the database is read-only", hint="check the permissions of the data folder")
    if "locked" in text or "busy" in text:
        return RetryLater("the database is busy", retry_after_s=5)
    if "malformed" in text or "not a database" in text:
        return CorruptFile(f"the database cannot be read: {text}", hint="restore it from a backup")
    return EdgeError(f"the database failed: {text}")


def _tame(engine: sa.Engine) -> None:
    @sa.event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: ConnectionPoolEntry) -> None:
        # SQLAlchemy begins transactions, below; sqlite3 must not begin its own
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in _PRAGMAS:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def _on_begin(connection: sa.Connection) -> None:
        # a writer takes its lock at once: one that read first could not upgrade if another wrote meanwhile
        immediate = connection.get_execution_options().get("edge_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
