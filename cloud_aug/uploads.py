"""What boards send up: samples, by consent, into quarantine; and reports. Sent twice under one id, it counts once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import sqlalchemy as sa

from cloud_aug import audit, batches, db, pool, standing, tasks, writes
from cloud_aug.cloud import Cloud
from cloud_aug.pool import Consent
from edgewire.decoding import decode, encode
from edgewire.errors import Conflict, Gone, InvalidMessage, InvalidSamples, Refused, TooLarge
from edgewire.files import digest
from edgewire.messages import SAMPLES_LIMIT_BYTES, Report, UploadReply
from edgewire.samples import from_bytes
from edgewire.tasks import Task


def contribute(
    cloud: Cloud, board: str, task_id: str, upload_id: str, body: bytes, consent: Consent, *, now: float
) -> UploadReply:
    """Put a board's samples into quarantine; they are on disk when this returns.

    Raises InvalidMessage or InvalidSamples, UsageError for a consent that cannot be, Gone for one given before the
    board's last withdrawal, TooLarge when its share of the quarantine or pool is full, Conflict if the id was used for
    something else.
    """
    pool.check_consent(consent, now=now)
    task = tasks.load(cloud, task_id)
    most = cloud.settings.limits.quarantined_samples_per_board
    samples = from_bytes(body, task, what="contribution", limit_bytes=SAMPLES_LIMIT_BYTES, limit_rows=most)
    if len(samples) == 0:
        raise InvalidSamples("the contribution holds no samples")
    offered = batches.offer(replace(samples, user=np.full(len(samples), board)))

    def store(connection: sa.Connection) -> int:
        _check_share(connection, cloud, board, len(samples))
        taken = pool.take_in(connection, cloud, task, offered, consent, status="quarantine", now=now)
        if taken.withdrawn:
            hint = "consent anew: 'edgectl data withdraw', then 'data share'"
            raise Gone("these samples were withdrawn after that consent", hint=hint)
        if taken.added.over_quota:
            raise TooLarge("this board has as many samples in the pool as it may", hint="withdraw some, or share fewer")
        new = taken.added.accepted
        detail = {"task": task.id, "samples": new, "until": consent.until}
        audit.note(connection, at=now, actor=board, action="contribute", subject=upload_id, **detail)
        return new

    seen = f"{consent.purpose} {consent.until}\n".encode() + body  # not `after`: sent again, it may know of more
    return _once(cloud, board, task, upload_id, "samples", digest(seen), len(samples), store, now=now)


def report(cloud: Cloud, board: str, task_id: str, upload_id: str, body: bytes, *, now: float) -> UploadReply:
    """Keep a board's report. Raises InvalidMessage, Conflict, TooLarge, or Refused if the task takes none."""
    task = tasks.load(cloud, task_id)
    told = decode(Report, body, what="report")
    if (told.task, told.upload_id) != (task_id, upload_id):
        raise InvalidMessage("the report is for another task or upload than its address")
    if not task.privacy.reports:
        raise Refused(f"task '{task_id}' takes no reports")

    def store(connection: sa.Connection) -> int:
        sent = sa.select(sa.func.count()).select_from(db.reports).where(db.reports.c.board == board)
        if connection.execute(sent).scalar_one() >= cloud.settings.limits.reports_per_board:
            raise TooLarge("this board has sent as many reports as it may", hint="ask the administrator")
        standing.reported(connection, board, told, now=now)
        row = {"board": board, "upload_id": upload_id, "task": task_id, "document": encode(told)}
        return writes.insert_new(connection, db.reports, [row])

    return _once(cloud, board, task, upload_id, "report", digest(encode(told)), 1, store, now=now)


def _once(
    cloud: Cloud,
    board: str,
    task: Task,
    upload_id: str,
    kind: str,
    content: str,
    items: int,
    store: Callable[[sa.Connection], int],
    *,
    now: float,
) -> UploadReply:
    """Store an upload unless it was stored before; then give the answer of that time. One transaction."""
    column = db.uploads.c
    query = sa.select(db.uploads).where(column.board == board, column.upload_id == upload_id)
    with cloud.database.writing(board) as connection:
        known = connection.execute(query).one_or_none()
        if known is not None:
            if (known.task, known.kind, known.digest) != (task.id, kind, content):
                raise Conflict(f"upload {upload_id} was something else", hint="make a new id for new content")
            return UploadReply(known.accepted, known.items - known.accepted)
        row = {"board": board, "upload_id": upload_id, "task": task.id, "kind": kind, "digest": content}
        connection.execute(db.uploads.insert().values({**row, "items": items, "accepted": 0, "received_at": now}))
        accepted = store(connection)
        this = db.uploads.update().where(column.board == board, column.upload_id == upload_id)
        connection.execute(this.values(accepted=accepted))
    return UploadReply(accepted, items - accepted)


def _check_share(connection: sa.Connection, cloud: Cloud, board: str, more: int) -> None:
    limit = cloud.settings.limits.quarantined_samples_per_board
    column = db.batches.c
    waiting = sa.select(sa.func.coalesce(sa.func.sum(column.rows), 0))
    mine = waiting.where(column.contributor == board, column.status == "quarantine")
    if connection.execute(mine).scalar_one() + more > limit:
        raise TooLarge(
            f"this board would have more than {limit} samples in quarantine",
            hint="wait until the administrator has looked at them",
        )
