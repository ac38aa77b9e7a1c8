"""The pool as the base sees it: an embedding and a digest per sample in files, a class mean per contributor in memory.

Contributors pass through memory one at a time, so that a build needs little more for ten million samples than for ten
thousand.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cloud_aug import encoder, pool
from cloud_aug.cloud import Cloud
from cloud_aug.roster import first_of_equal
from cloud_aug.vectors import CHUNK, unit
from edgelearn.retrieval.directory import Directory
from edgelearn.retrieval.prototypes import class_means, residuals
from edgewire.errors import UsageError
from edgewire.tasks import Task

NEAR_DUPLICATE = 0.005  # of a residual's length: closer ones of one contributor are windows of a sensor at rest
_COMPARED_AT_ONCE = 1024


@dataclass(frozen=True)
class Embedded:
    """rows: samples of each contributor, in order of names; vectors: float32 (n, dim), and digests: uint8 (n, 32), both
    mapped; ids, y: (n,); means: float32 (contributors, classes, dim); counts: int64 (contributors, classes)."""

    rows: dict[str, int]
    vectors: np.ndarray
    digests: np.ndarray
    ids: np.ndarray
    y: np.ndarray
    means: np.ndarray
    counts: np.ndarray

    @property
    def global_means(self) -> np.ndarray:
        """The pool's mean embedding per class, float32 (classes, dim)."""
        return _mean(self.means, self.counts)[0]

    def features(self) -> np.ndarray:
        """Each contributor's residual prototypes, float32 (contributors, classes * dim)."""
        everybody = self.global_means
        made = [residuals(means, counts, everybody) for means, counts in zip(self.means, self.counts, strict=True)]
        return np.stack(made).reshape(len(made), -1)

    def describe(self, cohort: np.ndarray) -> Directory:
        """The directory of cohorts. cohort: int (contributors,), numbered from 0."""
        everybody, found, known = self.global_means, [], []
        for k in range(int(cohort.max()) + 1):
            means, counts = _mean(self.means[cohort == k], self.counts[cohort == k])
            found.append(residuals(means, counts, everybody))
            known.append(counts)
        return Directory(everybody, np.stack(found), np.stack(known))

    def indexed(self, label: int) -> np.ndarray:
        """Which samples of a class the index gets, int (n,): no near duplicates of one contributor, and each sample
        once, as the first contributor's by name."""
        rows = np.flatnonzero(self._distinct(label))
        return np.asarray(rows[first_of_equal(self.digests[rows])])

    def styles(self, rows: np.ndarray, label: int) -> Callable[[], Iterator[np.ndarray]]:
        """Unit residuals of these samples of one class, in pieces."""
        mean = self.global_means[label]

        def pieces() -> Iterator[np.ndarray]:
            for start in range(0, len(rows), CHUNK):
                yield unit(self.vectors[rows[start : start + CHUNK]] - mean)[0]

        return pieces

    def people(self, rows: np.ndarray) -> np.ndarray:
        """Whose samples these are, as places in the list of names, int (n,)."""
        ends = np.cumsum(list(self.rows.values()))
        return np.searchsorted(ends, rows, side="right")

    def _distinct(self, label: int) -> np.ndarray:
        chosen, start = np.zeros(len(self.y), bool), 0
        for count in self.rows.values():
            rows = start + np.flatnonzero(self.y[start : start + count] == label)
            start += count
            chosen[rows] = _first_of_alike(self.vectors[rows] - self.global_means[label])
        return chosen


def _mean(means: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over people, weighted by their samples, per class. means: (people, classes, dim)."""
    total = counts.sum(axis=0)
    sums = np.einsum("pcd,pc->cd", means.astype(np.float64), counts.astype(np.float64))
    return (sums / np.maximum(total, 1)[:, None]).astype(np.float32), total


def _first_of_alike(vectors: np.ndarray) -> np.ndarray:
    """Which residuals, (n, dim), have a direction, and none before them that is nearly the same; compared in blocks."""
    squares = (vectors**2).sum(axis=1)
    kept = squares > 1e-24
    for start in range(0, len(vectors), _COMPARED_AT_ONCE):
        some, lengths = vectors[start : start + _COMPARED_AT_ONCE], squares[start : start + _COMPARED_AT_ONCE]
        apart = lengths[:, None] + lengths[None, :] - 2 * some @ some.T
        alike = np.triu(apart < NEAR_DUPLICATE**2 * lengths[:, None], 1)
        for row in np.flatnonzero(alike.any(axis=1)):
            if kept[start + row]:
                kept[start + np.flatnonzero(alike[row])] = False
    return np.asarray(kept)


def embed_pool(
    cloud: Cloud, task: Task, onnx: bytes, work: Path, *, now: float, on_progress: Callable[[int, int], None]
) -> Embedded:
    """Embed every usable sample; the embeddings lie in the folder `work`, which is emptied first. Raises UsageError
    when the pool has fewer contributors than a cohort needs."""
    shutil.rmtree(work, ignore_errors=True)
    for folder in (work.parent, work):
        folder.mkdir(mode=0o700, exist_ok=True)
    people = pool.people(cloud, task.id, now=now)
    _check_enough(task, len(people))
    total, done, classes = sum(people.values()), 0, len(task.labels)
    rows: dict[str, int] = {}
    ids, y, means, counts = [], [], [], []
    model = encoder.Encoder(onnx)
    with (work / "embeddings").open("wb") as file, (work / "digests").open("wb") as names:
        for name, held in pool.each(cloud, task, people, now=now):
            if len(held.ids) == 0:
                continue  # withdrew meanwhile
            embeddings = model.embed(held.samples.x)
            file.write(embeddings.tobytes())
            names.write(bytes.fromhex("".join(held.digests)))
            mine, known = class_means(embeddings, held.samples.y, classes)
            rows[name], done = len(held.ids), done + len(held.ids)
            ids.append(held.ids)
            y.append(held.samples.y.astype(np.int16))
            means.append(mine)
            counts.append(known)
            on_progress(min(done, total), total)
    _check_enough(task, len(rows))
    vectors = np.memmap(work / "embeddings", np.float32, "r").reshape(done, -1)
    digests = np.memmap(work / "digests", np.uint8, "r").reshape(done, -1)
    return Embedded(rows, vectors, digests, np.concatenate(ids), np.concatenate(y), np.stack(means), np.stack(counts))


def _check_enough(task: Task, people: int) -> None:
    minimum = task.privacy.min_cohort
    if people < minimum:
        raise UsageError(
            f"the pool of '{task.id}' has {people} usable contributors, a cohort needs {minimum}",
            hint="ingest more, let some out of quarantine, or publish the task with a smaller privacy.min_cohort",
        )
