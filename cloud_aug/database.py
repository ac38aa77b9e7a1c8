"""The one way into a database: `reading` sees a snapshot, `writing` is one durable transaction. Its tables: `db.py`."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import sqlalchemy as sa

from cloud_aug import postgres, sqlite
from edgewire.errors import EdgeError, UsageError


class Database:
    """An engine with its two ways in. Safe to use from many threads. Raises UsageError for an address that is none."""

    def __init__(self, address: str) -> None:
        try:
            self._backend = _BACKENDS[sa.make_url(address).get_backend_name()]
            self.engine = self._backend.connect(address)
        except (sa.exc.ArgumentError, ImportError) as error:  # not the address itself: it may hold a password
            raise UsageError(f"database_url cannot be used: {error}", hint="see settings.toml") from None
        except KeyError as error:
            hint = "write sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME"
            raise UsageError(f"database_url cannot be used: {error} is not supported", hint=hint) from None
        self._writer = self.engine.execution_options(edge_write=True)
        self._reader = self._backend.reading(self.engine)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A consistent snapshot."""
        with self._reader.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self, scope: str = "") -> Iterator[sa.Connection]:
        """One transaction, on disk when the block ends, undone whole if it raises. No other writes meanwhile.

        scope: what it writes is about this alone (a board); where the database can, other scopes' writers go on.
        """
        with self._writer.begin() as connection:
            self._backend.lock_writers(connection, scope)
            yield connection

    @contextlib.contextmanager
    def exclusive(self, *locks: Path, doing: str) -> Iterator[None]:
        """Let one process at a time do this, of all that use this database. Raises Busy if any of the locks is held."""
        with self._backend.exclusive(self.engine, locks, doing=doing):
            yield

    def close(self) -> None:
        """Give back every connection."""
        self.engine.dispose()


_BACKENDS: dict[str, ModuleType] = {"sqlite": sqlite, "postgresql": postgres}


def from_database_error(error: sa.exc.DBAPIError) -> EdgeError:
    """What to tell of a failure that a database reports: full, read-only, busy, away, or broken."""
    explained: EdgeError = (sqlite if isinstance(error.orig, sqlite3.Error) else postgres).explain(error)
    return explained


def first_line(error: sa.exc.DBAPIError) -> str:
    """A failure as a log may have it: without statement, parameters and details, which are other people's data."""
    return postgres.first_line(error)
