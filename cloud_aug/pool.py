"""Samples that others shared by consent. Only accepted samples under a consent that still holds are ever used.

What a contributor last consented to counts for all its samples of a task. A sample taken in twice changes nothing.
Who withdrew is taken in again only under a consent given after that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from cloud_aug import audit, batches, changes, db, tasks, writes
from cloud_aug.batches import Added, Held, Offer, Status
from cloud_aug.cloud import Cloud
from edgewire import readers
from edgewire.errors import NotFound, UsageError
from edgewire.files import digest
from edgewire.samples import Samples
from edgewire.tasks import Task

Progress = Callable[[int, int], None]

PURPOSES = ("packs",)  # to be in packs, and with that in the base model's training
CONSENT_LIMIT_S = 1e11  # since 1970
CHUNK_ROWS = 65_536  # a transaction each
CHUNK_BYTES = 32 << 20
HELD_BYTES = 96 << 20  # of a file's columns: what is larger is read twice


@dataclass(frozen=True)
class Consent:
    """purpose: what the samples may be used for; until: seconds since 1970; after: how many withdrawals it was given
    after (None: all there are)."""

    purpose: str
    until: float
    after: int | None = 0


@dataclass(frozen=True)
class Ingested:
    """accepted: new samples; duplicates: those that were there; over_quota, withdrawn: those that were not taken in,
    for their contributor has as many as it may, or withdrew; changed: whether samples or a consent changed."""

    accepted: int
    duplicates: int
    contributors: int
    changed: bool
    over_quota: int = 0
    withdrawn: int = 0


@dataclass(frozen=True)
class Taken:
    """consents: how many are news; withdrawn: samples of contributors who withdrew after their consent."""

    added: Added
    consents: int
    withdrawn: int


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
    renewed: Collection[str] = (),
    now: float,
    on_progress: Progress | None = None,
) -> Ingested:
    """Take in a data file or folder, a transaction per piece: killed anywhere, the next run adds what is missing.

    Rows with part 'pool' where the file has parts. Rows without a user count as one contributor, named after the file.
    renewed: contributors who withdrew, and have consented anew since. An NPZ is read in pieces, twice if it is larger
    than HELD_BYTES: memory stays the same however large it is.
    Raises NotFound, InvalidSamples (nothing was taken in then) or UsageError for a consent that cannot be.
    """
    check_consent(consent, now=now)
    task = tasks.load(cloud, task_id)
    total, pieces = _checked(path, task)
    seen: set[str] = set()
    consents = accepted = duplicates = over = withdrawn = done = 0
    for samples in pieces:
        offered = batches.offer(samples)
        with cloud.database.writing() as connection:
            taken = take_in(connection, cloud, task, offered, consent, renewed=renewed, status=status, now=now)
            if taken.added.accepted or taken.consents:
                new = {"accepted": taken.added.accepted, "consents": taken.consents}
                detail = {"file": path.name, **new, "until": consent.until}
                audit.note(
                    connection, at=now, actor=audit.SHELL, action="ingest", subject=task.id, status=status, **detail
                )
        accepted, duplicates = accepted + taken.added.accepted, duplicates + taken.added.duplicates
        over, withdrawn = over + taken.added.over_quota, withdrawn + taken.withdrawn
        consents, done = consents + taken.consents, done + len(samples)
        seen.update(offered.parts)
        if on_progress is not None:
            on_progress(done, total)
    return Ingested(accepted, duplicates, len(seen), accepted > 0 or consents > 0, over, withdrawn)


def _checked(path: Path, task: Task) -> tuple[int, Iterable[Samples]]:
    """How many samples there are, and these in pieces. Read to the end before: nothing is taken in of a bad file."""
    total, size, held = 0, 0, list[Samples]()
    for samples in _pieces(path, task):
        total, size = total + len(samples), size + sum(column.nbytes for column in vars(samples).values())
        held = [*held, samples] if size <= HELD_BYTES else []
    return total, held or _pieces(path, task)


def _pieces(path: Path, task: Task) -> Iterator[Samples]:
    row_bytes = task.input.values * np.dtype(task.input.dtype).itemsize
    rows = max(1, min(CHUNK_ROWS, CHUNK_BYTES // row_bytes))
    for samples in readers.stream(path, task, part="pool", rows=rows):
        nameless = samples.user == ""
        if nameless.any():
            samples = replace(samples, user=np.where(nameless, f"file-{path.resolve().stem[:60]}", samples.user))
        yield samples


def check_consent(consent: Consent, *, now: float) -> None:
    """Raises UsageError for an unknown purpose or an end that is past."""
    if consent.purpose not in PURPOSES:
        raise UsageError(f"unknown consent '{consent.purpose}'", hint=f"known: {', '.join(PURPOSES)}")
    if not now < consent.until:
        raise UsageError("the consent's end is not in the future", hint="give the day until which it holds")
    if not consent.until < CONSENT_LIMIT_S:
        raise UsageError("the consent's end is too far away", hint="give a day before the year 5138")


def take_in(
    connection: sa.Connection,
    cloud: Cloud,
    task: Task,
    offered: Offer,
    consent: Consent,
    *,
    renewed: Collection[str] = (),
    status: Status,
    now: float,
) -> Taken:
    """Note that the contributors consented, and store their samples; not of those who withdrew after that consent.
    renewed: contributors whose consent was given after all their withdrawals."""
    known = _contributors(connection, task.id, offered.parts)
    stated = {name: replace(consent, after=None) if name in renewed else consent for name in offered.parts}
    after = {name: _withdrawals(known.get(name)) for name in offered.parts}
    gone = {name for name, times in after.items() if (given := stated[name].after) is not None and given < times}
    after = {name: times for name, times in after.items() if name not in gone}
    consents = _record_consents(connection, task.id, after, known, consent, now=now)
    quota = cloud.settings.limits.samples_per_contributor
    added = batches.add(connection, task, offered, after, status=status, quota=quota, now=now)
    return Taken(added, consents, sum(len(offered.parts[name]) for name in gone))


def _contributors(connection: sa.Connection, task: str, names: Iterable[str]) -> dict[str, sa.Row[Any]]:
    """The rows of contributors, locked: of two that add the same samples at once, the later sees what the first did."""
    column = db.contributors.c
    query = sa.select(db.contributors).where(column.task == task).order_by(column.contributor).with_for_update()
    found = (connection.execute(query.where(column.contributor.in_(some))) for some in writes.at_once(sorted(names)))
    return {row.contributor: row for rows in found for row in rows}


def _withdrawals(known: sa.Row[Any] | None) -> int:
    return 0 if known is None else int(known.withdrawals)


def _record_consents(
    connection: sa.Connection,
    task: str,
    names: Iterable[str],
    known: Mapping[str, sa.Row[Any]],
    consent: Consent,
    *,
    now: float,
) -> int:
    """Note what contributors consented to; returns for how many that is news."""
    stated = (consent.purpose, consent.until)
    news = [name for name in names if name not in known or (known[name].purposes, known[name].consent_until) != stated]
    if any(name in known and not now < known[name].consent_until <= consent.until for name in news):
        changes.note(connection)  # one ends sooner than it did, or had ended
    row = {"task": task, "purposes": consent.purpose, "consent_until": consent.until, "consented_at": now}
    writes.upsert(connection, db.contributors, *({**row, "contributor": name} for name in news))
    return len(news)


def accept(cloud: Cloud, task_id: str, contributor: str, *, up_to: int | None = None, now: float) -> int:
    """Let a contributor's samples out of quarantine; returns how many. up_to: the last batch that was looked at, where
    somebody looked. Raises NotFound."""
    return _judge(cloud, task_id, contributor, "quarantine", "accepted", "accept", up_to=up_to, now=now)


def reject(
    cloud: Cloud, task_id: str, contributor: str, *, accepted_too: bool = True, up_to: int | None = None, now: float
) -> int:
    """Never use a contributor's samples, from the next search and build on; returns how many. They are kept until
    `expire`, so that the same samples do not come again. up_to: as in `accept`. Raises NotFound."""
    waiting = _judge(cloud, task_id, contributor, "quarantine", "rejected", "reject", up_to=up_to, now=now)
    if not accepted_too:
        return waiting
    return waiting + _judge(cloud, task_id, contributor, "accepted", "rejected", "reject", up_to=up_to, now=now)


def _judge(
    cloud: Cloud,
    task_id: str,
    contributor: str,
    of: Status,
    to: Status,
    action: str,
    *,
    up_to: int | None,
    now: float,
) -> int:
    tasks.load(cloud, task_id)
    column = db.batches.c
    mine = sa.and_(column.task == task_id, column.contributor == contributor)
    with cloud.database.writing() as connection:
        if connection.execute(sa.select(column.id).where(mine).limit(1)).first() is None:
            raise NotFound(f"task '{task_id}' has no samples of '{contributor}'", hint="see 'cloud-aug pool stats'")
        chosen = sa.and_(mine, column.status == of, sa.true() if up_to is None else column.id <= up_to)
        count = _rows_of(connection, chosen)
        connection.execute(db.batches.update().where(chosen).values(status=to))
        if count:
            changes.note(connection)
            audit.note(connection, at=now, actor=audit.SHELL, action=action, subject=contributor, samples=count)
    return count


def expire(cloud: Cloud, task_id: str, *, older_than_s: float | None, now: float) -> int:
    """Delete samples whose consent has ended, rejected ones, and any added longer ago than that; returns how many."""
    tasks.load(cloud, task_id)
    column, people = db.batches.c, db.contributors.c
    ended = sa.select(people.contributor).where(people.task == task_id, people.consent_until <= now)
    too_old = column.added_at < (-1.0 if older_than_s is None else now - older_than_s)
    unwanted = sa.or_(column.contributor.in_(ended), column.status == "rejected", too_old)
    chosen = sa.and_(column.task == task_id, unwanted)
    with cloud.database.writing() as connection:
        count = _rows_of(connection, chosen)
        connection.execute(db.batches.delete().where(chosen))
        if count:
            changes.note(connection)
            audit.note(connection, at=now, actor=audit.SHELL, action="expire", subject=task_id, samples=count)
    return count


def _rows_of(connection: sa.Connection, which: sa.ColumnElement[bool]) -> int:
    total = sa.select(sa.func.coalesce(sa.func.sum(db.batches.c.rows), 0))
    return int(connection.execute(total.where(which)).scalar_one())


def load(cloud: Cloud, task: Task, *, without: Collection[str] = (), now: float) -> Pool:
    """All usable samples of a task in memory, but those of the contributors named."""
    which = sa.and_(batches.usable(task.id, now=now), db.batches.c.contributor.not_in(sorted(without)))
    with cloud.database.reading() as connection:
        held = batches.find(connection, task.input, which)
    return Pool(held.samples, held.ids, held.digests)


def people(cloud: Cloud, task_id: str, *, now: float) -> dict[str, int]:
    """How many usable samples each contributor has, in order of their names."""
    column = db.batches.c
    query = sa.select(column.contributor, sa.func.sum(column.rows)).join_from(db.batches, db.contributors)
    with cloud.database.reading() as connection:
        rows = connection.execute(query.where(batches.usable(task_id, now=now)).group_by(column.contributor)).all()
    return {str(name): int(count) for name, count in sorted(rows)}


def each(cloud: Cloud, task: Task, names: Iterable[str], *, now: float) -> Iterator[tuple[str, Held]]:
    """The usable samples of these contributors, one contributor in memory at a time."""
    for name in names:
        which = sa.and_(batches.usable(task.id, now=now), db.batches.c.contributor == name)
        with cloud.database.reading() as connection:
            yield name, batches.find(connection, task.input, which)


def by_ids(cloud: Cloud, task: Task, ids: list[int], *, now: float) -> Held:
    """The samples with these ids, in that order; those that may no longer be used are left out."""
    with cloud.database.reading() as connection:
        return batches.by_ids(connection, task.input, ids, batches.usable(task.id, now=now))
