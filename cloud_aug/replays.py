"""How much of what exact search would find does the index find? Kept per publication, of queries that boards sent.

A replay looks into every list of the index. What the coding of vectors itself loses is not in this figure: the build
measures that, against the vectors as they were (`cloud-aug index show`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa

from cloud_aug import db, writes
from cloud_aug.cloud import Cloud
from cloud_aug.publications import Publication
from cloud_aug.vectors import SearchIndex


@dataclass(frozen=True)
class Recall:
    """queries: replayed for this publication; recall_at_100: share of the nearest 100 found, None before the first."""

    task: str
    version: int
    queries: int
    recall_at_100: float | None


def record(cloud: Cloud, publication: Publication, index: SearchIndex, styles: np.ndarray, k: int) -> None:
    """Search for these unit residuals, float32 (n, dim), both ways, and add the outcome to the figure."""
    _, found = index.search(styles, k)
    _, exact = index.search(styles, k, exhaustive=True)
    pairs = list(zip(found.reshape(-1, k), exact.reshape(-1, k), strict=True))
    wanted = sum(int((there >= 0).sum()) for _, there in pairs)
    hits = sum(len(np.intersect1d(here[here >= 0], there)) for here, there in pairs)
    column = db.replays.c
    key = {"task": publication.task, "version": publication.version}
    with cloud.database.writing() as connection:
        writes.insert_new(connection, db.replays, [{**key, "queries": 0, "wanted": 0, "found": 0}])
        this = db.replays.update().where(column.task == publication.task, column.version == publication.version)
        more = {"queries": column.queries + len(styles), "wanted": column.wanted + wanted, "found": column.found + hits}
        connection.execute(this.values(**more))


def recall(cloud: Cloud, publication: Publication) -> Recall:
    """The live figure of a publication."""
    column = db.replays.c
    query = sa.select(db.replays).where(column.task == publication.task, column.version == publication.version)
    with cloud.database.reading() as connection:
        row = connection.execute(query).one_or_none()
    if row is None or row.wanted == 0:
        return Recall(publication.task, publication.version, 0, None)
    return Recall(publication.task, publication.version, row.queries, row.found / row.wanted)
