"""Train the base model on the pool, and rehearse the recipes on contributors held out. The only way to torch here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cloud_aug import audit, bases, db, pool, tasks
from cloud_aug.bases import BaseRecord
from cloud_aug.cloud import Cloud
from cloud_aug.pool import Pool
from edgelearn.device import use_threads
from edgelearn.examples import groups_from_names
from edgelearn.export import export_onnx
from edgelearn.models.build import build, get_weights
from edgelearn.personalize.rehearsal import rehearse
from edgelearn.pretrain import REVISION, train_base
from edgewire import tensors
from edgewire.decoding import convert, encode, plain
from edgewire.errors import CorruptFile, NotFound, UsageError
from edgewire.files import digest
from edgewire.messages import WEIGHTS_LIMIT_BYTES, Base, RecipeFigure
from edgewire.samples import Samples
from edgewire.tasks import Task

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class TrainSettings:
    """shots: samples per class to rehearse recipes at; boards: contributors held out; () and 0: what suits the task;
    rehearse: whether at all.
    without: contributors who are left out.
    threads: of torch; models for boards are so small that a second one seldom helps, and results depend on their
    number; augment: whether samples are changed as `edgelearn.augment` says."""

    seed: int = 0
    epochs: int = 30
    rehearse: bool = True
    shots: tuple[int, ...] = ()
    boards: int = 0
    threads: int = 1
    augment: bool = True
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trained:
    """changed: False if this pool and these settings made the newest base already, and it is whole."""

    record: BaseRecord
    changed: bool


def train(cloud: Cloud, task_id: str, settings: TrainSettings, *, now: float, on_progress: Progress) -> Trained:
    """A base model from all usable samples. on_progress(stage, done, total).

    Raises Busy if another training runs, UsageError for an empty pool, NotFound.
    """
    use_threads(settings.threads)
    with cloud.locked(f"base-{task_id}", doing=f"training the base of task '{task_id}'"):
        task = tasks.load(cloud, task_id)
        shared = pool.load(cloud, task, without=settings.without, now=now)
        if len(shared.samples) == 0:
            raise UsageError(f"the pool of '{task_id}' is empty", hint="run 'cloud-aug pool ingest'")
        made_from = digest(encode([REVISION, plain(task.model), shared.digest, plain(settings)]))
        with cloud.database.reading() as connection:
            before = bases.find(connection, task_id)
        if before is not None and before.made_from == made_from and _whole(cloud, before):
            return Trained(before, changed=False)
        version = 1 if before is None else before.base.version + 1
        record = _make(cloud, task, shared, settings, version, made_from, on_progress)
        with cloud.database.writing() as connection:
            row = {"task": task_id, "version": version, "made_from": made_from, "trained_at": now}
            connection.execute(db.bases.insert().values({**row, "document": encode(record)}))
            audit.note(connection, at=now, actor=audit.SHELL, action="train-base", subject=task_id, version=version)
        return Trained(record, changed=True)


def take(cloud: Cloud, task_id: str, raw: bytes, *, now: float) -> Trained:
    """A base that was trained elsewhere, from its weights alone (safetensors, as published): the ONNX file is exported
    here, so that the two are one model. No recipe was rehearsed on it.

    Raises InvalidMessage or TooLarge for what are no weights, UsageError for those of another model, Busy, NotFound.
    """
    weights, _ = tensors.unpack(raw, what="weights", limit_bytes=WEIGHTS_LIMIT_BYTES)
    with cloud.locked(f"base-{task_id}", doing=f"training the base of task '{task_id}'"):
        task, made_from = tasks.load(cloud, task_id), digest(raw)
        if not all(np.isfinite(array).all() for array in weights.values()):
            raise UsageError("the weights are not all finite", hint="train it again")
        try:
            onnx = export_onnx(task, weights)
        except (ValueError, RuntimeError) as error:  # torch's own
            raise UsageError(f"these are no weights of the model of '{task_id}': {error}") from None
        with cloud.database.reading() as connection:
            before = bases.find(connection, task_id)
        blob = cloud.blobs.put(tensors.pack(weights, {"format": "weights/1", "task": task.id}))  # mends a damaged one
        exported = cloud.blobs.put(onnx)
        if before is not None and before.made_from == made_from and _whole(cloud, before):
            return Trained(before, changed=False)
        base = Base(1 if before is None else before.base.version + 1, blob, exported)
        record = BaseRecord(task.id, base, made_from, 0, 0, 0, 0, ())
        with cloud.database.writing() as connection:
            row = {"task": task_id, "version": base.version, "made_from": made_from, "trained_at": now}
            connection.execute(db.bases.insert().values({**row, "document": encode(record)}))
            audit.note(
                connection, at=now, actor=audit.SHELL, action="import-base", subject=task_id, version=base.version
            )
        return Trained(record, changed=True)


def _whole(cloud: Cloud, record: BaseRecord) -> bool:
    try:
        for blob in (record.base.weights, record.base.onnx):
            cloud.blobs.check(blob.digest)
    except (NotFound, CorruptFile):
        return False
    return True


def _make(
    cloud: Cloud, task: Task, shared: Pool, settings: TrainSettings, version: int, made_from: str, on_progress: Progress
) -> BaseRecord:
    x, y, contributor = shared.samples.x, shared.samples.y, _contributor(shared.samples)
    seed, epochs = settings.seed, settings.epochs
    weights = train_base(
        task,
        x,
        y,
        contributor,
        seed=seed,
        epochs=epochs,
        group=groups_from_names(shared.samples.group),
        on_step=lambda done, total: on_progress("train", done, total),
        changes=None if settings.augment else (),
    )
    onnx = cloud.blobs.put(export_onnx(task, weights))
    blob = cloud.blobs.put(tensors.pack(weights, {"format": "weights/1", "task": task.id}))
    figures = _rehearse(task, shared.samples, settings, on_progress) if settings.rehearse else ()
    people = len(shared.contributors)
    return BaseRecord(task.id, Base(version, blob, onnx), made_from, seed, epochs, len(y), people, figures)


@dataclass(frozen=True)
class Trial:
    """What a task promises. model_bytes: of the model that boards would fetch."""

    figures: tuple[RecipeFigure, ...]
    samples: int
    users: int
    model_bytes: int


def try_out(task: Task, samples: Samples, settings: TrainSettings, *, on_progress: Progress) -> Trial:
    """Play boards with a task that need not be published, on samples with users; nothing is kept.

    Raises UsageError where too few users have enough samples to play.
    """
    use_threads(settings.threads)
    figures = _rehearse(task, samples, settings, on_progress)
    if not figures:
        raise UsageError(
            f"too few of the {len(np.unique(samples.user))} users could play a board",
            hint="it takes three users or more, with ten samples each beyond the shots, in other recordings",
        )
    onnx = export_onnx(task, get_weights(build(task)))
    return Trial(figures, len(samples), len(np.unique(samples.user)), len(onnx))


def _contributor(samples: Samples) -> np.ndarray:
    """Whose each sample is, as a number: int64 (n,)."""
    return np.unique(samples.user, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _rehearse(task: Task, samples: Samples, settings: TrainSettings, on_progress: Progress) -> tuple[RecipeFigure, ...]:
    found = rehearse(
        task,
        samples.x,
        samples.y,
        _contributor(samples),
        group=groups_from_names(samples.group),
        seed=settings.seed,
        shots=settings.shots,
        boards=settings.boards,
        epochs=settings.epochs,
        changes=None if settings.augment else (),
        on_progress=lambda done, total: on_progress("rehearse", done, total),
    )
    return tuple(convert(RecipeFigure, plain(figure), what="rehearsal") for figure in found)
