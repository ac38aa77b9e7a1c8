"""Build what boards need to find their match, verify it, publish it. Killed anywhere, the old one goes on serving."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import sqlalchemy as sa

from cloud_aug import (
    audit,
    bases,
    directory,
    packing,
    packs,
    pool,
    publications,
    searchable,
    tasks,
    vectors,
    withdrawals,
)
from cloud_aug.bases import BaseRecord
from cloud_aug.bench import Bench, Engine, Here, Job, counted
from cloud_aug.cloud import Cloud
from cloud_aug.directory import Layout
from cloud_aug.embedded import ASSIGN, EMBED, Embedded, Unassigned, deal, together
from cloud_aug.packing import PackOrders, Written
from cloud_aug.packs import Secret
from cloud_aug.publications import Holders, Publication
from cloud_aug.vectors import unit
from edgelearn.retrieval.directory import Directory
from edgewire import tensors
from edgewire.decoding import convert, decode, encode, plain
from edgewire.errors import CorruptFile, EdgeError, NotFound, NotReady, TooLarge, UsageError
from edgewire.files import digest
from edgewire.messages import DIRECTORY_LIMIT_BYTES, BlobRef, DirectoryMeta
from edgewire.tasks import Task

Progress = Callable[[str, int, int], None]

LAYOUT_LIMIT_BYTES = 1 << 30


@dataclass(frozen=True)
class Built:
    """changed: whether a new publication was made; nothing new in the pool, nothing new to publish.

    good_until: when the first consent behind it ends (seconds since 1970); from then on boards are refused its packs.
    """

    publication: Publication
    changed: bool
    good_until: float


def build(
    cloud: Cloud,
    task_id: str,
    *,
    seed: int,
    now: float,
    on_progress: Progress,
    hold: bool = False,
    engine: Engine | None = None,
) -> Built:
    """Embed the pool, form cohorts, write packs, directory and search index, check them, publish them.

    hold: keep a new base out of the manifest, for a release; where bases of this task were released before, that is so
    anyway. on_progress(stage, done, total); engine: who does the steps, this process unless told otherwise. Raises Busy
    if another build runs, NotReady without a base, UsageError when the pool has fewer contributors than a cohort needs,
    Conflict when contributors withdrew meanwhile, TooLarge or EdgeError for an index that memory or recall forbid, and
    what the engine raises.
    """
    with cloud.locked(f"index-{task_id}", doing=f"building the index of task '{task_id}'"):
        began = time.monotonic()
        cloud.blobs.sweep()
        task, base = tasks.load(cloud, task_id), bases.newest(cloud, task_id)
        bench = Bench(cloud, Job(task, base.base.onnx.digest, now))
        secret, withdrawn = packs.secret(cloud, task_id, now=now), _withdrawn(cloud, task_id)  # before the first sample
        with _cleared(bench):
            draft, holders = _Build(bench, engine or Here(), base, secret, seed, on_progress).drafted(withdrawn)
            on_progress("publish", 0, 1)
            draft = replace(draft, build_s=time.monotonic() - began)
            built = _publish(cloud, draft, holders, withdrawn, secret, hold=hold, now=now)
            _remove_old(cloud, built.publication)
            packs.encrypt_older(cloud, built.publication, secret)
        return built


@contextlib.contextmanager
def _cleared(bench: Bench) -> Iterator[None]:
    """Leave nothing in the work store, whatever comes of the build: embeddings of people, and the disk may be full."""
    bench.work.clear()
    try:
        yield
    finally:
        bench.work.clear()


@dataclass(frozen=True)
class _Build:
    """One build: what is known of it from its start. secret: what the keys of its packs follow from."""

    bench: Bench
    engine: Engine
    base: BaseRecord
    secret: Secret
    seed: int
    on_progress: Progress

    def drafted(self, withdrawn: dict[str, int]) -> tuple[Publication, Holders]:
        """A verified publication that nobody knows of yet, and whose samples its packs hold. withdrawn: how often each
        contributor had withdrawn when the build began."""
        cloud, task = self.bench.cloud, self.bench.task
        embedded = self._embed()
        self.on_progress("cohorts", 0, 1)
        layout, described, capped = self._arrange(embedded)
        written = self._write_packs(packing.orders(layout, capped, withdrawn, self.secret))
        self.on_progress("search index", 0, 1)
        search = searchable.write(
            self.bench, embedded, self.engine, seed=self.seed, on_progress=self._telling("search index")
        )
        pack_refs = tuple(pack.ref for pack in written)
        meta = DirectoryMeta(task.id, self.base.base.onnx.digest, pack_refs, self.base.figures)
        draft = Publication(
            task.id,
            0,
            self.base.base,
            _write_directory(cloud, described, meta),
            pack_refs,
            search,
            described.cohorts,
            sum(ref.samples for ref in pack_refs),
            sum(ref.contributors for ref in pack_refs),
            self.seed,
            cloud.blobs.put(encode(layout)),
        )
        self._verify(draft)
        return draft, {pack.ref.digest: pack.names for pack in written}

    def _telling(self, stage: str) -> Callable[[int, int], None]:
        return lambda done, total: self.on_progress(stage, done, total)

    def _embed(self) -> Embedded:
        task = self.bench.task
        people = pool.people(self.bench.cloud, task.id, now=self.bench.job.now)
        _check_enough(task, len(people))
        total = sum(people.values())
        self.on_progress("embed", 0, total)
        told = counted(self._telling("embed"), total, lambda part: sum(part.rows.values()))
        parts = self.engine.each(self.bench, EMBED, deal(people), told)
        _check_enough(task, sum(len(part.rows) for part in parts))
        return together(self.bench, parts)

    def _arrange(self, embedded: Embedded) -> tuple[Layout, Directory, int]:
        """Cohorts and packs of everybody, the directory, and how many samples of each contributor are published."""
        cloud, task = self.bench.cloud, self.bench.task
        row_bytes, minimum = task.input.values * np.dtype(task.input.dtype).itemsize, task.privacy.min_cohort
        most = directory.rows_per_pack(row_bytes, cloud.settings.limits.pack_bytes)
        capped = max(1, min(cloud.settings.limits.pack_samples_per_contributor, most // minimum))
        features = embedded.features()
        layout = directory.arrange(
            features,
            {name: min(rows, capped) for name, rows in embedded.rows.items()},
            _layout_before(cloud, task.id),
            made_from=digest(encode([self.bench.job.onnx, self.seed, minimum])),
            minimum=minimum,
            rows_per_pack=most,
            cluster=lambda k: self._clustered(embedded, vectors.centres(features, k, seed=self.seed)),
        )
        cohort = np.asarray([layout.places[name].cohort for name in embedded.rows])
        return layout, embedded.describe(cohort), capped

    def _clustered(self, embedded: Embedded, centres: np.ndarray) -> np.ndarray:
        grouping = self.bench.keep({"means": embedded.global_means, "centres": centres})
        parts = [Unassigned(part.means, grouping) for part in embedded.parts]
        told = counted(self._telling("cohorts"), len(parts))
        assigned = self.engine.each(self.bench, ASSIGN, parts, told)
        return np.concatenate([np.asarray(part.cohort, np.int64) for part in assigned])

    def _write_packs(self, orders: Sequence[PackOrders]) -> list[Written]:
        total = sum(len(part.packs) for part in orders)
        self.on_progress("packs", 0, total)
        told = counted(self._telling("packs"), total, lambda part: len(part.packs))
        parts = self.engine.each(self.bench, packing.WRITE, orders, told)
        return [pack for part in parts for pack in part.packs]

    def _verify(self, draft: Publication) -> None:
        """Read everything back as a board would. Raises CorruptFile, or what the board would."""
        self.on_progress("verify", 0, 1)
        told = counted(self._telling("verify"), len(draft.packs), int)
        self.engine.each(self.bench, packing.VERIFY, packing.refs(draft.packs, self.secret), told)
        blobs = self.bench.cloud.blobs
        data = blobs.read(draft.directory.digest)
        arrays, meta = tensors.unpack(data, what="directory", limit_bytes=DIRECTORY_LIMIT_BYTES)
        convert(DirectoryMeta, meta, what="directory")
        _verify_search(self.bench.cloud, draft, Directory(**arrays))
        for blob in (draft.base.weights, draft.base.onnx):
            blobs.check(blob.digest)


def _check_enough(task: Task, people: int) -> None:
    minimum = task.privacy.min_cohort
    if people < minimum:
        raise UsageError(
            f"the pool of '{task.id}' has {people} usable contributors, a cohort needs {minimum}",
            hint="ingest more, let some out of quarantine, or publish the task with a smaller privacy.min_cohort",
        )


def _withdrawn(cloud: Cloud, task_id: str) -> dict[str, int]:
    with cloud.database.reading() as connection:
        return publications.withdrawals_of(connection, task_id)


def _layout_before(cloud: Cloud, task_id: str) -> Layout | None:
    """The last build's; none if it is damaged: then everything is arranged anew."""
    with cloud.database.reading() as connection:
        before = publications.current(connection, task_id)
    if before is None or before.layout is None:
        return None
    try:
        raw = cloud.blobs.read(before.layout.digest)
        return decode(Layout, raw, what="layout", limit_bytes=LAYOUT_LIMIT_BYTES)
    except EdgeError:
        return None


