"""What is published for a task, and the signed manifest that names it. A publication is one row: there or not."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from msgspec import UNSET, UnsetType

from cloud_aug import db, keys, tasks, writes
from cloud_aug.cloud import Cloud
from edgewire.decoding import convert, decode, encode, plain
from edgewire.errors import Gone, NotFound, NotReady, RetryLater
from edgewire.files import digest
from edgewire.messages import (
    DIRECTORY_LIMIT_BYTES,
    HAVE_CHARACTERS,
    PARTS_LIMIT_BYTES,
    Base,
    BlobRef,
    Manifest,
    PackRef,
    Withdrawals,
)
from edgewire.signing import Statement, seal, unverified
from edgewire.trust import Trust

Holders = dict[str, tuple[str, ...]]  # the digest of a pack -> whose samples it holds

MANIFEST_LIFETIME_S = 30 * 86400.0
RETRY_S = 60.0


@dataclass(frozen=True)
class Publication:
    """Everything that one index build made. search: the index for the modes that search online; layout: who is in which
    pack; both never handed out. samples, contributors: in packs."""

    task: str
    version: int
    base: Base
    directory: BlobRef
    packs: tuple[PackRef, ...]
    search: BlobRef
    cohorts: int
    samples: int
    contributors: int
    seed: int
    layout: BlobRef | None = None  # None: made by an older release
    build_s: float = field(default=0.0, compare=False)  # how long it took; 0: made by an older release

    @property
    def content(self) -> tuple[str, ...]:
        """Equal for publications that differ only in their version."""
        return (self.base.onnx.digest, self.base.weights.digest, self.directory.digest, self.search.digest)

    @property
    def pack_names(self) -> set[str]:
        """Under which boards may ask for packs: that of the encrypted bytes; older ones that of the samples' bytes."""
        return {ref.digest for ref in self.packs} | {str(ref.ciphertext) for ref in self.packs if ref.ciphertext}


def current(connection: sa.Connection, task: str) -> Publication | None:
    """The newest publication of a task."""
    return _newest(connection, db.publications.c.task == task)


def general(connection: sa.Connection, task: str) -> Publication | None:
    """What the manifest names: the newest publication whose base is not held back for a release."""
    column = db.publications.c
    held = sa.select(db.held_bases.c.base_version).where(db.held_bases.c.task == task)
    return _newest(connection, column.task == task, column.base_version.not_in(held))


def general_base(task: sa.ColumnElement[str]) -> sa.ScalarSelect[int]:
    """The version of the base that the manifest of a task names, within a statement about tasks."""
    column, held = db.publications.c, db.held_bases.c
    kept = sa.select(held.base_version).where(held.task == task)
    query = sa.select(column.base_version).where(column.task == task, column.base_version.not_in(kept))
    return query.order_by(column.version.desc()).limit(1).scalar_subquery()


def of_base(connection: sa.Connection, task: str, version: int) -> Publication:
    """The newest publication with this base. Raises NotFound."""
    column = db.publications.c
    found = _newest(connection, column.task == task, column.base_version == version)
    if found is None:
        hint = f"train it, then run 'cloud-aug index build --hold --task {task}'"
        raise NotFound(f"base {version} of '{task}' is not published", hint=hint)
    return found


