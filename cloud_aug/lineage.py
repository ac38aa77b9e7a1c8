"""From a pool to the boards: the bases of a task, what was published on each, and how many boards run it."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from cloud_aug import db
from cloud_aug.bases import BaseRecord
from cloud_aug.cloud import Cloud
from cloud_aug.publications import Publication
from edgewire.decoding import decode
from edgewire.messages import DIRECTORY_LIMIT_BYTES

BASES, PUBLICATIONS = 20, 60


@dataclass(frozen=True)
class Published:
    """at: seconds since 1970."""

    publication: Publication
    at: float

    @property
    def pack_bytes(self) -> int:
        return sum(pack.size for pack in self.publication.packs)


@dataclass(frozen=True)
class Generation:
    """A base with what was made of it, the newest first. boards: how many reported last with it; at: seconds since
    1970."""

    record: BaseRecord
    at: float
    published: tuple[Published, ...]
    boards: int


def of_task(cloud: Cloud, task: str, *, limit: int = BASES) -> list[Generation]:
    """The newest bases of a task, the newest first."""
    column = db.bases.c
    query = sa.select(column.document, column.trained_at).where(column.task == task)
    with cloud.database.reading() as connection:
        rows = connection.execute(query.order_by(column.version.desc()).limit(limit)).all()
        bases = [(decode(BaseRecord, bytes(row.document), what="base"), row.trained_at) for row in rows]
        published = _published(connection, task)
        boards = _boards(connection, [record.base.onnx.digest for record, _ in bases])
    return [
        Generation(record, at, tuple(made for made in published if made.publication.base == record.base),
                   boards.get(record.base.onnx.digest, 0))
        for record, at in bases
    ]  # fmt: skip


def directories(cloud: Cloud, task: str) -> set[str]:
    """Digests of every directory that was ever published for a task."""
    column = db.publications.c
    with cloud.database.reading() as connection:
        return set(connection.execute(sa.select(column.directory).distinct().where(column.task == task)).scalars())


def _published(connection: sa.Connection, task: str) -> list[Published]:
    column = db.publications.c
    query = sa.select(column.document, column.published_at).where(column.task == task)
    rows = connection.execute(query.order_by(column.version.desc()).limit(PUBLICATIONS))
    return [
        Published(
            decode(Publication, bytes(row.document), what="publication", limit_bytes=DIRECTORY_LIMIT_BYTES),
            row.published_at,
        )
        for row in rows
    ]


def _boards(connection: sa.Connection, bases: list[str]) -> dict[str, int]:
    column = db.board_states.c
    query = sa.select(column.base, sa.func.count()).where(column.base.in_(bases)).group_by(column.base)
    return {str(row[0]): int(row[1]) for row in connection.execute(query)}