def _write_directory(cloud: Cloud, described: Directory, meta: DirectoryMeta) -> BlobRef:
    data = tensors.pack(described.arrays(), plain(meta))
    if len(data) > DIRECTORY_LIMIT_BYTES:
        raise TooLarge(
            f"the directory has {len(data)} bytes, the limit is {DIRECTORY_LIMIT_BYTES}",
            hint="a smaller model.embedding, or fewer labels, makes it smaller",
        )
    return cloud.blobs.put(data)


def _verify_search(cloud: Cloud, draft: Publication, described: Directory) -> None:
    """Cohorts' own prototypes must find something."""
    index = searchable.load(cloud, draft.search.digest).index
    probes = unit(described.cohort_residuals.reshape(-1, index.dim))[0]
    _, ids = index.search(probes, 1)
    if len(index) and (ids < 0).all():
        raise CorruptFile("the search index finds nothing")


def _publish(
    cloud: Cloud,
    draft: Publication,
    holders: Holders,
    withdrawn: dict[str, int],
    secret: Secret,
    *,
    hold: bool,
    now: float,
) -> Built:
    with cloud.database.writing() as connection:
        good_until = publications.record_holders(connection, draft.task, holders, withdrawn)
        before = publications.current(connection, draft.task)
        if before is not None and before.content == draft.content:
            return Built(before, changed=False, good_until=good_until)
        after = replace(draft, version=1 if before is None else before.version + 1)
        _hold(connection, after, asked=hold)
        publications.record(connection, after, now=now)
        packs.record(connection, secret, {ref.digest: str(ref.ciphertext) for ref in after.packs})
        detail = {"version": after.version, "samples": after.samples, "cohorts": after.cohorts}
        audit.note(connection, at=now, actor=audit.SHELL, action="publish-index", subject=draft.task, **detail)
    return Built(after, changed=True, good_until=good_until)


