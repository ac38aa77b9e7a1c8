"""Build what boards need to find their match, verify it, publish it. Killed anywhere, the old one goes on serving."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import sqlalchemy as sa

from cloud_aug import audit, bases, directory, keys, packs, pool, publications, searchable, tasks, withdrawals
from cloud_aug.bases import BaseRecord
from cloud_aug.cloud import Cloud
from cloud_aug.directory import Layout
from cloud_aug.embedded import Embedded, embed_pool
from cloud_aug.packs import Secret
from cloud_aug.publications import Holders, Publication
from cloud_aug.vectors import unit
from edgelearn.retrieval.directory import Directory
from edgewire import tensors
from edgewire.decoding import convert, decode, encode, plain
from edgewire.errors import Conflict, CorruptFile, EdgeError, NotFound, NotReady, TooLarge, UsageError
from edgewire.files import digest
from edgewire.messages import DIRECTORY_LIMIT_BYTES, SAMPLES_LIMIT_BYTES, BlobRef, DirectoryMeta, PackRef
from edgewire.samples import concatenate, from_bytes
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


def build(cloud: Cloud, task_id: str, *, seed: int, now: float, on_progress: Progress, hold: bool = False) -> Built:
    """Embed the pool, form cohorts, write packs, directory and search index, check them, publish them.

    hold: keep a new base out of the manifest, for a release; where bases of this task were released before, that is so
    anyway. on_progress(stage, done, total). Raises Busy if another build runs, NotReady without a base, UsageError when
    the pool has fewer contributors than a cohort needs, Conflict when contributors withdrew meanwhile, TooLarge or
    EdgeError for an index that memory or recall forbid.
    """
    with cloud.locked(f"index-{task_id}", doing=f"building the index of task '{task_id}'"):
        began = time.monotonic()
        cloud.blobs.sweep()
        task, base = tasks.load(cloud, task_id), bases.newest(cloud, task_id)
        onnx = cloud.blobs.read(base.base.onnx.digest)
        withdrawn = _withdrawn(cloud, task_id)  # before the first sample is read
        work = cloud.settings.data / "work" / f"index-{task_id}"
        embedded = embed_pool(
            cloud, task, onnx, work, now=now, on_progress=lambda done, n: on_progress("embed", done, n)
        )
        on_progress("cohorts", 0, 1)
        layout, described, capped = _arrange(cloud, task, base, embedded, seed=seed)
        secret = packs.secret(cloud, task.id, now=now)
        pack_refs, holders = _write_packs(
            cloud, task, layout, capped, withdrawn, secret, now=now, on_progress=on_progress
        )
        on_progress("search index", 0, 1)
        search = searchable.write(
            cloud,
            task,
            embedded,
            base.base.onnx.digest,
            seed=seed,
            on_progress=lambda done, n: on_progress("search index", done, n),
        )
        meta = DirectoryMeta(task.id, base.base.onnx.digest, pack_refs, base.figures)
        draft = Publication(
            task.id,
            0,
            base.base,
            _write_directory(cloud, described, meta),
            pack_refs,
            search,
            described.cohorts,
            sum(ref.samples for ref in pack_refs),
            sum(ref.contributors for ref in pack_refs),
            seed,
            cloud.blobs.put(encode(layout)),
        )
        on_progress("verify", 0, 1)
        _verify(cloud, task, draft, secret)
        on_progress("publish", 0, 1)
        draft = replace(draft, build_s=time.monotonic() - began)
        built = _publish(cloud, draft, holders, withdrawn, secret, hold=hold, now=now)
        _remove_old(cloud, built.publication)
        packs.encrypt_older(cloud, built.publication, secret)
        shutil.rmtree(work)
        return built


def _withdrawn(cloud: Cloud, task_id: str) -> dict[str, int]:
    with cloud.database.reading() as connection:
        return publications.withdrawals_of(connection, task_id)


def _arrange(
    cloud: Cloud, task: Task, base: BaseRecord, embedded: Embedded, *, seed: int
) -> tuple[Layout, Directory, int]:
    """Cohorts and packs of everybody, the directory, and how many samples of each contributor are published."""
    row_bytes, minimum = task.input.values * np.dtype(task.input.dtype).itemsize, task.privacy.min_cohort
    most = directory.rows_per_pack(row_bytes, cloud.settings.limits.pack_bytes)
    capped = max(1, min(cloud.settings.limits.pack_samples_per_contributor, most // minimum))
    features = embedded.features()
    layout = directory.arrange(
        features,
        {name: min(rows, capped) for name, rows in embedded.rows.items()},
        _layout_before(cloud, task.id),
        made_from=digest(encode([base.base.onnx.digest, seed, minimum])),
        minimum=minimum,
        rows_per_pack=most,
        seed=seed,
    )
    cohort = np.asarray([layout.places[name].cohort for name in embedded.rows])
    return layout, embedded.describe(cohort), capped


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


def _write_packs(
    cloud: Cloud,
    task: Task,
    layout: Layout,
    capped: int,
    withdrawn: dict[str, int],
    secret: Secret,
    *,
    now: float,
    on_progress: Progress,
) -> tuple[tuple[PackRef, ...], Holders]:
    """One pack after the other in memory, stored encrypted. Of who has more than `capped` samples the first by digest,
    which is as good as by chance. Raises Conflict if so many withdrew meanwhile that a pack would have too few
    contributors."""
    members: dict[tuple[int, int], list[str]] = {}
    for name, place in layout.places.items():
        members.setdefault((place.cohort, place.pack), []).append(name)
    refs, holders, pseudonyms = [], {}, keys.pseudonym_secret(cloud.keys)
    for number, ((cohort, _), names) in enumerate(sorted(members.items()), start=1):
        parts = [held.take(np.arange(min(capped, len(held.ids)))) for _, held in pool.each(cloud, task, names, now=now)]
        if sum(len(part.ids) > 0 for part in parts) < task.privacy.min_cohort:
            raise Conflict("contributors withdrew while the index was built", hint="build it again")
        pack = directory.make_pack(
            concatenate([part.samples for part in parts], task.input),
            [name for part in parts for name in part.digests],
            cohort=cohort,
            withdrawn=sum(withdrawn.get(name, 0) for name in names),
            task_id=task.id,
            secret=pseudonyms,
        )
        name, ciphertext = packs.store(cloud.blobs, secret, pack.data)
        refs.append(PackRef(name, len(pack.data), pack.cohort, pack.samples, pack.contributors, ciphertext))
        holders[name] = pack.names
        on_progress("packs", number, len(members))
    return tuple(refs), holders


def _write_directory(cloud: Cloud, described: Directory, meta: DirectoryMeta) -> BlobRef:
    data = tensors.pack(described.arrays(), plain(meta))
    if len(data) > DIRECTORY_LIMIT_BYTES:
        raise TooLarge(
            f"the directory has {len(data)} bytes, the limit is {DIRECTORY_LIMIT_BYTES}",
            hint="a smaller model.embedding, or fewer labels, makes it smaller",
        )
    return cloud.blobs.put(data)


def _verify(cloud: Cloud, task: Task, draft: Publication, secret: Secret) -> None:
    """Read everything back as a board would. Raises CorruptFile, or what the board would."""
    for ref in draft.packs:
        raw = packs.opened(cloud.blobs, secret, ref.digest, str(ref.ciphertext))
        samples = from_bytes(raw, task, what="pack", limit_bytes=SAMPLES_LIMIT_BYTES)
        if (len(samples), len(np.unique(samples.user))) != (ref.samples, ref.contributors):
            raise CorruptFile("a pack does not hold what the directory says")
    data = cloud.blobs.read(draft.directory.digest)
    arrays, meta = tensors.unpack(data, what="directory", limit_bytes=DIRECTORY_LIMIT_BYTES)
    convert(DirectoryMeta, meta, what="directory")
    _verify_search(cloud, draft, Directory(**arrays))
    for blob in (draft.base.weights, draft.base.onnx):
        cloud.blobs.check(blob.digest)


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
    any more, and every pack with withdrawn samples. A server that has them open reads on, one that comes too late takes
    the new ones."""
    with cloud.database.reading() as connection:
        served = publications.served(connection, now.task)
    keep = set().union(*(_private_blobs(cloud, one) for one in (*served, now)))
    for old in publications.older(cloud, now):
        for name in _private_blobs(cloud, old) - keep:
            cloud.blobs.remove(name)
    withdrawals.purge(cloud, now.task)


def _private_blobs(cloud: Cloud, publication: Publication) -> set[str]:
    own = {publication.search.digest, *([publication.layout.digest] if publication.layout else [])}
    try:
        return own | set(searchable.read(cloud, publication.search.digest)[0].files)
    except (NotFound, NotReady):  # removed before, or of an older release, which had one file
        return own
