"""The base models that were trained, as rows. Apart from the training, so that a server serves them without torch."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from cloud_aug import db
from cloud_aug.cloud import Cloud
from edgewire import tensors
from edgewire.decoding import decode
from edgewire.errors import CorruptFile, NotReady
from edgewire.files import digest
from edgewire.messages import WEIGHTS_LIMIT_BYTES, Base, RecipeFigure
from edgewire.tensors import Arrays


@dataclass(frozen=True)
class BaseRecord:
    """A trained base with what the rehearsal found. made_from: digest of everything that went in."""

    task: str
    base: Base
    made_from: str
    seed: int
    epochs: int
    samples: int
    contributors: int
    figures: tuple[RecipeFigure, ...]


def find(connection: sa.Connection, task: str, *, version: int | None = None) -> BaseRecord | None:
    """The newest base of a task, or that of a version."""
    column = db.bases.c
    query = sa.select(column.document).where(column.task == task).order_by(column.version.desc()).limit(1)
    document = connection.execute(query if version is None else query.where(column.version == version)).scalar()
    return None if document is None else decode(BaseRecord, bytes(document), what="base")


def arrays(cloud: Cloud, base: Base) -> Arrays:
    """All weights of a base, by name. Raises CorruptFile, NotFound."""
    raw = cloud.blobs.read(base.weights.digest)
    if digest(raw) != base.weights.digest:
        raise CorruptFile("the base's weights do not match their name", hint="see 'cloud-aug doctor --deep'")
    return tensors.unpack(raw, what="base weights", limit_bytes=WEIGHTS_LIMIT_BYTES)[0]


def newest(cloud: Cloud, task: str) -> BaseRecord:
    """The newest base of a task. Raises NotReady."""
    with cloud.database.reading() as connection:
        found = find(connection, task)
    if found is None:
        raise NotReady(f"task '{task}' has no base model", hint=f"run 'cloud-aug base train --task {task}'")
    return found
