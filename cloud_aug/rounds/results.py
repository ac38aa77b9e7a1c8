"""What a series made: the model of any round, or of any board in it; and how one becomes the task's base."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np
import sqlalchemy as sa

from cloud_aug import audit, bases, boards, db, tasks
from cloud_aug.bases import BaseRecord
from cloud_aug.cloud import Cloud
from cloud_aug.rounds import orders, receiving
from cloud_aug.rounds import series as all_series
from cloud_aug.rounds.plan import Series
from cloud_aug.rounds.status import scores_of
from edgelearn.federated.arrays import plus
from edgelearn.federated.catalogue import ALGORITHMS
from edgelearn.federated.fedlaavg import FedLaAvg
from edgelearn.federated.mutual import large_of
from edgewire import tensors
from edgewire.decoding import encode
from edgewire.errors import Gone, NotFound, NotReady, UsageError
from edgewire.files import digest
from edgewire.messages import WEIGHTS_LIMIT_BYTES, Base


@dataclass(frozen=True)
class Model:
    """number: of the round that made it; task, base: whose it is and what it began as; weights: all of that base's, as
    safetensors (weights/1)."""

    series: str
    number: int
    task: str
    base: Base
    weights: bytes


@dataclass(frozen=True)
class Published:
    """changed: False if the task's newest base is this model already."""

    record: BaseRecord
    number: int
    changed: bool


def fetch(cloud: Cloud, series: str, which: str, *, peer: bool = False) -> Model:
    """The model that a round made. which: 'last', 'best' (by the boards' own score) or a number; peer: the model that
    learned with it, instead.

    Raises NotFound, NotReady where no round was closed yet, UsageError.
    """
    with cloud.database.reading() as connection:
        made = all_series.read(all_series.find(connection, series))
        number = number_of(connection, made, which)
        column = db.rounds.c
        found = sa.select(column.result).where(column.series == made.id, column.number == number)
        result = connection.execute(found).scalar()
    if result is None:
        raise NotFound(f"round {number} made no model", hint=f"see 'cloud-aug round status {series}'")
    server = all_series.load_server(cloud, result, number)
    if not peer:
        return _model(cloud, made, number, made.task, made.base, server.weights)
    if made.peer is None:
        raise UsageError(f"no other model learned with that of series {series}", hint="leave out --peer")
    return _model(cloud, made, number, made.peer.task, made.peer.base, large_of(server))


def fetch_of_board(cloud: Cloud, series: str, which: str, board: str) -> Model:
    """The model of one board: what it started from, and its update. Raises NotFound, Gone where it is not kept,
    UsageError where boards send nothing that a model can be made of."""
    with cloud.database.reading() as connection:
        made = all_series.read(all_series.find(connection, series))
        if ALGORITHMS[made.plan.algorithm] is FedLaAvg:
            hint = "without --board the model of the round is fetched"
            raise UsageError("with 'fedlaavg' boards send how their gradients changed: no model of theirs", hint=hint)
        identity, number = boards.find(connection, board), number_of(connection, made, which)
        column = db.updates.c
        mine = receiving.with_orders().where(
            column.series == made.id, column.number == number, column.board == identity
        )
        row = connection.execute(mine).one_or_none()
    if row is None:
        raise NotFound(f"board '{board}' sent no update in round {number}")
    if not row.kept:
        hint = "a plan's kept_updates says for how many rounds they are kept"
        raise Gone(f"the updates of round {number} are not kept any more", hint=hint)
    came, update = orders.load(cloud, row.order_blob), receiving.read(cloud, made, row)
    for name, rows in update.rows.items():  # a part of the tables is all that it had
        whole = np.zeros_like(came[name])
        whole[rows] = update.delta[name]
        update.delta[name] = whole
    return _model(cloud, made, number, made.task, made.base, plus(came, update.delta))


def publish(cloud: Cloud, series: str, which: str, *, peer: bool = False, now: float) -> Published:
    """Make the model of a round its task's newest base; `index build` hands it out. peer: the model that learned with
    it. The rehearsal's figures are those of the base that the series started from."""
    from edgelearn.export import patch_onnx  # only now: it imports torch

    model = fetch(cloud, series, which, peer=peer)
    with cloud.locked(f"base-{model.task}", doing=f"training the base of task '{model.task}'"):
        made_from = digest(encode(["rounds", model.series, model.number, digest(model.weights)]))
        newest, origin = bases.newest(cloud, model.task), _record_of(cloud, model)
        if newest.made_from == made_from:
            return Published(newest, model.number, changed=False)
        arrays = tensors.unpack(model.weights, what="weights", limit_bytes=WEIGHTS_LIMIT_BYTES)[0]
        onnx = cloud.blobs.put(patch_onnx(cloud.blobs.read(model.base.onnx.digest), arrays))
        base = Base(newest.base.version + 1, cloud.blobs.put(model.weights), onnx)
        record = replace(origin, base=base, made_from=made_from)
        with cloud.database.writing() as connection:
            row = {"task": model.task, "version": base.version, "made_from": made_from, "trained_at": now}
            connection.execute(db.bases.insert().values({**row, "document": encode(record)}))
            detail = {"task": model.task, "round": model.number, "base": base.version}
            audit.note(connection, at=now, actor=audit.SHELL, action="publish-rounds", subject=model.series, **detail)
    return Published(record, model.number, changed=True)


def number_of(connection: sa.Connection, made: Series, which: str) -> int:
    """Of 'last', 'best' or a number. Raises NotReady where no round was closed yet, UsageError."""
    if re.fullmatch("[0-9]{1,9}", which):
        return int(which)
    column = db.rounds.c
    closed = sa.select(sa.func.max(column.number)).where(column.series == made.id, column.state == "closed")
    last = connection.execute(closed).scalar()
    if which not in ("best", "last"):
        raise UsageError(f"'{which}' is no round", hint="give its number, best or last")
    if last is None:
        raise NotReady(f"series {made.id} has closed no round yet")
    scores = scores_of(connection, made.id) if which == "best" else {}
    return max(scores, key=lambda number: scores[number]) if scores else int(last)


def _model(cloud: Cloud, made: Series, number: int, task: str, base: Base, weights: tensors.Arrays) -> Model:
    """What was trained, and of the base what was not."""
    packed = tensors.pack({**bases.arrays(cloud, base), **weights}, {"format": "weights/1", "task": task})
    return Model(made.id, number, task, base, packed)


def _record_of(cloud: Cloud, model: Model) -> BaseRecord:
    """Of the base that the series started from."""
    with cloud.database.reading() as connection:
        tasks.get(connection, model.task)
        found = bases.find(connection, model.task, version=model.base.version)
    if found is None:
        gone = f"base {model.base.version} of task '{model.task}' is gone"
        raise NotFound(gone, hint="it was restored from a backup?")
    return found
