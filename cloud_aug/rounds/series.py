"""Make, start, stop and resume a series of rounds."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import sqlalchemy as sa

from cloud_aug import audit, bases, db, publications, tasks, writes
from cloud_aug.cloud import Cloud
from cloud_aug.rounds import judging, orders, pacing
from cloud_aug.rounds.orders import Ordered
from cloud_aug.rounds.plan import Peer, Plan, Series, submodels
from edgelearn.federated.algorithm import Server
from edgelearn.federated.catalogue import ALGORITHMS
from edgewire.decoding import decode, encode
from edgewire.errors import Conflict, NotFound, NotReady, Refused, UsageError
from edgewire.messages import WEIGHTS_LIMIT_BYTES, Base, BlobRef
from edgewire.rounds import UPDATE_LIMIT_BYTES, Parts, pack_order, unpack_order
from edgewire.tasks import Task

AT_ONCE_LIMIT_BYTES = 2 << 30  # of a round's updates, where the algorithm wants to see all of them together
UNSETTLED = ("gathering", "open", "closing")  # states of a round that goes on; a running series always has one such


def create(cloud: Cloud, task_id: str, plan: Plan, *, now: float) -> Series:
    """A series that starts from the published base. It invites nobody before `start`.

    Raises UsageError for a plan that cannot be, NotReady without a published base (or, where two models learn, without
    samples in the pool), Refused where the task's policy does not allow rounds, NotFound.
    """
    if problems := plan.problems():
        raise UsageError("; ".join(problems))
    task = tasks.load(cloud, task_id)
    check_allowed(task, rows=submodels(plan))
    base = publications.require(cloud, task_id).base
    with cloud.database.reading() as connection:
        boards = len(entitled(connection, task_id))
    if boards < plan.quorum:
        hint = "enroll more boards, grant them the task, or lower --quorum"
        raise UsageError(f"{boards} boards may take part, the quorum is {plan.quorum}", hint=hint)
    peer = _peer(cloud, task, plan.peer) if plan.peer else None
    made = Series(secrets.token_hex(8), task_id, plan, base, boards, "", peer=peer)
    shared = _shared(cloud, task, base)
    if submodels(plan):
        made = replace(made, tables=_tables(task, shared))
    server = _begun(cloud, made, shared)
    if (size := orders.keep(cloud, made, server, None).order.size) > UPDATE_LIMIT_BYTES:
        most = UPDATE_LIMIT_BYTES >> 20
        raise UsageError(f"boards would send {size >> 20} MiB, the limit is {most}", hint="train a smaller model")
    if ALGORITHMS[plan.algorithm].at_once and plan.cohort * size > AT_ONCE_LIMIT_BYTES:
        most = AT_ONCE_LIMIT_BYTES // size
        why = f"'{plan.algorithm}' holds all updates of a round in memory: {plan.cohort * size >> 20} MiB"
        raise UsageError(f"{why}, the limit is {AT_ONCE_LIMIT_BYTES >> 20}", hint=f"a cohort of {most} would do")
    made = replace(made, start=keep_server(cloud, made, server).digest)
    with cloud.database.writing() as connection:
        row = {"id": made.id, "task": task_id, "document": encode(made), "state": "created", "reason": ""}
        connection.execute(db.series.insert().values(**row, created_at=now, changed_at=now))
        _note(connection, made, "create-rounds", now=now)
    return made


def check_allowed(task: Task, *, rows: bool = False) -> None:
    """Raises Refused unless the task's published policy says that boards may be asked for updates, and for rows."""
    if task.privacy.rounds is not True:
        hint = 'set "rounds": true in its privacy policy and publish it again: boards check that it is signed'
        raise Refused(f"task '{task.id}' does not allow federated rounds", hint=hint)
    if rows and task.privacy.rows is not True:
        hint = 'set "rows": true in its privacy policy, too: boards then tell which items they have samples of'
        raise Refused(f"task '{task.id}' does not allow asking boards for their rows", hint=hint)


def start(cloud: Cloud, series: str, *, now: float) -> bool:
    """Let it invite boards; whether it did not before. Raises Conflict while another series of the task runs."""
    return _run(cloud, series, ("created",), "start-rounds", now=now)


def resume(cloud: Cloud, series: str, *, now: float) -> bool:
    """Go on after `stop`, or after too many failed rounds. A round that was open stays so, with its whole time."""
    return _run(cloud, series, ("stopped", "failed"), "resume-rounds", now=now)


