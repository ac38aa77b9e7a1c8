"""The pool as the base sees it: embeddings and digests in the work store, a class mean per contributor in memory.

A part is some contributors; they pass through memory one at a time, so that whoever embeds a part needs little more for
ten million samples than for ten thousand.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cloud_aug import pool, vectors
from cloud_aug.bench import Bench, Step
from edgelearn.retrieval.directory import Directory
from edgelearn.retrieval.prototypes import class_means, residuals
from edgewire.samples import DIGEST_BYTES
from edgewire.tensors import Arrays

ROWS_PER_PART = 1 << 15  # a few seconds of embedding, and eight megabytes of 64 values each


@dataclass(frozen=True)
class People:
    """Contributors to embed, by name."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """Contributors embedded. rows: samples of each, in order of names; embeddings, means: digests in the work store:
    of `vectors` float32 (n, dim), `digests` uint8 (n, 32), `ids` int64 (n,) and `y` int16 (n,); of `means` float32
    (contributors, classes, dim) and `counts` int64 (contributors, classes)."""

    rows: dict[str, int]
    embeddings: str = ""
    means: str = ""


def deal(people: Mapping[str, int]) -> list[People]:
    """Contributors in parts of about ROWS_PER_PART samples. people: how many samples each has."""
    parts: list[list[str]] = []
    room = 0
    for name, rows in people.items():
        if room <= 0:
            parts.append([])
            room = ROWS_PER_PART
        parts[-1].append(name)
        room -= rows
    return [People(tuple(names)) for names in parts]


def embed(bench: Bench, part: People) -> Part:
    """Embed the samples of some contributors. Who has none any more is left out."""
    rows: dict[str, int] = {}
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("vectors", "digests", "ids", "y", "means", "counts")}
    for name, held in pool.each(bench.cloud, bench.task, part.names, now=bench.job.now):
        if len(held.ids) == 0:
            continue  # withdrew meanwhile
        embeddings = bench.encoder.embed(held.samples.x)
        rows[name] = len(held.ids)
        means = class_means(embeddings, held.samples.y, len(bench.task.labels))
        digests = np.frombuffer(bytes.fromhex("".join(held.digests)), np.uint8).reshape(-1, DIGEST_BYTES)
        news = (embeddings, digests, held.ids, held.samples.y.astype(np.int16), means[0][None], means[1][None])
        for column, new in zip(columns.values(), news, strict=True):
            column.append(new)
    if not rows:
        return Part({})
    found = {name: np.concatenate(parts) for name, parts in columns.items()}
    small = {name: found.pop(name) for name in ("means", "counts")}
    return Part(rows, bench.keep(found), bench.keep(small))


EMBED = Step(embed, People, Part)


@dataclass(frozen=True)
class Unassigned:
    """A part's contributors, to be given a cohort each. means: the part's; grouping: digest in the work store of the
    pool's `means` float32 (classes, dim) and of `centres` float32 (k, classes * dim)."""

    means: str
    grouping: str


@dataclass(frozen=True)
class Assigned:
    """cohort: of each contributor of the part."""

    cohort: tuple[int, ...]


def assign(bench: Bench, part: Unassigned) -> Assigned:
    """The nearest centre of each contributor's residual prototypes."""
    people, grouping = bench.kept(part.means), bench.kept(part.grouping)
    nearest = vectors.nearest_centre(_features(people, grouping["means"]), grouping["centres"])
    return Assigned(tuple(nearest.tolist()))


ASSIGN = Step(assign, Unassigned, Assigned)


@dataclass(frozen=True)
class Embedded:
    """All parts together. means: float32 (contributors, classes, dim); counts: int64 (contributors, classes)."""

    parts: tuple[Part, ...]
    means: np.ndarray
    counts: np.ndarray

    @functools.cached_property
    def rows(self) -> dict[str, int]:
        """Samples of each contributor, in order of names."""
        return {name: rows for part in self.parts for name, rows in part.rows.items()}

    @property
    def dim(self) -> int:
        return int(self.means.shape[2])

    @property
    def global_means(self) -> np.ndarray:
        """The pool's mean embedding per class, float32 (classes, dim)."""
        return _mean(self.means, self.counts)[0]

    def features(self) -> np.ndarray:
        """Each contributor's residual prototypes, float32 (contributors, classes * dim)."""
        return _features({"means": self.means, "counts": self.counts}, self.global_means)

    def describe(self, cohort: np.ndarray) -> Directory:
        """The directory of cohorts. cohort: int (contributors,), numbered from 0."""
        everybody, found, known = self.global_means, [], []
        for k in range(int(cohort.max()) + 1):
            means, counts = _mean(self.means[cohort == k], self.counts[cohort == k])
            found.append(residuals(means, counts, everybody))
            known.append(counts)
        return Directory(everybody, np.stack(found), np.stack(known))


def together(bench: Bench, parts: Sequence[Part]) -> Embedded:
    """What the parts, at least one of them with contributors, have found."""
    filled = tuple(part for part in parts if part.rows)
    found = [bench.kept(part.means) for part in filled]
    means, counts = (np.concatenate([one[name] for one in found]) for name in ("means", "counts"))
    return Embedded(filled, means, counts)


def _features(people: Arrays, everybody: np.ndarray) -> np.ndarray:
    pairs = zip(people["means"], people["counts"], strict=True)
    made = [residuals(means, counts, everybody) for means, counts in pairs]
    return np.stack(made).reshape(len(made), -1)


def _mean(means: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over people, weighted by their samples, per class. means: (people, classes, dim)."""
    total = counts.sum(axis=0)
    sums = np.einsum("pcd,pc->cd", means.astype(np.float64), counts.astype(np.float64))
    return (sums / np.maximum(total, 1)[:, None]).astype(np.float32), total
