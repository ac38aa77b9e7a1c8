"""Build what boards need to find their match, verify it, publish it. Killed anywhere, the old one goes on serving."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cloud_aug import audit, bases, encoder, keys, pool, publications, tasks
from cloud_aug.cloud import Cloud
from cloud_aug.directory import assign_cohorts, packs
from cloud_aug.pool import Pool
from cloud_aug.publications import Holders, Publication
from cloud_aug.vectors import SearchIndex
from edgelearn.retrieval.directory import Directory, describe
from edgewire import tensors
from edgewire.decoding import convert, plain
from edgewire.errors import CorruptFile, TooLarge, UsageError
from edgewire.messages import DIRECTORY_LIMIT_BYTES, SAMPLES_LIMIT_BYTES, BlobRef, DirectoryMeta, PackRef
from edgewire.samples import from_bytes
from edgewire.tasks import Task

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Built:
    """changed: whether a new publication was made; nothing new in the pool, nothing new to publish.

    good_until: when the first consent behind it ends (seconds since 1970); from then on boards are refused its packs.
    """

    publication: Publication
    changed: bool
    good_until: float


def build(cloud: Cloud, task_id: str, *, seed: int, now: float, on_progress: Progress) -> Built:
    """Embed the pool, form cohorts, write packs, directory and search index, check them, publish them.

    on_progress(stage, done, total). Raises Busy if another build runs, NotReady without a base, UsageError when the
    pool has fewer contributors than a cohort needs.
    """
    with cloud.locked(f"index-{task_id}", doing=f"building the index of task '{task_id}'"):
        cloud.blobs.sweep()
        task, base = tasks.load(cloud, task_id), bases.newest(cloud, task_id)
        shared = _load_pool(cloud, task, now=now)
        onnx = cloud.blobs.read(base.base.onnx.digest)
        embeddings = encoder.embed(onnx, shared.samples.x, on_progress=lambda done, n: on_progress("embed", done, n))
        on_progress("cohorts", 0, 1)
        cohort, directory = _cohorts(task, shared, embeddings, seed=seed)
        pack_refs, holders = _write_packs(cloud, task, shared, cohort, on_progress)
        on_progress("search index", 0, 1)
        search = _write_search(cloud, shared, embeddings, directory)
        meta = DirectoryMeta(task.id, base.base.onnx.digest, pack_refs, base.figures)
        directory_ref = _write_directory(cloud, directory, meta)
        draft = Publication(
            task.id,
            0,
            base.base,
            directory_ref,
            pack_refs,
            search,
            directory.cohorts,
            len(shared.samples),
            len(shared.contributors),
            seed,
        )
        on_progress("verify", 0, 1)
        _verify(cloud, task, draft, shared)
        on_progress("publish", 0, 1)
        return _publish(cloud, draft, holders, now=now)


def _load_pool(cloud: Cloud, task: Task, *, now: float) -> Pool:
    shared = pool.load(cloud, task, now=now)
    people, minimum = len(shared.contributors), task.privacy.min_cohort
    if people < minimum:
        raise UsageError(
            f"the pool of '{task.id}' has {people} usable contributors, a cohort needs {minimum}",
            hint="ingest more, let some out of quarantine, or publish the task with a smaller privacy.min_cohort",
        )
    return shared


def _cohorts(task: Task, shared: Pool, embeddings: np.ndarray, *, seed: int) -> tuple[np.ndarray, Directory]:
    _, contributor = np.unique(shared.samples.user, return_inverse=True)
    contributor, y = contributor.reshape(-1), shared.samples.y
    classes, minimum = len(task.labels), task.privacy.min_cohort
    of_people = assign_cohorts(embeddings, y, contributor, n_classes=classes, minimum=minimum, seed=seed)
    cohort = of_people[contributor]
    return cohort, describe(embeddings, y, cohort, n_classes=classes)


def _write_packs(
    cloud: Cloud, task: Task, shared: Pool, cohort: np.ndarray, on_progress: Progress
) -> tuple[tuple[PackRef, ...], Holders]:
    refs, holders, done, total = [], {}, 0, len(shared.samples)
    secret, limit = keys.pseudonym_secret(cloud.keys), cloud.settings.limits.pack_bytes
    for pack in packs(shared, cohort, task_id=task.id, secret=secret, limit_bytes=limit):
        blob = cloud.blobs.put(pack.data)
        refs.append(PackRef(blob.digest, blob.size, pack.cohort, pack.samples, pack.contributors))
        holders[blob.digest] = pack.names
        done += pack.samples
        on_progress("packs", done, total)
    return tuple(refs), holders


def _write_search(cloud: Cloud, shared: Pool, embeddings: np.ndarray, directory: Directory) -> BlobRef:
    index = SearchIndex.build(embeddings, shared.samples.y, shared.ids, directory.global_means)
    return cloud.blobs.put(index.to_bytes())


def _write_directory(cloud: Cloud, directory: Directory, meta: DirectoryMeta) -> BlobRef:
    data = tensors.pack(directory.arrays(), plain(meta))
    if len(data) > DIRECTORY_LIMIT_BYTES:
        raise TooLarge(
            f"the directory has {len(data)} bytes, the limit is {DIRECTORY_LIMIT_BYTES}",
            hint="a smaller model.embedding, or fewer labels, makes it smaller",
        )
    return cloud.blobs.put(data)


def _verify(cloud: Cloud, task: Task, draft: Publication, shared: Pool) -> None:
    """Read everything back as a board would. Raises CorruptFile, or what the board would."""
    count = 0
    for ref in draft.packs:
        samples = from_bytes(cloud.blobs.read(ref.digest), task, what="pack", limit_bytes=SAMPLES_LIMIT_BYTES)
        if (len(samples), len(np.unique(samples.user))) != (ref.samples, ref.contributors):
            raise CorruptFile("a pack does not hold what the directory says")
        count += len(samples)
    if count != len(shared.samples):
        raise CorruptFile(f"the packs hold {count} samples, the pool {len(shared.samples)}")
    data = cloud.blobs.read(draft.directory.digest)
    arrays, meta = tensors.unpack(data, what="directory", limit_bytes=DIRECTORY_LIMIT_BYTES)
    convert(DirectoryMeta, meta, what="directory")
    directory = Directory(**arrays)
    _verify_search(SearchIndex.from_bytes(cloud.blobs.read(draft.search.digest)), directory)
    for blob in (draft.base.weights, draft.base.onnx):
        cloud.blobs.check(blob.digest)


def _verify_search(index: SearchIndex, directory: Directory) -> None:
    """Cohorts' own prototypes must find something."""
    probes = (directory.global_means + directory.cohort_residuals).reshape(-1, index.dim)
    _, ids = index.search(probes.astype(np.float32), 1, exclude=np.zeros(0, np.int64))
    if len(index) and (ids < 0).all():
        raise CorruptFile("the search index finds nothing")


def _publish(cloud: Cloud, draft: Publication, holders: Holders, *, now: float) -> Built:
    with cloud.database.writing() as connection:
        good_until = publications.record_holders(connection, draft.task, holders)
        before = publications.current(connection, draft.task)
        if before is not None and before.content == draft.content:
            return Built(before, changed=False, good_until=good_until)
        version = 1 if before is None else before.version + 1
        after = Publication(**{**draft.__dict__, "version": version})
        publications.record(connection, after, now=now)
        detail = {"version": version, "samples": after.samples, "cohorts": after.cohorts}
        audit.note(connection, at=now, actor=audit.SHELL, action="publish-index", subject=draft.task, **detail)
    return Built(after, changed=True, good_until=good_until)