def stop(cloud: Cloud, series: str, *, now: float) -> bool:
    """Invite nobody and close nothing until `resume`; whether it ran. What boards still send is kept, and counts."""
    with cloud.database.writing() as connection:
        row = find(connection, series)
        if row.state == "stopped":
            return False
        if row.state != "running":
            raise Conflict(f"series {series} is {row.state}", hint="only one that runs can be stopped")
        set_state(connection, series, "stopped", "by the administrator", now=now)
        _note(connection, read(row), "stop-rounds", now=now)
    return True


def _run(cloud: Cloud, series_id: str, states: Sequence[str], action: str, *, now: float) -> bool:
    with cloud.database.reading() as connection:
        made = read(find(connection, series_id))
        last, server = last_round(connection, made.id), last_server(connection, made)
    order = orders.keep(cloud, made, load_server(cloud, server, 0), None) if last is None else orders.of_row(last)
    with cloud.database.writing() as connection:
        row = find(connection, series_id)
        if row.state == "running":
            return False
        if row.state not in states:
            hint = (
                "see 'cloud-aug round status'" if row.state == "finished" else "start a new one, resume a stopped one"
            )
            raise Conflict(f"series {series_id} is {row.state}", hint=hint)
        _check_alone(connection, made)
        set_state(connection, series_id, "running", "", now=now)
        begin_or_extend(connection, made, server, order, now=now)
        _note(connection, made, action, now=now)
    return True


def _check_alone(connection: sa.Connection, made: Series) -> None:
    column = db.series.c
    query = sa.select(column.id).where(column.task == made.task, column.state == "running")
    if other := connection.execute(query).scalar():
        raise Conflict(f"series {other} of task '{made.task}' runs already", hint=f"cloud-aug round stop {other}")


def begin_or_extend(connection: sa.Connection, made: Series, server: str, order: Ordered, *, now: float) -> None:
    """The round that a running series needs: what was open has its whole time again, else the next begins, with the
    weights of the last one, which has failed."""
    last = last_round(connection, made.id)
    if last is None or last.state not in UNSETTLED:
        begin(connection, made, last, server, order, now=now)
        return
    span_s = made.plan.gather_s if last.state == "gathering" else made.plan.deadline_s
    this = db.rounds.update().where(db.rounds.c.series == made.id, db.rounds.c.number == last.number)
    connection.execute(this.values(deadline_at=now + span_s))


def begin(
    connection: sa.Connection, made: Series, before: sa.Row[Any] | None, server: str, order: Ordered, *, now: float
) -> None:
    """Open the round after `before`. Whoever takes updates from anybody need not gather boards."""
    number, buffered_before = (1, False) if before is None else (before.number + 1, before.buffered)
    forecast = pacing.forecast(connection, made, order.likely_bytes, now=now)
    buffered = forecast.buffers(before=buffered_before)
    if buffered_before and not buffered:
        drop_waiting(connection, made.id, "changed over")
    state, span_s = ("open", made.plan.deadline_s) if buffered else ("gathering", made.plan.gather_s)
    row = {"series": made.id, "number": number, "state": state, "reason": "", "server": server, "buffered": buffered}
    row |= {"order_blob": order.order.digest, "order_bytes": order.order.size, "entropy": secrets.token_bytes(16)}
    if order.short:
        row |= {"short_blob": order.short.digest, "short_bytes": order.short.size}
    row |= {"within_s": forecast.within_s(forecast.held) if buffered else None}
    connection.execute(db.rounds.insert().values(**row, begun_at=now, deadline_at=now + span_s))
    blobs = [order.order, *([order.short] if order.short else [])]
    writes.insert_new(connection, db.published_blobs, [{"digest": blob.digest, "task": made.task} for blob in blobs])


def draw_noise_anew(connection: sa.Connection) -> None:
    """Of rounds that go on. After a restore they may have been counted before: two results with the same noise differ
    by nothing but what boards sent."""
    column = db.rounds.c
    going = sa.select(column.series, column.number).where(column.state.in_(UNSETTLED))
    for series, number in connection.execute(going).all():
        this = db.rounds.update().where(column.series == series, column.number == number)
        connection.execute(this.values(entropy=secrets.token_bytes(16)))


def drop_waiting(connection: sa.Connection, series: str, why: str) -> None:
    """Updates that wait for a round that will not come never count."""
    column = db.updates.c
    waiting = db.updates.update().where(column.series == series, column.dropped == "", column.counted_in.is_(None))
    connection.execute(waiting.values(dropped=why))


# What the tables say


def find(connection: sa.Connection, series: str) -> sa.Row[Any]:
    """Raises NotFound."""
    row = connection.execute(sa.select(db.series).where(db.series.c.id == series)).one_or_none()
    if row is None:
        raise NotFound(f"there is no series '{series}'", hint="see 'cloud-aug round status'")
    return row


