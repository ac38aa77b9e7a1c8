"""What is published for a task, and the signed manifest that names it. A publication is one row: there or not."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from cloud_aug import db, keys, tasks
from cloud_aug.cloud import Cloud
from edgewire.decoding import decode, encode, plain
from edgewire.errors import NotReady
from edgewire.files import digest
from edgewire.messages import Base, BlobRef, Manifest, PackRef
from edgewire.signing import Statement, seal

MANIFEST_LIFETIME_S = 30 * 86400.0
RETRY_S = 60.0


@dataclass(frozen=True)
class Publication:
    """Everything that one index build made. search: the index for mode 'embedding', never handed out."""

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

    @property
    def content(self) -> tuple[str, ...]:
        """Equal for publications that differ only in their version."""
        return (self.base.onnx.digest, self.base.weights.digest, self.directory.digest, self.search.digest)


def current(connection: sa.Connection, task: str) -> Publication | None:
    """The newest publication of a task."""
    column = db.publications.c
    query = sa.select(column.document).where(column.task == task).order_by(column.version.desc()).limit(1)
    document = connection.execute(query).scalar()
    return None if document is None else decode(Publication, bytes(document), what="publication")


def require(cloud: Cloud, task: str) -> Publication:
    """The newest publication of a task. Raises NotReady."""
    with cloud.database.reading() as connection:
        found = current(connection, task)
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
    digests = sorted({ref.digest for ref in blobs} | {ref.digest for ref in publication.packs})
    db.insert_new(connection, db.published_blobs, [{"digest": d, "task": publication.task} for d in digests])


def tasks_of_blob(cloud: Cloud, blob: str) -> set[str]:
    """The tasks that a blob was published for; empty for what is no board's business."""
    query = sa.select(db.published_blobs.c.task).where(db.published_blobs.c.digest == blob)
    with cloud.database.reading() as connection:
        return set(connection.execute(query).scalars())


def manifest(cloud: Cloud, task_id: str, *, now: float) -> bytes:
    """The sealed manifest: the stored one while it is true and young, else a new one. Raises NotReady or NotFound."""
    publication, epoch = require(cloud, task_id), cloud.epoch()
    with cloud.database.reading() as connection:
        task, trust = tasks.get(connection, task_id), keys.newest(connection)
        stored = connection.execute(sa.select(db.manifests).where(db.manifests.c.task == task_id)).one_or_none()
    body = plain(Manifest(task, publication.base, publication.directory, trust.version))
    body_digest = digest(encode([epoch, body]))
    key_id = next(iter(trust.signing_keys))
    same = stored is not None and stored.body_digest == body_digest
    if (
        stored is not None
        and same
        and stored.key_id == key_id
        and 0 <= now - stored.sealed_at < MANIFEST_LIFETIME_S / 2
    ):
        return bytes(stored.envelope)
    version = 1 if stored is None else stored.version + (0 if same else 1)
    key = keys.current_signing(cloud.keys, trust)
    envelope = seal(key, Statement("manifest", task_id, epoch, version, now, now + MANIFEST_LIFETIME_S, body))
    row = {"task": task_id, "version": version, "body_digest": body_digest, "key_id": key_id}
    with cloud.database.writing() as connection:
        db.upsert(connection, db.manifests, {**row, "sealed_at": now, "envelope": envelope})
    return envelope
