"""What nothing refers to any more: blobs of publications that were replaced long ago, secrets that have expired.

A blob stays while any document of a current publication or base names it, directly or within the index and layout that
it names; and for a grace period after that, because boards may be in the middle of a sync.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from cloud_aug import audit, db, packs, publications, tasks
from cloud_aug.blobs import BlobStore
from cloud_aug.cloud import Cloud
from cloud_aug.database import Database
from cloud_aug.rounds.series import UNSETTLED
from edgewire.decoding import decode, encode
from edgewire.errors import NotFound

GRACE_S = 7 * 86400.0
_DIGEST = re.compile(rb"\b[0-9a-f]{64}\b")
_NAMES_OTHERS = ("search", "layout")  # blobs of a publication that name blobs themselves


@dataclass(frozen=True)
class Collected:
    """blobs, bytes: what was removed, or would be; kept: blobs in use; waiting: unused, but not for long enough."""

    blobs: int
    bytes: int
    kept: int
    waiting: int
    secrets: int


def collect(cloud: Cloud, *, grace_s: float = GRACE_S, dry_run: bool = False, now: float) -> Collected:
    """Remove what is not needed. Raises Busy while anything is built: a build counts on what it finds."""
    with nothing_built(cloud):
        live = in_use(cloud.database, cloud.blobs, since=now - grace_s)
        blobs = [blob for blob in cloud.blobs.stored() if _DIGEST.fullmatch(blob.digest.encode())]
        unused = [blob for blob in blobs if blob.digest not in live]
        old = [blob for blob in unused if blob.at < now - grace_s]
        if not dry_run:
            for blob in old:
                cloud.blobs.remove(blob.digest)
            cloud.blobs.sweep(now=now)
            _forget_killed_builds(cloud)
        kept = {blob.digest for blob in blobs} - {blob.digest for blob in old}
        secrets = _forget_secrets(cloud, kept, len(old), now=now) if not dry_run else 0
    size = sum(blob.size for blob in old)
    return Collected(len(old), size, len(blobs) - len(unused), len(unused) - len(old), secrets)


@contextlib.contextmanager
def nothing_built(cloud: Cloud) -> Iterator[None]:
    """Keep builds and trainings of every task away while the block runs. Raises Busy."""
    with cloud.database.reading() as connection:
        known = tasks.ids(connection)
    names = [f"{work}-{task}" for task in known for work in ("index", "base")]
    with cloud.locked(*names, doing="building an index, training a base or clearing away"):
        yield


def in_use(database: Database, blobs: BlobStore, *, since: float) -> set[str]:
    """Digests that documents name which are current, or were at any time since then; not all of them are blobs'."""
    documents = [*_documents(database, db.publications, since), *_documents(database, db.bases, since)]
    documents += _released(database)
    found = {digest for document in documents for digest in _digests(document)}
    for document in documents:
        named = decode(dict[str, Any], document, what="publication", limit_bytes=len(document))
        for ref in (named[field] for field in _NAMES_OTHERS if named.get(field)):
            with contextlib.suppress(NotFound):  # an index that a newer one replaced
                found |= _digests(blobs.read(ref["digest"]))
    found |= _of_rounds(database)
    with database.reading() as connection:  # named by documents, but stored under another name
        return found - packs.encrypted(connection)


def _of_rounds(database: Database) -> set[str]:
    """Every model that a series made or started from, and single updates as long as their plan wants them."""
    rounds, updates = db.rounds.c, db.updates.c
    queries = [
        sa.select(rounds.server),
        sa.select(rounds.order_blob),
        sa.select(rounds.short_blob).where(rounds.short_blob.is_not(None)),
        sa.select(rounds.result).where(rounds.result.is_not(None)),
        sa.select(updates.digest).where(updates.kept),
        sa.select(db.touched.c.blob).where(~db.touched.c.series.in_(_finished())),
        *_own_orders(),
    ]
    with database.reading() as connection:
        found = {str(digest) for query in queries for digest in connection.execute(query).scalars()}
        for document in connection.execute(sa.select(db.series.c.document)).scalars():
            found |= _digests(bytes(document))  # its base, and what it starts from
    return found


def _own_orders() -> list[sa.Select[tuple[str]]]:
    """Orders made for one board: while its round is open, and as long as its update is kept; the rows that they have:
    as long as anything is counted by them, too, which ends with the series."""
    rounds, updates, asked = db.rounds.c, db.updates.c, db.invitations.c
    mine = sa.and_(rounds.series == asked.series, rounds.number == asked.number)
    answer = sa.and_(updates.series == asked.series, updates.number == asked.number, updates.board == asked.board)
    both = sa.join(db.invitations, db.rounds, mine).outerjoin(db.updates, answer)
    needed = sa.or_(rounds.state.in_(UNSETTLED), updates.kept)
    counted = sa.and_(updates.counted_in.is_not(None), ~asked.series.in_(_finished()))
    return [
        sa.select(asked.own_blob).select_from(both).where(asked.own_blob.is_not(None), needed),
        sa.select(asked.rows_blob).select_from(both).where(asked.rows_blob.is_not(None), sa.or_(needed, counted)),
    ]


def _finished() -> sa.Select[tuple[str]]:
    """Series that nothing is counted in any more."""
    return sa.select(db.series.c.id).where(db.series.c.state == "finished")


def _documents(database: Database, table: sa.Table, since: float) -> list[bytes]:
    """Of each task the newest, and those that were replaced after that moment."""
    at = table.c.published_at if table is db.publications else table.c.trained_at
    query = sa.select(table.c.task, table.c.document, at).order_by(table.c.task, table.c.version.desc())
    found: list[bytes] = []
    newer: dict[str, float] = {}  # when the document that replaced the next one came
    with database.reading() as connection:
        for task, document, came in connection.execute(query):
            if newer.get(task, float("inf")) > since:
                found.append(bytes(document))
            newer[task] = came
    return found


def _released(database: Database) -> list[bytes]:
    """The publications that boards may be at, or be sent back to, though they are not the newest, and the releases that
    brought them."""
    found: list[bytes] = []
    with database.reading() as connection:
        for task in tasks.ids(connection):
            found += [encode(one) for one in publications.kept(connection, task)]
        called_back = db.releases.c.state.in_(("failed", "aborted"))
        query = sa.select(db.releases.c.document).where(sa.not_(called_back))
        found += [bytes(document) for document in connection.execute(query).scalars()]
    return found


def _digests(raw: bytes) -> set[str]:
    return {digest.decode() for digest in _DIGEST.findall(raw)}


def _forget_killed_builds(cloud: Cloud) -> None:
    """Embeddings that a build had no time to remove: nobody builds now."""
    with cloud.database.reading() as connection:
        known = tasks.ids(connection)
    for task in known:
        cloud.work(f"index-{task}").clear()


def _forget_secrets(cloud: Cloud, kept: set[str], blobs: int, *, now: float) -> int:
    """Tokens and nonces of boards that did not come back to clear away their own; secrets that open no pack; and what
    boards told for rounds that are over."""
    with cloud.database.writing() as connection:
        count = packs.forget(connection, kept)
        connection.execute(db.touched.delete().where(db.touched.c.series.in_(_finished())))
        for table in (db.access_tokens, db.nonces):
            count += connection.execute(table.delete().where(table.c.expires_at < now - 3600.0)).rowcount
        if blobs or count:
            audit.note(connection, at=now, actor=audit.SHELL, action="gc", subject="", blobs=blobs, secrets=count)
    return count
