"""How the pool keeps samples: in batches of one contributor, a row each. A batch is there whole, or not at all.

A sample's id is its batch's id and its place in it. Ids are never given twice, so what an index names is either the
sample that it was built with, or gone.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
import sqlalchemy as sa

from cloud_aug import db, writes
from edgewire.samples import DIGEST_BYTES, Samples, concatenate, make, raw_digests
from edgewire.tasks import InputSchema, Task

Status = Literal["accepted", "quarantine", "rejected"]

ROWS = 128  # a search answer reads a whole batch for one sample; smaller ones cost more beside the values
PAYLOAD_BYTES = 1 << 20
READ_AT_ONCE = 16  # batches in memory, whatever is taken from them


@dataclass(frozen=True)
class Held:
    """Samples (`user`: the contributor) with what the pool knows them by. ids: int64 (n,); digests: hex."""

    samples: Samples
    ids: np.ndarray
    digests: tuple[str, ...]

    def take(self, rows: np.ndarray) -> Held:
        """The given rows, in that order."""
        return Held(self.samples.take(rows), self.ids[rows], tuple(self.digests[i] for i in rows.tolist()))


@dataclass(frozen=True)
class Offer:
    """Samples to be added, each contributor's together. parts: which rows are whose; digests: 32 bytes each."""

    samples: Samples
    parts: dict[str, range]
    digests: list[bytes]


@dataclass(frozen=True)
class Added:
    """Of the samples offered: new ones, those that were there, those beyond their contributor's quota."""

    accepted: int
    duplicates: int
    over_quota: int


def offer(samples: Samples) -> Offer:
    """Checked samples (`user`: the contributor), sorted by contributor where they are not in such an order already, and
    hashed: outside of any transaction, for that takes longest."""
    users = samples.user
    starts = [0, *(np.flatnonzero(users[1:] != users[:-1]) + 1).tolist()]
    names = users[starts].tolist()
    if len(set(names)) < len(names):
        return offer(samples.take(np.argsort(users, kind="stable")))
    ends = [*starts[1:], len(users)]
    parts = {name: range(start, end) for name, start, end in zip(names, starts, ends, strict=True)}
    return Offer(samples, parts, raw_digests(samples))


def add(
    connection: sa.Connection,
    task: Task,
    offered: Offer,
    after: Mapping[str, int],
    *,
    status: Status,
    quota: int,
    now: float,
) -> Added:
    """Store the samples of those in `after`, which says how often each had withdrawn before; their consents are
    recorded."""
    known = _known(connection, task.id, after)
    made: list[dict[str, Any]] = []
    accepted = duplicates = over = 0
    for name, withdrawals in after.items():
        part, theirs = offered.parts[name], known.get(name, set())
        fresh = _fresh(offered.digests, part, theirs)
        kept = fresh[: max(0, quota - len(theirs))]
        beside = {"task": task.id, "contributor": name, "after": withdrawals, "status": status, "added_at": now}
        made += [{**beside, **row} for row in _rows(task, offered, part, kept)]
        accepted, duplicates = accepted + len(kept), duplicates + len(part) - len(fresh)
        over += len(fresh) - len(kept)
    if made:
        connection.execute(db.batches.insert(), made)
    return Added(accepted, duplicates, over)


def _known(connection: sa.Connection, task: str, contributors: Iterable[str]) -> dict[str, set[bytes]]:
    """The digests of what each has in the pool."""
    column, found = db.batches.c, dict[str, set[bytes]]()
    query = sa.select(column.contributor, column.digests).where(column.task == task)
    for some in writes.at_once(contributors):
        for name, raw in connection.execute(query.where(column.contributor.in_(some))):
            found.setdefault(name, set()).update(_split(bytes(raw)))
    return found


def _fresh(digests: Sequence[bytes], part: range, known: Collection[bytes]) -> list[int]:
    """Rows of samples that are not known, of equal ones the first."""
    first = dict(zip(reversed(digests[part.start : part.stop]), reversed(part), strict=True))
    return sorted(row for digest, row in first.items() if digest not in known)


def _split(raw: bytes) -> list[bytes]:
    return [raw[i : i + DIGEST_BYTES] for i in range(0, len(raw), DIGEST_BYTES)]