def _newest(connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> Publication | None:
    column = db.publications.c
    query = sa.select(column.document).where(*conditions).order_by(column.version.desc()).limit(1)
    document = connection.execute(query).scalar()
    return None if document is None else _read(document)


def served(connection: sa.Connection, task: str) -> list[Publication]:
    """What boards may be at: the general publication, and the newest of each base that is held back, but for those that
    were called back and not released again (the newest publication of all is among them in any case)."""
    back, version = db.releases.c.state.in_(("failed", "aborted")), db.releases.c.base_version
    released = sa.select(version).where(db.releases.c.task == task, version.is_not(None))
    gone = sa.except_(released.where(back), released.where(sa.not_(back)))
    column = db.held_bases.c
    held = sa.select(column.base_version).where(column.task == task, column.base_version.not_in(gone))
    mine = db.publications.c
    found = [general(connection, task), current(connection, task)]
    found += [
        _newest(connection, mine.task == task, mine.base_version == number)
        for number in connection.execute(held).scalars()
    ]
    return list({one.version: one for one in found if one is not None}.values())


def kept(connection: sa.Connection, task: str) -> list[Publication]:
    """Whose files must stay: what boards may be at, and what they go back to."""
    below = beneath(connection, task)
    return [*served(connection, task), *([below] if below is not None else [])]


def beneath(connection: sa.Connection, task: str) -> Publication | None:
    """What the manifest names again when the release that brought its base is called back; None: no release did."""
    now, column, mine = general(connection, task), db.releases.c, db.publications.c
    if now is None:
        return None
    brought = sa.select(column.id).where(column.task == task, column.base_version == now.base.version)
    if connection.execute(brought.where(column.state == "done").limit(1)).first() is None:
        return None
    held = sa.select(db.held_bases.c.base_version).where(db.held_bases.c.task == task)
    others = sa.and_(mine.base_version != now.base.version, mine.base_version.not_in(held))
    return _newest(connection, mine.task == task, others)


def base_versions(connection: sa.Connection, task: str) -> set[int]:
    """The bases that were published for a task."""
    query = sa.select(db.publications.c.base_version).where(db.publications.c.task == task)
    return set(connection.execute(query).scalars())


def bases_are_released(connection: sa.Connection, task: str) -> bool:
    """Whether a base of this task ever was held back for a release, or brought by one."""
    held = sa.select(db.held_bases.c.task).where(db.held_bases.c.task == task).limit(1)
    column = db.releases.c
    released = sa.select(column.id).where(column.task == task, column.base_version.is_not(None)).limit(1)
    return any(connection.execute(query).first() is not None for query in (held, released))


def is_held(connection: sa.Connection, task: str, base_version: int) -> bool:
    """Whether boards get this base by a release only."""
    column = db.held_bases.c
    query = sa.select(column.task).where(column.task == task, column.base_version == base_version)
    return connection.execute(query).first() is not None


def hold(connection: sa.Connection, task: str, base_version: int) -> None:
    """Keep a base out of the manifest."""
    writes.insert_new(connection, db.held_bases, [{"task": task, "base_version": base_version}])


def hold_newer(connection: sa.Connection, task: str, base_version: int) -> None:
    """Keep bases that a release brought, and that are newer than this one, out of the manifest: boards go on running
    them by their release, until it is called back."""
    column = db.releases.c
    brought = sa.select(column.base_version).where(column.task == task, column.state == "done").distinct()
    for version in connection.execute(brought.where(column.base_version > base_version)).scalars().all():
        hold(connection, task, version)


def would_name(connection: sa.Connection, task: str, base_version: int) -> bool:
    """Whether the manifest would name a base if it were not held."""
    column, held = db.publications.c, db.held_bases.c
    others = sa.select(held.base_version).where(held.task == task, held.base_version != base_version)
    found = _newest(connection, column.task == task, column.base_version.not_in(others))
    return found is not None and found.base.version == base_version


def let_go(connection: sa.Connection, task: str, base_version: int) -> None:
    """Let the manifest name a base, if it is the newest that is not held."""
    column = db.held_bases.c
    connection.execute(db.held_bases.delete().where(column.task == task, column.base_version == base_version))


Stamp = tuple[int, int, int, int]
"""Another one wherever another publication may be the newest of a base, or boards may be at other bases. The epoch is
in it: after a restore a version may be another publication's than before."""


def stamp(connection: sa.Connection, task: str) -> Stamp:
    """See `Stamp`. Cheaper than `served`, which names every pack."""
    gone = db.releases.c.state.in_(("failed", "aborted"))
    query = sa.select(
        sa.select(sa.func.max(db.publications.c.version)).where(db.publications.c.task == task).scalar_subquery(),
        sa.select(sa.func.count()).where(db.held_bases.c.task == task).scalar_subquery(),
        sa.select(sa.func.count()).where(db.releases.c.task == task, gone).scalar_subquery(),
    )
    newest, held, ended = connection.execute(query).one()
    return (db.epoch(connection), newest or 0, held, ended)


def published_at(connection: sa.Connection, task: str) -> float:
    """When the newest publication of a task was published, in seconds since 1970; 0: there is none."""
    query = sa.select(sa.func.max(db.publications.c.published_at)).where(db.publications.c.task == task)
    return float(connection.execute(query).scalar() or 0.0)


def good_until(connection: sa.Connection, publication: Publication) -> float:
    """When the first consent behind a publication's packs ends, in seconds since 1970."""
    held, packs = db.pack_contributors.c, [pack.digest for pack in publication.packs]
    query = sa.select(sa.func.min(db.contributors.c.consent_until)).join_from(db.pack_contributors, db.contributors)
    ends = [
        connection.execute(query.where(held.task == publication.task, held.digest == digest)).scalar()
        for digest in packs
    ]
    return min((float(end) for end in ends if end is not None), default=float("inf"))


def _read(document: bytes) -> Publication:
    return decode(Publication, bytes(document), what="publication", limit_bytes=DIRECTORY_LIMIT_BYTES)


def older(cloud: Cloud, than: Publication) -> list[Publication]:
    """The publications of the same task before this one, oldest first."""
    column = db.publications.c
    query = sa.select(column.document).where(column.task == than.task, column.version < than.version)
    query = query.order_by(column.version)
    with cloud.database.reading() as connection:
        return [_read(document) for document in connection.execute(query).scalars()]


def require(cloud: Cloud, task: str, *, base: str | None = None) -> Publication:
    """The newest publication of a task; with the digest of a base, that of this base where boards may be at it.
    Raises NotReady."""
    with cloud.database.reading() as connection:
        found = current(connection, task)
        if found is not None and base is not None and found.base.onnx.digest != base:
            same = [one for one in served(connection, task) if one.base.onnx.digest == base]
            found = same[0] if same else general(connection, task)
    if found is None:
        hint = "the administrator has to run 'cloud-aug index build'"
        raise NotReady(f"nothing is published for task '{task}' yet", hint=hint, retry_after_s=RETRY_S)
    return found


def record(connection: sa.Connection, publication: Publication, *, now: float) -> None:
    """Add a publication and what boards may fetch for it. It is current from the commit on."""
    row = {
        "task": publication.task,
        "version": publication.version,
        "base_version": publication.base.version,
        "directory": publication.directory.digest,
        "search": publication.search.digest,
        "document": encode(publication),
        "published_at": now,
    }
    connection.execute(db.publications.insert().values(row))
    blobs = (publication.base.weights, publication.base.onnx, publication.directory)
    digests = sorted({ref.digest for ref in blobs} | publication.pack_names)
    writes.insert_new(connection, db.published_blobs, [{"digest": d, "task": publication.task} for d in digests])


def withdrawals_of(connection: sa.Connection, task: str) -> dict[str, int]:
    """How often each contributor of a task has withdrawn."""
    people = db.contributors.c
    query = sa.select(people.contributor, people.withdrawals).where(people.task == task)
    return {str(name): int(count) for name, count in connection.execute(query)}


def record_holders(connection: sa.Connection, task: str, holders: Holders, withdrawn: dict[str, int]) -> float:
    """Note whose samples each pack holds; returns when the first of their consents ends. withdrawn: how often each had
    withdrawn before the samples were read: who did so meanwhile has withdrawn the new packs, too."""
    rows = [
        {"digest": d, "task": task, "contributor": name, "after": withdrawn.get(name, 0)}
        for d, names in holders.items()
        for name in names
    ]
    writes.insert_new(connection, db.pack_contributors, rows)
    held = db.pack_contributors.c
    query = sa.select(sa.func.min(db.contributors.c.consent_until)).join_from(db.pack_contributors, db.contributors)
    ends = [connection.execute(query.where(held.digest == d, held.task == task)).scalar_one() for d in holders]
    return float(min(ends))


def check_consents(cloud: Cloud, blob: str, *, now: float) -> bool:
    """Whether this is an encrypted pack. Raises Gone for a pack with samples of someone who withdrew or whose consent
    has ended, of whichever publication."""
    query = sa.select(db.packs.c.digest).where(db.packs.c.ciphertext == blob)
    with cloud.database.reading() as connection:
        encrypted = list(connection.execute(query).scalars())
        if ended(connection, [blob, *encrypted], now=now):
            hint = "the administrator has to run 'cloud-aug index build'; then sync again"
            raise Gone("a consent to samples in this pack has ended", hint=hint)
    return bool(encrypted)


def ended(connection: sa.Connection, packs: Sequence[str], *, now: float) -> set[str]:
    """Which of these packs hold samples of someone who withdrew or whose consent has ended."""
    held = db.pack_contributors.c.digest
    query = sa.select(held).join_from(db.pack_contributors, db.contributors).where(held.in_(packs)).distinct()
    return set(connection.execute(query.where(sa.or_(db.contributors.c.consent_until <= now, _withdrawn()))).scalars())


def _withdrawn() -> sa.ColumnElement[bool]:
    """Which rows of pack_contributors joined with contributors are of somebody who withdrew since."""
    return db.pack_contributors.c.after < db.contributors.c.withdrawals


def withdrawn_packs(connection: sa.Connection, task: str) -> tuple[str, ...]:
    """Every pack of a task with samples that were withdrawn since, of all publications."""
    column = db.pack_contributors.c
    query = sa.select(column.digest).join_from(db.pack_contributors, db.contributors).distinct()
    return tuple(sorted(connection.execute(query.where(column.task == task, _withdrawn())).scalars()))


def _withdrawals(connection: sa.Connection, task: str) -> Withdrawals | UnsetType:
    total = sa.select(sa.func.coalesce(sa.func.sum(db.contributors.c.withdrawals), 0))
    number = int(connection.execute(total.where(db.contributors.c.task == task)).scalar_one())
    return Withdrawals(number, withdrawn_packs(connection, task)) if number else UNSET


def tasks_of_blob(cloud: Cloud, blob: str) -> set[str]:
    """The tasks that a blob was published for; empty for what is no board's business."""
    query = sa.select(db.published_blobs.c.task).where(db.published_blobs.c.digest == blob)
    with cloud.database.reading() as connection:
        return set(connection.execute(query).scalars())


def parts(cloud: Cloud, envelope: bytes, have: Sequence[str]) -> dict[str, Path]:
    """The files that follow a manifest: of those that it names what is not among `have` (the beginnings of digests), as
    far as they are small together. digest -> file."""
    body = convert(Manifest, unverified(envelope).body, what="manifest")
    chosen: dict[str, Path] = {}
    room = PARTS_LIMIT_BYTES
    for ref in (body.directory, body.base.onnx, body.base.weights):
        if ref.digest[:HAVE_CHARACTERS] not in have and ref.digest not in chosen and ref.size <= room:
            with suppress(NotFound, RetryLater):  # who asks for it by itself is told
                chosen[ref.digest] = cloud.blobs.path(ref.digest)
                room -= ref.size
    return chosen


def manifest(cloud: Cloud, task_id: str, *, now: float) -> bytes:
    """The sealed manifest: the stored one while it is true and young, else a new one. Raises NotReady or NotFound."""
    require(cloud, task_id)
    with cloud.database.reading() as connection:
        stored, _ = _stored(connection, task_id, now=now)
    if stored is not None:
        return stored
    # once more with the writer's lock: of two that seal at once, the later must not bring an older publication back
    with cloud.database.writing() as connection:
        stored, row = _stored(connection, task_id, now=now)
        return stored if stored is not None else _seal(cloud, connection, row, now=now)


@dataclass(frozen=True)
class _Wanted:
    """What a manifest has to say now, and the number it gets."""

    task: str
    epoch: int
    version: int
    body: dict[str, Any]
    body_digest: str
    trust: Trust


def _stored(connection: sa.Connection, task_id: str, *, now: float) -> tuple[bytes | None, _Wanted]:
    """The stored envelope if it is true and young, and what has to be sealed if it is not."""
    publication, epoch, trust = general(connection, task_id), db.epoch(connection), keys.newest(connection)
    if publication is None:
        raise NotReady(f"nothing is published for task '{task_id}' yet", retry_after_s=RETRY_S)
    withdrawn = _withdrawals(connection, task_id)
    task = tasks.get(connection, task_id)
    body = plain(Manifest(task, publication.base, publication.directory, trust.version, withdrawn))
    body_digest = digest(encode([epoch, body]))
    row = connection.execute(sa.select(db.manifests).where(db.manifests.c.task == task_id)).one_or_none()
    same = row is not None and row.body_digest == body_digest
    version = 1 if row is None else row.version + (0 if same else 1)
    wanted = _Wanted(task_id, epoch, version, body, body_digest, trust)
    if row is None or not same or row.key_id != next(iter(trust.signing_keys)):
        return None, wanted
    young = 0 <= now - row.sealed_at < MANIFEST_LIFETIME_S / 2
    return (bytes(row.envelope) if young else None), wanted


def _seal(cloud: Cloud, connection: sa.Connection, wanted: _Wanted, *, now: float) -> bytes:
    key = keys.current_signing(cloud.keys, wanted.trust)
    times = (now, now + MANIFEST_LIFETIME_S)
    envelope = seal(key, Statement("manifest", wanted.task, wanted.epoch, wanted.version, *times, wanted.body))
    row = {"task": wanted.task, "version": wanted.version, "body_digest": wanted.body_digest, "key_id": key.id}
    writes.upsert(connection, db.manifests, {**row, "sealed_at": now, "envelope": envelope})
    return envelope
