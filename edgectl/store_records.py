"""One open database of a board: questions, transactions, and small facts by name. What kinds of records there are is
said by those who build on it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgectl import store_schema


class Records:
    """Every method is one transaction; `transaction()` joins several."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self.path = path

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the block or nothing."""
        with store_schema.translated(self.path), store_schema.transaction(self._connection):
            yield

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Several questions about one state; another process may write meanwhile."""
        with store_schema.translated(self.path), store_schema.snapshot(self._connection):
            yield

    def meta_get(self, key: str) -> str | None:
        row = self._one("SELECT value FROM meta WHERE key = ?", key)
        return None if row is None else str(row[0])

    def meta_set(self, key: str, value: str) -> None:
        with self.transaction():
            self._connection.execute(
                "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value)
            )

    def _all(self, sql: str, *values: object) -> list[Any]:
        with store_schema.translated(self.path):
            return self._connection.execute(sql, values).fetchall()

    def _one(self, sql: str, *values: object) -> Any:
        with store_schema.translated(self.path):
            return self._connection.execute(sql, values).fetchone()
