"""Writing rows where some are there already, in the words of each database."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as postgresql_dialect
from sqlalchemy.dialects import sqlite as sqlite_dialect

_VALUES_AT_ONCE = 500  # databases limit how many values one statement may have

T = TypeVar("T")


def insert_new(connection: sa.Connection, table: sa.Table, rows: Sequence[dict[str, Any]]) -> int:
    """Insert the rows whose keys are not there yet; returns how many were new."""
    if not rows:
        return 0
    dialect = postgresql_dialect if connection.dialect.name == "postgresql" else sqlite_dialect
    statement = dialect.insert(table).on_conflict_do_nothing()
    result = connection.execute(statement, list(rows), execution_options={"preserve_rowcount": True})
    return max(result.rowcount, 0)


def upsert(connection: sa.Connection, table: sa.Table, *rows: dict[str, Any]) -> None:
    """Insert rows of the same columns, or replace those with the same primary key."""
    if not rows:
        return
    dialect = postgresql_dialect if connection.dialect.name == "postgresql" else sqlite_dialect
    keys = [column.name for column in table.primary_key.columns]
    statement = dialect.insert(table)
    changes = {name: statement.excluded[name] for name in rows[0] if name not in keys}
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changes), list(rows))


def at_once(values: Iterable[T]) -> Iterator[list[T]]:
    """Values in pieces of as many as one statement may have."""
    left = iter(values)
    while some := list(itertools.islice(left, _VALUES_AT_ONCE)):
        yield some
