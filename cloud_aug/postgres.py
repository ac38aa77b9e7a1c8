"""The database as a server, for several services at once: PostgreSQL through psycopg.

Locks are advisory ones of the server, so that they hold between machines and fall when their holder's connection does.
They belong to sessions: a pooler in front must keep a session per connection.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import sqlalchemy as sa

from edgewire.errors import Busy, DiskFull, EdgeError, InvalidMessage, ReadOnly, RetryLater

CONNECT_TIMEOUT_S = 5
LOCK_TIMEOUT_MS = 15_000
POOL_TIMEOUT_S = 10.0
GONE_RETRY_S = 10.0

# A machine that lost its power says no goodbye: after a minute without a word either side lets the other go, and with
# the session its locks. Left to the system it would be two hours.
_IDLE_S, _INTERVAL_S, _COUNT, _UNHEARD_MS = 30, 10, 3, 60_000
_ALIVE = {"keepalives_idle": _IDLE_S, "keepalives_interval": _INTERVAL_S, "keepalives_count": _COUNT}

# Acknowledged is on disk, whatever the server's default; and no session of ours waits for a lock for ever.
_SETTINGS = {
    "synchronous_commit": "on",
    "lock_timeout": LOCK_TIMEOUT_MS,
    **{f"tcp_{name}": value for name, value in _ALIVE.items()},
    "tcp_user_timeout": _UNHEARD_MS,
}
_BUSY = ("40001", "40P01", "53300", "55P03")  # serialization, deadlock, too many connections, lock timeout
_GONE = ("08", "57P")  # connection trouble; shutting down or starting up


def connect(address: str) -> sa.Engine:
    """An engine for `postgresql+psycopg://...`. A connection that died in the pool is noticed before it is used."""
    arguments = {"connect_timeout": CONNECT_TIMEOUT_S, "application_name": "cloud-aug"}
    arguments |= {"options": " ".join(f"-c {name}={value}" for name, value in _SETTINGS.items())}
    arguments |= {**_ALIVE, "tcp_user_timeout": _UNHEARD_MS}
    return sa.create_engine(address, pool_pre_ping=True, pool_timeout=POOL_TIMEOUT_S, connect_args=arguments)


def reading(engine: sa.Engine) -> sa.Engine:
    """Every transaction is a snapshot, and cannot write."""
    return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def lock_writers(connection: sa.Connection, scope: str) -> None:
    """Let writers of other scopes go on beside this one; a writer without a scope is alone, as in SQLite."""
    if scope:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock_shared(_key("writers"))))
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_key(f"scope {scope}"))))
    else:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_key("writers"))))


@contextlib.contextmanager
def exclusive(engine: sa.Engine, locks: Sequence[Path], *, doing: str) -> Iterator[None]:
    """Hold locks of the server under the names of lock files, on one connection however many. Raises Busy."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        try:
            for lock in locks:
                taken = sa.select(sa.func.pg_try_advisory_lock(_key(f"lock {lock.stem}")))
                if not connection.execute(taken).scalar():
                    raise Busy(f"another process is {doing}", hint="wait for it to end, then run this again")
            yield
        finally:
            with contextlib.suppress(sa.exc.DBAPIError):  # with the connection, the locks are gone too
                connection.execute(sa.select(sa.func.pg_advisory_unlock_all()))


def renumber(connection: sa.Connection, table: sa.Table) -> None:
    """Put the sequence behind a table's numbers after the highest that is there, or ever was given."""
    column = table.autoincrement_column
    if column is None:
        return
    sequence = sa.func.pg_get_serial_sequence(table.name, column.name)
    highest = sa.select(sa.func.coalesce(sa.func.max(column), 0) + 1).scalar_subquery()
    ever = sa.func.nextval(sequence)  # an index may still name a row that is gone: its number must not be another's
    connection.execute(sa.select(sa.func.setval(sequence, sa.func.greatest(highest, ever), False)))


def explain(error: sa.exc.DBAPIError) -> EdgeError:
    """What to tell of a failure. Never the server's details: they quote values."""
    state = str(getattr(error.orig, "sqlstate", None) or "")
    if state in _BUSY:
        return RetryLater("the database is busy", retry_after_s=5)
    if state.startswith(_GONE) or (not state and isinstance(error, (sa.exc.OperationalError, sa.exc.InterfaceError))):
        return RetryLater("the database does not answer", retry_after_s=GONE_RETRY_S)
    if state == "53100":
        return DiskFull("the database's disk is full", hint="free some space and do the same again")
    if state == "25006":
        return ReadOnly("the database is read-only", hint="give database_url the address of the primary server")
    if state.startswith("22") or isinstance(error, sa.exc.DataError):  # a text with NUL, or one that is too long
        return InvalidMessage("the database cannot hold one of these values", hint="check names for odd characters")
    return EdgeError(f"the database failed: {first_line(error)}")


def first_line(error: sa.exc.DBAPIError) -> str:
    """A failure without the lines that quote values, for a log."""
    return (str(error.orig).splitlines() or ["?"])[0]


def _key(name: str) -> int:
    """A lock's number: signed, 64 bits."""
    return int.from_bytes(hashlib.sha256(f"cloud-aug {name}".encode()).digest()[:8], "big", signed=True)
