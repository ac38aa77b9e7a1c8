"""Slow down whoever guesses passwords, by the name that is tried and by the address that tries.

Each try is counted before its password is looked at, so that many at once gain nothing; a right password forgets the
name's failures. A name's wait stays short: else a stranger could lock its owner out for good.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from cloud_aug import db, writes
from cloud_aug.addresses import network
from cloud_aug.cloud import Cloud
from edgewire.errors import RateLimited

FORGOTTEN_AFTER_S = 3600.0
MOST_ROWS = 20_000  # names and addresses are made up at will: the table must not grow without end


@dataclass(frozen=True)
class _Rule:
    """free: failures that cost nothing; then each doubles the wait, up to longest_s."""

    free: int
    longest_s: float

    def wait_s(self, failures: int) -> float:
        return 0.0 if failures < self.free else min(2.0 ** min(failures - self.free + 1, 30), self.longest_s)


_NAME, _ADDRESS = _Rule(free=5, longest_s=300.0), _Rule(free=20, longest_s=900.0)


def spend(cloud: Cloud, name: str, address: str, *, now: float) -> None:
    """Count a try. Raises RateLimited, which says how long to wait; tries meanwhile are refused without a look."""
    rules = {_key("name", name): _NAME, _key("address", network(address)): _ADDRESS}
    with cloud.database.reading() as connection:  # first without the writer's lock: refusing must cost little
        _check(_rows(connection, rules), now=now)
    with cloud.database.writing() as connection:
        connection.execute(db.guesses.delete().where(db.guesses.c.last_at < now - FORGOTTEN_AFTER_S))
        _make_room(connection)
        rows = _rows(connection, rules)
        _check(rows, now=now)
        for who, rule in rules.items():
            failures = (rows[who].failures if who in rows else 0) + 1
            row = {"who": who, "failures": failures, "last_at": now, "blocked_until": now + rule.wait_s(failures)}
            writes.upsert(connection, db.guesses, row)


def _rows(connection: sa.Connection, who: Collection[str]) -> dict[str, sa.Row[Any]]:
    found = connection.execute(sa.select(db.guesses).where(db.guesses.c.who.in_(who)))
    return {row.who: row for row in found}


def _check(rows: Mapping[str, sa.Row[Any]], *, now: float) -> None:
    wait_s = max((row.blocked_until for row in rows.values()), default=now) - now
    if wait_s > 0:
        raise RateLimited("too many wrong passwords", hint="wait, then try again", retry_after_s=max(1.0, wait_s))


def forget(connection: sa.Connection, name: str, address: str | None = None) -> None:
    """After a right password: the name's failures are over, and this try was none of the address's."""
    column = db.guesses.c
    connection.execute(db.guesses.delete().where(column.who == _key("name", name)))
    if address is not None:
        mine = column.who == _key("address", network(address))
        connection.execute(db.guesses.delete().where(mine, column.failures <= 1))
        fewer = {"failures": column.failures - 1, "blocked_until": 0.0}
        connection.execute(db.guesses.update().where(mine).values(fewer))


def _make_room(connection: sa.Connection) -> None:
    column = db.guesses.c
    if connection.execute(sa.select(sa.func.count()).select_from(db.guesses)).scalar_one() >= MOST_ROWS:
        oldest = sa.select(column.who).order_by(column.failures, column.last_at).limit(MOST_ROWS // 10)
        connection.execute(db.guesses.delete().where(column.who.in_(oldest)))


def _key(kind: str, value: str) -> str:
    return hashlib.sha256(f"{kind} {value}".encode()).hexdigest()
