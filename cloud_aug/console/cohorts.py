"""Cohorts as a map: what sets their prototypes apart most, in two dimensions (principal components)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cloud_aug.cloud import Cloud
from cloud_aug.console.charts import Dot
from cloud_aug.publications import Publication
from edgelearn.retrieval.directory import Directory
from edgewire import tensors
from edgewire.messages import DIRECTORY_LIMIT_BYTES

MOST = 200  # the largest; more would be a blot


@dataclass(frozen=True)
class Map:
    """dots: a cohort each, its weight the samples; coverage: (cohorts, labels), share of the best covered cohort's
    samples of a label; numbers: of the cohorts, largest first; told: how much of the differences the plane shows."""

    dots: tuple[Dot, ...]
    numbers: tuple[int, ...]
    coverage: np.ndarray
    told: float


def drawn(cloud: Cloud, publication: Publication) -> Map:
    """The map of a publication. Raises NotFound or CorruptFile if its directory is gone."""
    raw = cloud.blobs.read(publication.directory.digest)
    arrays, _ = tensors.unpack(raw, what="directory", limit_bytes=DIRECTORY_LIMIT_BYTES)
    directory = Directory(**arrays)
    samples = directory.cohort_counts.sum(axis=1)
    largest = np.argsort(-samples, kind="stable")[:MOST]
    places, told = _plane(directory.cohort_residuals[largest].reshape(len(largest), -1).astype(np.float64))
    people = _people(publication)
    dots = tuple(
        Dot(f"cohort {k}: {samples[k]} samples, {people.get(int(k), 0)} contributors", x, y, float(samples[k]))
        for k, (x, y) in zip(largest, places.tolist(), strict=True)
    )
    counts = directory.cohort_counts[largest]
    return Map(dots, tuple(int(k) for k in largest), counts / np.maximum(counts.max(axis=0), 1), told)


def _plane(rows: np.ndarray) -> tuple[np.ndarray, float]:
    """Rows (n, values) as points (n, 2), and the share of their variance that these show. Through the products of the
    rows: there are few of them, and each is long."""
    centred = rows - rows.mean(axis=0)
    values, vectors = np.linalg.eigh(centred @ centred.T)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])])  # the same map each time
    points = np.zeros((len(rows), 2))
    axes = min(2, len(rows))
    points[:, :axes] = (vectors * signs * np.sqrt(values))[:, :axes]
    total = float(values.sum())
    return points, float(values[:2].sum()) / total if total > 0 else 1.0


def _people(publication: Publication) -> dict[int, int]:
    found: dict[int, int] = {}
    for pack in publication.packs:
        found[pack.cohort] = found.get(pack.cohort, 0) + pack.contributors
    return found