def _hold(connection: sa.Connection, after: Publication, *, asked: bool) -> None:
    """Hold a base that no board has yet, if that is asked or usual for this task. Raises UsageError for the first base:
    without a manifest a board has no task."""
    versions = publications.base_versions(connection, after.task)
    if after.base.version in versions:
        return
    if asked and not versions:
        raise UsageError("the first base of a task cannot be held", hint="build without --hold")
    if asked or (versions and publications.bases_are_released(connection, after.task)):
        publications.hold(connection, after.task, after.base.version)


def _remove_old(cloud: Cloud, now: Publication) -> None:
    """Remove the files that only the server itself reads (search indexes, layouts) of publications that no board is at
    any more or may be sent back to, and every pack with withdrawn samples. A server that has them open reads on, one
    that comes too late takes the new ones. Another task may have files of the same bytes: its contributors' names, what
    a class without samples has."""
    with cloud.database.reading() as connection:
        kept = [one for task in tasks.ids(connection) for one in publications.kept(connection, task)]
    keep = set().union(*(_private_blobs(cloud, one) for one in (*kept, now)))
    for old in publications.older(cloud, now):
        for name in _private_blobs(cloud, old) - keep:
            cloud.blobs.remove(name)
    withdrawals.purge(cloud, now.task)


def _private_blobs(cloud: Cloud, publication: Publication) -> set[str]:
    own = {publication.search.digest, *([publication.layout.digest] if publication.layout else [])}
    try:
        return own | set(searchable.read(cloud, publication.search.digest)[0].files)
    except (NotFound, NotReady, CorruptFile):  # removed before, or of an older release, which had one file
        return own
