"""Cohorts and packs: contributors grouped by style, their samples bundled under pseudonyms. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cloud_aug import vectors
from cloud_aug.pool import Pool
from cloud_aug.pseudonyms import pseudonyms
from edgelearn.retrieval.cohorts import merge_small
from edgelearn.retrieval.prototypes import class_means, residuals
from edgewire.errors import TooLarge
from edgewire.files import digest
from edgewire.samples import Samples, to_bytes

HEADER_BYTES_PER_SAMPLE = 64  # label, codes of user and group, and their names


@dataclass(frozen=True)
class Pack:
    """A bundle of samples of one cohort, ready to publish. names: whose they are; never published."""

    cohort: int
    samples: int
    names: tuple[str, ...]
    data: bytes

    @property
    def contributors(self) -> int:
        """How many."""
        return len(self.names)


def assign_cohorts(
    embeddings: np.ndarray, y: np.ndarray, contributor: np.ndarray, *, n_classes: int, minimum: int, seed: int
) -> np.ndarray:
    """The cohort of each contributor, int (contributors,), by its class-conditional residual prototypes.

    embeddings: float32 (n, dim); y: int (n,); contributor: int (n,), numbered from 0. Cohorts have `minimum` members at
    least, unless there are fewer contributors than that.
    """
    people = int(contributor.max()) + 1
    global_means, _ = class_means(embeddings, y, n_classes)
    features = np.stack([_style(embeddings, y, contributor == i, global_means) for i in range(people)])  # (people, C*d)
    k = max(1, min(math.ceil(math.sqrt(people)), people // minimum))
    return merge_small(features, vectors.kmeans(features, k, seed=seed), minimum)


def _style(embeddings: np.ndarray, y: np.ndarray, rows: np.ndarray, global_means: np.ndarray) -> np.ndarray:
    means, counts = class_means(embeddings[rows], y[rows], len(global_means))
    return residuals(means, counts, global_means).reshape(-1)


def packs(pool: Pool, cohort: np.ndarray, *, task_id: str, secret: bytes, limit_bytes: int) -> Iterator[Pack]:
    """Each cohort's samples as packs of at most about limit_bytes, a contributor in one pack where it fits.

    cohort: int (n,), of each sample. The same pool, cohorts and secret give the same bytes.
    Raises TooLarge if a single sample does not fit.
    """
    row_bytes = pool.samples.x[:1].nbytes + HEADER_BYTES_PER_SAMPLE
    rows_per_pack = limit_bytes // row_bytes
    if rows_per_pack < 1:
        raise TooLarge(
            f"one sample has {row_bytes} bytes, a pack may have {limit_bytes}", hint="raise limits.pack_bytes"
        )
    for k in range(int(cohort.max()) + 1):
        for rows in _chunks(pool.samples.user, np.flatnonzero(cohort == k), rows_per_pack):
            yield _pack(pool, rows, k, task_id, secret)


def _chunks(users: np.ndarray, rows: np.ndarray, most: int) -> Iterator[np.ndarray]:
    """Rows (sorted by user) in pieces of at most `most`, cut between users where possible."""
    current: list[np.ndarray] = []
    size = 0
    starts = np.flatnonzero(np.r_[True, users[rows][1:] != users[rows][:-1]])
    for mine in np.split(rows, starts[1:]):
        if current and size + len(mine) > most:
            yield np.concatenate(current)
            current, size = [], 0
        while len(mine) > most:
            yield mine[:most]
            mine = mine[most:]
        current.append(mine)
        size += len(mine)
    if size:
        yield np.concatenate(current)


def _pack(pool: Pool, rows: np.ndarray, cohort: int, task_id: str, secret: bytes) -> Pack:
    digests = [pool.digests[i] for i in rows.tolist()]
    scope = digest("\n".join(sorted(digests)).encode())  # of the content, so that a rebuild gives the same pseudonyms
    chosen = pool.samples.take(rows)
    names = pseudonyms(secret, scope, chosen.user)
    order = np.lexsort((np.asarray(digests), names))  # by pseudonym: the true names' order must not show
    clean: Samples = chosen.without_metadata(names).take(order)
    contributors = tuple(str(name) for name in np.unique(chosen.user))
    return Pack(cohort, len(clean), contributors, to_bytes(clean, task_id))
