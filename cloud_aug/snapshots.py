"""A publication of one task in a folder, and the way back to it, without touching the pool: for the day when a build
turns out worse than the one before.

A snapshot is a folder: the files of the publication, and last `snapshot.json`, which says what they are and that they
are all there. It holds embeddings, contributors' names and the secrets of its packs. What was withdrawn since it was
made stays withdrawn: such packs are refused and listed, searches find no sample that the pool does not have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from cloud_aug import audit, bases, db, keys, publications, searchable, tasks, withdrawals, writes
from cloud_aug.blobs import Blobs
from cloud_aug.cloud import Cloud
from cloud_aug.folders import made_whole
from cloud_aug.publications import Publication
from edgewire.decoding import decode, encode
from edgewire.errors import Conflict, CorruptFile, NotFound
from edgewire.files import digest, digest_of_file, write_atomic
from edgewire.messages import BlobRef
from edgewire.signing import b64, unb64
from edgewire.tasks import Task

Progress = Callable[[str, int, int], None]

BLOBS, WHOLE = "blobs", "snapshot.json"
LIMIT_BYTES = 1 << 30
_TABLES = (db.bases, db.pack_secrets, db.packs, db.pack_contributors)


@dataclass(frozen=True)
class Snapshot:
    """made_at: seconds since 1970; root: digest of the cloud's first trust statement; rows: of each table, what belongs
    to the publication, bytes as base64; blobs: its files."""

    made_at: float
    root: str
    task: Task
    publication: Publication
    rows: dict[str, tuple[dict[str, Any], ...]]
    blobs: tuple[BlobRef, ...]


@dataclass(frozen=True)
class Restored:
    """changed: False if the same was published already."""

    publication: Publication
    changed: bool


def take(cloud: Cloud, task_id: str, target: Path, *, now: float, on_progress: Progress) -> Snapshot:
    """Copy the current publication into a new folder; the service may go on meanwhile. Raises Conflict if the folder
    exists or a pack of the publication was withdrawn, NotReady, Busy while an index is built."""
    building = f"building the index of task '{task_id}'"
    with made_whole(target) as part, cloud.locked(f"index-{task_id}", doing=building):
        publication = publications.require(cloud, task_id)
        with cloud.database.reading() as connection:
            task, rows = tasks.get(connection, task_id), _rows(connection, publication)
            names = _files(cloud, publication, set(publications.withdrawn_packs(connection, task_id)))
        copies, blobs = Blobs(part / BLOBS), []
        for done, name in enumerate(sorted(names)):
            on_progress("blobs", done, len(names))
            blobs.append(copies.put_file(cloud.blobs.path(name)))
        made = Snapshot(now, _root(cloud), task, publication, rows, tuple(blobs))
        write_atomic(part / WHOLE, encode(made), mode=0o600)
    return made


def restore(cloud: Cloud, source: Path, *, now: float, on_progress: Progress) -> Restored:
    """Publish what a snapshot holds, as the newest publication. Who runs a newer base by a release goes on with it.

    Raises NotFound or CorruptFile for what is no whole snapshot, Conflict for one of another cloud, of a task that has
    changed since, or with contributors or a base that the database does not know (any more), Busy.
    """
    found = _check(source, on_progress)
    if found.root != _root(cloud):
        raise Conflict("this snapshot is of another cloud", hint="restore it where it was made")
    task_id = found.publication.task
    with cloud.locked(f"index-{task_id}", doing=f"building the index of task '{task_id}'"):
        _check_task(tasks.load(cloud, task_id), found.task)
        for done, blob in enumerate(found.blobs):
            on_progress("blobs", done, len(found.blobs))
            cloud.blobs.put_file(source / BLOBS / blob.digest[:2] / blob.digest)
        with cloud.database.writing() as connection:
            before = publications.current(connection, task_id)
            if before is not None and before.content == found.publication.content:
                return Restored(before, changed=False)
            _add(connection, found)
            after = replace(found.publication, version=1 if before is None else before.version + 1)
            publications.record(connection, after, now=now)
            publications.hold_newer(connection, task_id, after.base.version)
            detail = {"version": after.version, "as_of": found.publication.version}
            audit.note(connection, at=now, actor=audit.SHELL, action="restore-index", subject=task_id, **detail)
        withdrawals.purge(cloud, task_id)  # of packs that were withdrawn since the files are not kept
    return Restored(after, changed=True)


def _files(cloud: Cloud, publication: Publication, withdrawn: set[str]) -> set[str]:
    """Every blob of a publication. Raises Conflict if one of its packs was withdrawn."""
    if withdrawn & {ref.digest for ref in publication.packs}:
        hint = f"run 'cloud-aug index build --task {publication.task}' first"
        raise Conflict("samples were withdrawn from this publication", hint=hint)
    base, layout = publication.base, publication.layout
    refs = [base.weights, base.onnx, publication.directory, publication.search, *([layout] if layout else [])]
    searched = searchable.read(cloud, publication.search.digest)[0].files
    return {ref.digest for ref in refs} | set(searched) | {ref.ciphertext or ref.digest for ref in publication.packs}


def _rows(connection: sa.Connection, publication: Publication) -> dict[str, tuple[dict[str, Any], ...]]:
    """What the database says of a publication."""
    packs = [ref.digest for ref in publication.packs]
    wanted = {
        db.bases: db.bases.c.version == publication.base.version,
        db.pack_secrets: sa.true(),
        db.packs: db.packs.c.ciphertext.in_([str(ref.ciphertext) for ref in publication.packs]),
        db.pack_contributors: db.pack_contributors.c.digest.in_(packs),
    }
    return {
        table.name: tuple(
            _plain(row) for row in connection.execute(table.select().where(table.c.task == publication.task, which))
        )
        for table, which in wanted.items()
    }


def _plain(row: sa.Row[Any]) -> dict[str, Any]:
    return {name: b64(value) if isinstance(value, bytes) else value for name, value in row._mapping.items()}


def _add(connection: sa.Connection, found: Snapshot) -> None:
    """The rows that are lacking. Raises Conflict where one cannot be added."""
    for table in _TABLES:
        binary = [column.name for column in table.columns if isinstance(column.type, sa.LargeBinary)]
        rows = [{**row, **{name: unb64(row[name]) for name in binary}} for row in found.rows[table.name]]
        try:
            with connection.begin_nested():
                writes.insert_new(connection, table, rows)
        except sa.exc.IntegrityError:
            hint = f"run 'cloud-aug index build --task {found.publication.task}' instead"
            raise Conflict("the snapshot names contributors that the pool does not know", hint=hint) from None
    record = bases.find(connection, found.publication.task, version=found.publication.base.version)
    if record is None or record.base != found.publication.base:
        raise Conflict("another base model has the number of the snapshot's", hint="build the index instead")


def _check(source: Path, on_progress: Progress) -> Snapshot:
    """Read a snapshot through."""
    try:
        found = decode(Snapshot, (source / WHOLE).read_bytes(), what="snapshot", limit_bytes=LIMIT_BYTES)
    except FileNotFoundError:
        raise NotFound(f"{source} is no whole snapshot", hint=f"it has no {WHOLE}: was it interrupted?") from None
    for done, blob in enumerate(found.blobs):
        on_progress("check", done, len(found.blobs))
        file = source / BLOBS / blob.digest[:2] / blob.digest
        if not file.is_file() or digest_of_file(file) != blob.digest:
            raise CorruptFile(f"{file} is missing or damaged", hint="take another snapshot")
    return found


def _check_task(now: Task, then: Task) -> None:
    for name in ("input", "labels", "model"):
        if getattr(now, name) != getattr(then, name):
            raise Conflict(f"the {name} of task '{now.id}' has changed since the snapshot", hint="build the index")


def _root(cloud: Cloud) -> str:
    """Which cloud this is."""
    return digest(keys.chain(cloud.database)[0])
