"""Samples that others shared by consent. Only accepted samples under a consent that still holds are ever used.

What a contributor last consented to counts for all its samples of a task. A sample taken in twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import sqlalchemy as sa

from cloud_aug import audit, db, tasks
from cloud_aug.cloud import Cloud
from edgewire import readers
from edgewire.errors import NotFound, UsageError
from edgewire.files import digest
from edgewire.samples import Samples, make, sample_digests
from edgewire.tasks import InputSchema, Task

Status = Literal["accepted", "quarantine", "rejected"]
Progress = Callable[[int, int], None]

PURPOSES = ("packs",)  # to be in packs, and with that in the base model's training
BATCH_ROWS = 1000


@dataclass(frozen=True)
class Consent:
    """purpose: what the samples may be used for; until: seconds since 1970."""

    purpose: str
    until: float


@dataclass(frozen=True)
class Ingested:
    """accepted: new samples; duplicates: those that were there; changed: whether samples or a consent changed."""

    accepted: int
    duplicates: int
    contributors: int
    changed: bool


@dataclass(frozen=True)
class PoolStats:
    """Samples per status, those usable now, and per label."""

    task: str
    accepted: int
    quarantine: int
    rejected: int
    usable: int
    contributors: int
    usable_contributors: int
    labels: dict[str, int]


@dataclass(frozen=True)
class Pool:
    """Usable samples (`user`: the contributor) in order of contributor and digest, however they came in; ids: (n,)."""

    samples: Samples
    ids: np.ndarray
    digests: tuple[str, ...]

    @property
    def contributors(self) -> list[str]:
        """Names in order."""
        return [str(name) for name in np.unique(self.samples.user)]

    @property
    def digest(self) -> str:
        """Of who shared what: the same pool, the same digest."""
        lines = (f"{user}\0{sample}\n" for user, sample in zip(self.samples.user.tolist(), self.digests, strict=True))
        return digest("".join(lines).encode())


def ingest(
    cloud: Cloud,
    path: Path,
    task_id: str,
    consent: Consent,
    *,
    status: Status = "accepted",
    now: float,
    on_progress: Progress | None = None,
) -> Ingested:
    """Take in a data file or folder, a transaction per batch: killed anywhere, the next run adds what is missing.

    Rows with part 'pool' where the file has parts. Rows without a user count as one contributor, named after the file.
    Raises NotFound, InvalidSamples (nothing was taken in then) or UsageError for a consent that cannot be.
    """
    check_consent(consent, now=now)
    task = tasks.load(cloud, task_id)
    samples = readers.read(path, task, part="pool")
    users = np.where(samples.user == "", f"file-{path.resolve().stem[:60]}", samples.user)
    samples = replace(samples, user=users)
    names = [str(name) for name in np.unique(users)]
    with cloud.database.writing() as connection:
        renewed = sum(record_consent(connection, task.id, name, consent, now=now) for name in names)
        if renewed:
            _note_ingest(connection, task, path, "consent", now=now, contributors=renewed, until=consent.until)
    accepted = 0
    for start in range(0, len(samples), BATCH_ROWS):
        rows = np.arange(start, min(start + BATCH_ROWS, len(samples)))
        with cloud.database.writing() as connection:
            new = add(connection, task, samples.take(rows), status=status, now=now)
            if new:
                _note_ingest(connection, task, path, "ingest", now=now, accepted=new, status=status)
            accepted += new
        if on_progress is not None:
            on_progress(int(rows[-1]) + 1, len(samples))
    return Ingested(accepted, len(samples) - accepted, len(names), changed=accepted > 0 or renewed > 0)


def _note_ingest(
    connection: sa.Connection, task: Task, path: Path, action: str, *, now: float, **detail: object
) -> None:
    audit.note(connection, at=now, actor=audit.SHELL, action=action, subject=task.id, file=path.name, **detail)


def check_consent(consent: Consent, *, now: float) -> None:
    """Raises UsageError for an unknown purpose or an end that is past."""
    if consent.purpose not in PURPOSES:
        raise UsageError(f"unknown consent '{consent.purpose}'", hint=f"known: {', '.join(PURPOSES)}")
    if not now < consent.until < 1e11:
        raise UsageError("the consent's end is not in the future", hint="give the day until which it holds")


def record_consent(connection: sa.Connection, task: str, contributor: str, consent: Consent, *, now: float) -> bool:
    """Note what a contributor consented to; returns whether that is news."""
    column = db.contributors.c
    query = sa.select(db.contributors).where(column.task == task, column.contributor == contributor)
    known = connection.execute(query).one_or_none()
    if known is not None and (known.purposes, known.consent_until) == (consent.purpose, consent.until):
        return False
    row = {"task": task, "contributor": contributor, "purposes": consent.purpose}
    db.upsert(connection, db.contributors, {**row, "consent_until": consent.until, "consented_at": now})
    return True


def add(connection: sa.Connection, task: Task, samples: Samples, *, status: Status, now: float) -> int:
    """Insert checked samples of contributors whose consent is recorded; returns how many are new."""
    return db.insert_new(connection, db.samples, list(_rows(task, samples, status, now)))


def _rows(task: Task, samples: Samples, status: Status, now: float) -> Iterable[dict[str, object]]:
    x = np.ascontiguousarray(samples.x)
    for i, sample in enumerate(sample_digests(samples)):
        yield {
            "task": task.id,
            "contributor": str(samples.user[i]),
            "digest": sample,
            "label": int(samples.y[i]),
            "status": status,
            "recording": str(samples.group[i]),
            "time": None if np.isnan(samples.time[i]) else float(samples.time[i]),
            "added_at": now,
            "payload": x[i].tobytes(),
        }


def accept(cloud: Cloud, task_id: str, contributor: str, *, now: float) -> int:
    """Let a contributor's samples out of quarantine; returns how many. Raises NotFound."""
    tasks.load(cloud, task_id)
    mine = sa.and_(db.samples.c.task == task_id, db.samples.c.contributor == contributor)
    with cloud.database.writing() as connection:
        if connection.execute(sa.select(db.samples.c.id).where(mine).limit(1)).first() is None:
            raise NotFound(f"task '{task_id}' has no samples of '{contributor}'", hint="see 'cloud-aug pool stats'")
        waiting = db.samples.update().where(mine, db.samples.c.status == "quarantine")
        count = connection.execute(waiting.values(status="accepted")).rowcount
        if count:
            audit.note(connection, at=now, actor=audit.SHELL, action="accept", subject=contributor, samples=count)
    return count