def read(row: sa.Row[Any]) -> Series:
    return decode(Series, bytes(row.document), what="series")


def running(connection: sa.Connection, task: str | None = None) -> list[Series]:
    """The series that run, of one task or of all."""
    query = sa.select(db.series).where(db.series.c.state == "running").order_by(db.series.c.id)
    if task is not None:
        query = query.where(db.series.c.task == task)
    return [read(row) for row in connection.execute(query)]


def set_state(connection: sa.Connection, series: str, state: str, reason: str, *, now: float) -> None:
    this = db.series.update().where(db.series.c.id == series)
    connection.execute(this.values(state=state, reason=reason, changed_at=now))


def last_round(connection: sa.Connection, series: str) -> sa.Row[Any] | None:
    query = sa.select(db.rounds).where(db.rounds.c.series == series).order_by(db.rounds.c.number.desc()).limit(1)
    return connection.execute(query).one_or_none()


def oldest(connection: sa.Connection, series: str, steps: int) -> int:
    """The earliest round since whose beginning no more than so many were closed. One that failed made no step."""
    column = db.rounds.c
    closed = sa.select(column.number).where(column.series == series, column.state == "closed")
    last_too_old = closed.order_by(column.number.desc()).offset(steps).limit(1)
    return int(connection.execute(last_too_old).scalar() or 0) + 1


def last_server(connection: sa.Connection, made: Series) -> str:
    """Digest of the newest weights and state."""
    last = last_round(connection, made.id)
    return made.start if last is None else str(last.result or last.server)


def entitled(connection: sa.Connection, task: str) -> list[str]:
    """Boards that may take part: granted the task, and not revoked. Sorted."""
    boards, grants = db.boards.c, db.grants.c
    query = sa.select(boards.id).join_from(db.boards, db.grants).where(grants.task == task, boards.revoked_at.is_(None))
    return sorted(connection.execute(query).scalars())


# Weights and states


def keep_server(cloud: Cloud, made: Series, server: Server) -> BlobRef:
    """Put weights and state on disk."""
    return cloud.blobs.put(pack_order(Parts(server.weights, server.state), made.task))


def load_server(cloud: Cloud, blob: str, rounds_over: int) -> Server:
    """Raises CorruptFile, NotFound."""
    parts = unpack_order(cloud.blobs.read(blob), limit_bytes=2 * WEIGHTS_LIMIT_BYTES)
    return Server(rounds_over, parts.main, parts.extra)


def _shared(cloud: Cloud, task: Task, base: Base) -> dict[str, np.ndarray]:
    """What boards train together: the base's parameters."""
    from edgelearn.learner import shared_weights  # only now: it imports torch

    arrays = bases.arrays(cloud, base)
    try:
        return shared_weights(task, arrays)
    except ValueError as error:
        raise NotReady(f"the base of '{task.id}' does not fit its model: {error}", hint="train a new base") from None


def _begun(cloud: Cloud, made: Series, shared: dict[str, np.ndarray]) -> Server:
    try:
        return orders.begun(made, shared, judging.classroom(cloud, made))
    except ValueError as error:  # what two models learn on is missing
        raise NotReady(str(error), hint="cloud-aug pool ingest, or accept what waits: cloud-aug pool accept") from None


def _peer(cloud: Cloud, task: Task, other: str) -> Peer:
    """The published base that learns with this task's. Raises UsageError for a task of other samples, NotFound,
    NotReady."""
    peer = tasks.load(cloud, other)
    if other == task.id or (peer.input, peer.labels) != (task.input, task.labels):
        hint = "name another task with the same input and labels, and a model of its own"
        raise UsageError(f"the base of '{other}' cannot learn with that of '{task.id}'", hint=hint)
    return Peer(other, publications.require(cloud, other).base)


def _tables(task: Task, shared: dict[str, np.ndarray]) -> dict[str, int]:
    """How many rows each table has. Raises UsageError for a model without tables."""
    from edgelearn.models.build import build, tables

    found = {name: len(shared[name]) for name in tables(build(task))}
    if not found:
        hint = "take fedavg: submodels are for click models (din, dssm, wide_deep)"
        raise UsageError(f"the model '{task.model.name}' has no tables to send parts of", hint=hint)
    return found


def _note(connection: sa.Connection, made: Series, action: str, *, now: float) -> None:
    audit.note(connection, at=now, actor=audit.SHELL, action=action, subject=made.id, task=made.task)