def _rows(task: Task, offered: Offer, part: range, kept: list[int]) -> Iterator[dict[str, Any]]:
    whole = len(kept) == len(part)  # as a rule: then nothing has to be copied together
    samples = offered.samples.take(slice(part.start, part.stop) if whole else np.asarray(kept, np.int64))
    digests = offered.digests[part.start : part.stop] if whole else [offered.digests[row] for row in kept]
    x = np.ascontiguousarray(samples.x).astype(np.dtype(task.input.dtype).newbyteorder("<"), copy=False)
    most = max(1, min(ROWS, PAYLOAD_BYTES // max(1, x[:1].nbytes)))
    for start in range(0, len(x), most):
        some = slice(start, start + most)
        recordings, times = samples.group[some], samples.time[some]
        yield {
            "rows": len(x[some]),
            "digests": b"".join(digests[some]),
            "labels": samples.y[some].astype("<i2").tobytes(),
            "recordings": msgspec.json.encode(recordings.tolist()) if (recordings != "").any() else None,
            "times": None if np.isnan(times).all() else times.astype("<f8").tobytes(),
            "payload": x[some].tobytes(),
        }


def usable(task: str, *, now: float) -> sa.ColumnElement[bool]:
    """Which rows of batches joined with contributors may be used."""
    return sa.and_(
        db.batches.c.task == task,
        db.batches.c.status == "accepted",
        db.contributors.c.purposes == "packs",
        db.contributors.c.consent_until > now,
        db.batches.c.after == db.contributors.c.withdrawals,
    )


def find(connection: sa.Connection, schema: InputSchema, which: sa.ColumnElement[bool]) -> Held:
    """Samples of batches joined with contributors, in order of contributor and digest, however they came in."""
    query = sa.select(db.batches).join_from(db.batches, db.contributors).where(which)
    held = _decode(_stream(connection, query), schema)
    return held.take(np.lexsort((np.asarray(held.digests, np.str_), held.samples.user)))


def by_ids(connection: sa.Connection, schema: InputSchema, ids: Sequence[int], which: sa.ColumnElement[bool]) -> Held:
    """The samples with these ids, in that order; those that `which` does not allow, or are gone, are left out."""
    numbers = sorted({i // ROWS for i in ids})
    query = sa.select(db.batches).join_from(db.batches, db.contributors).where(which)
    rows = (_stream(connection, query.where(db.batches.c.id.in_(some))) for some in writes.at_once(numbers))
    wanted: dict[int, list[int]] = {}
    for i in ids:
        wanted.setdefault(i // ROWS, []).append(i % ROWS)
    held = _decode(itertools.chain.from_iterable(rows), schema, wanted)
    place = {int(number): i for i, number in enumerate(held.ids)}
    return held.take(np.asarray([place[i] for i in ids if i in place], np.int64))


def _stream(connection: sa.Connection, query: sa.Select[Any]) -> Iterator[sa.Row[Any]]:
    """Batches a few at a time: of each, a search answer may want one sample in a hundred."""
    yield from connection.execute(query.execution_options(yield_per=READ_AT_ONCE))


def of_ids(ids: np.ndarray) -> np.ndarray:
    """The batches in which samples lie, int64 (n,)."""
    return ids // ROWS


def usable_until(connection: sa.Connection, task: str, numbers: Iterable[int], *, now: float) -> dict[int, float]:
    """Those of the batches that may be used, with when the consent to each ends."""
    query = sa.select(db.batches.c.id, db.contributors.c.consent_until).join_from(db.batches, db.contributors)
    query = query.where(usable(task, now=now))
    found = (connection.execute(query.where(db.batches.c.id.in_(some))) for some in writes.at_once(numbers))
    return {int(number): float(until) for rows in found for number, until in rows}


def labels_of(raw: bytes) -> np.ndarray:
    """The labels of a batch, int64 (rows,)."""
    return np.frombuffer(raw, "<i2").astype(np.int64)


def _decode(
    rows: Iterable[sa.Row[Any]], schema: InputSchema, wanted: Mapping[int, Collection[int]] | None = None
) -> Held:
    """The samples of batches, in order. wanted: places of each batch; None: all of every one. What is not asked for is
    skipped over."""
    parts = [_columns(row, schema, _places(row.rows, None if wanted is None else wanted[row.id])) for row in rows]
    if not parts:
        return Held(concatenate([], schema), np.zeros(0, np.int64), ())
    x, y, user, group, time, ids = (
        np.concatenate(column) for column in zip(*(part[:6] for part in parts), strict=True)
    )
    names = tuple(name for part in parts for name in part[6])
    return Held(make(x, y, user=user, group=group, time=time), ids, names)


def _places(rows: int, wanted: Collection[int] | None) -> np.ndarray:
    """Those that a batch of so many rows has, int64 (n,), ascending."""
    return np.arange(rows) if wanted is None else np.asarray([p for p in sorted(wanted) if p < rows], np.int64)


def _columns(row: sa.Row[Any], schema: InputSchema, at: np.ndarray) -> tuple[Any, ...]:
    """x, y, user, group, time, ids and digests of some samples of one batch."""
    digests = bytes(row.digests)
    return (
        np.frombuffer(row.payload, np.dtype(schema.dtype).newbyteorder("<")).reshape(row.rows, *schema.shape)[at],
        labels_of(row.labels)[at],
        np.full(len(at), row.contributor),
        np.full(len(at), "")
        if row.recordings is None
        else np.asarray(msgspec.json.decode(row.recordings), np.str_)[at],
        np.full(len(at), np.nan) if row.times is None else np.frombuffer(row.times, "<f8")[at],
        row.id * ROWS + at,
        [digests[i * DIGEST_BYTES : (i + 1) * DIGEST_BYTES].hex() for i in at.tolist()],
    )