def usable(task: str, *, now: float) -> sa.ColumnElement[bool]:
    """Which rows of samples joined with contributors may be used."""
    return sa.and_(
        db.samples.c.task == task,
        db.samples.c.status == "accepted",
        db.contributors.c.purposes == "packs",
        db.contributors.c.consent_until > now,
    )


def load(cloud: Cloud, task: Task, *, now: float) -> Pool:
    """All usable samples of a task."""
    query = sa.select(db.samples).join_from(db.samples, db.contributors).where(usable(task.id, now=now))
    with cloud.database.reading() as connection:
        rows = connection.execute(query.order_by(db.samples.c.contributor, db.samples.c.digest)).all()
    return Pool(
        decode_rows(rows, task.input), np.asarray([row.id for row in rows], np.int64), tuple(r.digest for r in rows)
    )


def by_ids(cloud: Cloud, task: Task, ids: list[int], *, now: float) -> Samples:
    """The samples with these ids, in that order; those that may no longer be used are left out."""
    query = sa.select(db.samples).join_from(db.samples, db.contributors)
    found = {}
    with cloud.database.reading() as connection:
        for start in range(0, len(ids), 500):  # databases limit how many values one statement may have
            some = ids[start : start + 500]
            rows = connection.execute(query.where(usable(task.id, now=now), db.samples.c.id.in_(some)))
            found.update({row.id: row for row in rows})
    return decode_rows([found[i] for i in ids if i in found], task.input)


def ids_of(cloud: Cloud, task_id: str, contributor: str) -> np.ndarray:
    """The ids of one contributor's samples, int64 (n,)."""
    query = sa.select(db.samples.c.id).where(db.samples.c.task == task_id, db.samples.c.contributor == contributor)
    with cloud.database.reading() as connection:
        return np.asarray(connection.execute(query).scalars().all(), np.int64)


def decode_rows(rows: Sequence[sa.Row[Any]], schema: InputSchema) -> Samples:
    """Rows of the samples table as columns; `user` is the contributor."""
    raw = b"".join(row.payload for row in rows)
    x = np.frombuffer(raw, np.dtype(schema.dtype).newbyteorder("<")).reshape(len(rows), *schema.shape)
    labels = np.asarray([row.label for row in rows], np.int64)
    return make(
        x,
        labels,
        user=np.asarray([row.contributor for row in rows], np.str_),
        group=np.asarray([row.recording for row in rows], np.str_),
        time=np.asarray([np.nan if row.time is None else row.time for row in rows], np.float64),
    )


def stats(cloud: Cloud, task_id: str, *, now: float) -> PoolStats:
    """What the pool of a task holds. Raises NotFound."""
    task = tasks.load(cloud, task_id)
    column, count = db.samples.c, sa.func.count()
    mine = column.task == task_id
    joined = sa.select(column.label, count).join_from(db.samples, db.contributors).where(usable(task_id, now=now))
    people = sa.select(sa.func.count(sa.distinct(column.contributor)))
    with cloud.database.reading() as connection:
        by_status = connection.execute(sa.select(column.status, count).where(mine).group_by(column.status)).all()
        by_label = connection.execute(joined.group_by(column.label)).all()
        everybody = connection.execute(people.where(mine)).scalar_one()
        allowed = people.select_from(db.samples).join(db.contributors).where(usable(task_id, now=now))
        usable_people = connection.execute(allowed).scalar_one()
    per_status = {str(row[0]): int(row[1]) for row in by_status}
    labels = {task.labels[row[0]]: int(row[1]) for row in sorted(by_label)}
    shown = [per_status.get(name, 0) for name in ("accepted", "quarantine", "rejected")]
    return PoolStats(task_id, shown[0], shown[1], shown[2], sum(labels.values()), everybody, usable_people, labels)
