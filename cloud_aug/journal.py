"""Who withdrew, in a file beside the database: what is restored must not bring back what was deleted.

A database can be put back to what it was before a deletion; this file is only ever appended to. Each line is one
withdrawal, on disk before the database knows of it. Whoever opens a data folder brings both together: a withdrawal that
the database lacks is done again, one that the file lacks is written down.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from cloud_aug import changes, db, writes
from cloud_aug.database import Database
from edgewire.decoding import decode, encode
from edgewire.errors import CorruptFile, InvalidMessage
from edgewire.files import sync_path

FILE_NAME = "withdrawals.jsonl"


@dataclass(frozen=True, order=True)
class Withdrawal:
    """number: counts the withdrawals of this contributor from this task, from 1; at: seconds since 1970; packs: digests
    of all that were published with its samples, which a restored database may not know."""

    task: str
    contributor: str
    number: int
    at: float
    packs: tuple[str, ...] = ()


def append(file: Path, withdrawals: Iterable[Withdrawal]) -> None:
    """Write down withdrawals; they are on disk when this returns. Raises OSError (full disk)."""
    text = b"".join(encode(withdrawal) + b"\n" for withdrawal in withdrawals)
    new = not file.exists()
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":
            text = b"\n" + text  # a writer was killed within its line
        if os.write(handle, text) < len(text):
            raise OSError(errno.ENOSPC, "no room for a withdrawal", str(file))
        os.fsync(handle)
    finally:
        os.close(handle)
    if new:
        sync_path(file.parent)


def read(file: Path) -> list[Withdrawal]:
    """Every withdrawal. A line cut off at the end was never acknowledged; one within raises CorruptFile."""
    if not file.exists():
        return []
    lines = file.read_bytes().split(b"\n")
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found += [decode(Withdrawal, line, what="withdrawal")] if line else []
        except InvalidMessage as error:
            if b"\x00" not in line and line.startswith(b"{") and not line.endswith(b"}"):
                continue  # cut off by a kill
            raise CorruptFile(
                f"{file}, line {number}: {error.message}", hint="put it right by hand: it keeps deleted samples away"
            ) from None
    return found


def reconcile(database: Database, file: Path) -> int:
    """Bring database and file together; returns how many withdrawals the database lacked.

    A database that lacks some was restored: the epoch rises, so that boards take what they would call outdated.
    """
    written = _newest(read(file))
    with database.reading() as connection:
        known = _known(connection)
        tasks = set(connection.execute(sa.select(db.tasks.c.id)).scalars())
    append_needed = [w for key, w in known.items() if key not in written or written[key].number < w.number]
    if append_needed:
        append(file, sorted(append_needed))
    if not any(w.task in tasks and w.number > _number(known, key) for key, w in written.items()):
        return 0
    with database.writing() as connection:  # look again: one that another process was at is in the database by now
        lacking = [w for w in written.values() if w.task in tasks and w.number > _count(connection, w)]
        for withdrawal in sorted(lacking):
            apply(connection, withdrawal)
        if lacking:
            writes.upsert(connection, db.service, {"name": "epoch", "value": str(db.epoch(connection) + 1)})
    return len(lacking)


def apply(connection: sa.Connection, withdrawal: Withdrawal) -> int:
    """Delete what the contributor shared before, and end the consent to it, unless it was given anew since; returns how
    many samples went."""
    key = {"task": withdrawal.task, "contributor": withdrawal.contributor}
    if _count(connection, withdrawal) < withdrawal.number:
        row = {**key, "purposes": "", "consent_until": 0.0, "consented_at": withdrawal.at}
        writes.upsert(connection, db.contributors, {**row, "withdrawals": withdrawal.number})
    column = db.batches.c
    before = sa.and_(
        column.task == withdrawal.task,
        column.contributor == withdrawal.contributor,
        column.after < withdrawal.number,
    )
    held = [{**key, "digest": digest, "after": withdrawal.number - 1} for digest in withdrawal.packs]
    writes.insert_new(connection, db.pack_contributors, held)
    count = connection.execute(sa.select(sa.func.coalesce(sa.func.sum(column.rows), 0)).where(before)).scalar_one()
    connection.execute(db.batches.delete().where(before))
    changes.note(connection)
    return int(count)


def _count(connection: sa.Connection, withdrawal: Withdrawal) -> int:
    """How often the database knows its contributor to have withdrawn."""
    column = db.contributors.c
    mine = sa.and_(column.task == withdrawal.task, column.contributor == withdrawal.contributor)
    return int(connection.execute(sa.select(column.withdrawals).where(mine)).scalar() or 0)


def _newest(withdrawals: Iterable[Withdrawal]) -> dict[tuple[str, str], Withdrawal]:
    return {(w.task, w.contributor): w for w in sorted(withdrawals)}


def _known(connection: sa.Connection) -> dict[tuple[str, str], Withdrawal]:
    column = db.contributors.c
    rows = connection.execute(sa.select(db.contributors).where(column.withdrawals > 0)).all()
    return {
        (row.task, row.contributor): Withdrawal(
            row.task,
            row.contributor,
            row.withdrawals,
            row.consented_at,
            packs_before(connection, row.task, row.contributor, row.withdrawals),
        )
        for row in rows
    }


def packs_before(connection: sa.Connection, task: str, contributor: str, number: int) -> tuple[str, ...]:
    """The packs with samples that a contributor shared before its withdrawal of that number."""
    column = db.pack_contributors.c
    query = sa.select(column.digest).where(column.task == task, column.contributor == contributor)
    return tuple(sorted(connection.execute(query.where(column.after < number)).scalars()))


def _number(known: dict[tuple[str, str], Withdrawal], key: tuple[str, str]) -> int:
    return known[key].number if key in known else 0
