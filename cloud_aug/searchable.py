"""The search index of a publication as blobs: a document that names, by digest, the base, an index per class, and
beside each the roster of its samples.

Index, class means and encoder belong together: whoever opens the document checks each file against its digest, and the
queries say which base they were made with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta

from cloud_aug import roster, vectors
from cloud_aug.cloud import Cloud
from cloud_aug.embedded import Embedded
from cloud_aug.roster import Roster
from cloud_aug.vectors import SearchIndex
from edgewire import tensors
from edgewire.decoding import convert, decode, encode, plain
from edgewire.errors import InvalidMessage, NotReady
from edgewire.messages import BlobRef, Digest
from edgewire.tasks import Task

DOCUMENT_LIMIT_BYTES = 64 << 20
QUERIES = 200  # held out, to prove an index


@dataclass(frozen=True)
class ClassFile:
    """The index of one class. See `vectors.Built`; size: of its file in bytes; bits: the index over sign bits; roster:
    see `roster.py`."""

    kind: str
    vectors: int
    probes: int
    recall: float
    memory_bytes: int
    digest: Digest
    size: int
    bits: Digest | None
    roster: Digest


@dataclass(frozen=True)
class SearchDocument:
    """base: digest of the ONNX file whose embeddings are in it; names: of the contributors, a JSON list."""

    format: Literal["search/3"]
    base: Digest
    names: Digest
    dim: Annotated[int, Meta(ge=1)]
    budget_bytes: int
    classes: tuple[ClassFile, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """The digests of all files."""
        each = [name for one in self.classes for name in (one.digest, one.bits, one.roster) if name is not None]
        return (self.names, *each)


@dataclass(frozen=True)
class Searchable:
    """What a search needs, mapped from files."""

    index: SearchIndex
    roster: Roster


def write(
    cloud: Cloud, task: Task, embedded: Embedded, base: str, *, seed: int, on_progress: Callable[[int, int], None]
) -> BlobRef:
    """Build and prove an index per class, each within its share of the memory allowed. Raises TooLarge, EdgeError."""
    budget = cloud.settings.limits.index_mib << 20
    dim, classes = embedded.vectors.shape[1], len(task.labels)
    queries, held_out = _held_out(embedded, seed)
    share = np.bincount(embedded.y, minlength=classes) / max(1, len(embedded.y))
    made = []
    for label in range(classes):
        rows = embedded.indexed(label)
        styles, place = embedded.styles(rows, label), np.flatnonzero(np.isin(rows, held_out))
        allowed = int(budget * share[label])
        built = vectors.build(styles, len(rows), dim, budget_bytes=allowed, queries=queries, held_out=place)
        blob = cloud.blobs.put(built.data)
        bits = cloud.blobs.put(vectors.build_bits(styles, dim)).digest if "bits" in task.privacy.modes else None
        entries = roster.to_bytes(embedded.ids[rows], embedded.people(rows), embedded.digests[rows])
        files = (blob.digest, blob.size, bits, cloud.blobs.put(entries).digest)
        made.append(ClassFile(built.kind, built.vectors, built.probes, built.recall, built.memory_bytes, *files))
        on_progress(label + 1, classes)
    names = cloud.blobs.put(encode(list(embedded.rows)))
    document = SearchDocument("search/3", base, names.digest, dim, budget, tuple(made))
    return cloud.blobs.put(tensors.pack({"means": embedded.global_means}, plain(document)))


def _held_out(embedded: Embedded, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Styles of some samples, of all classes, and which those are."""
    n = len(embedded.ids)
    rows = np.sort(np.random.default_rng(seed).choice(n, min(n, QUERIES), replace=False))
    means = embedded.global_means[embedded.y[rows]]
    return vectors.unit(embedded.vectors[rows] - means)[0], rows


def read(cloud: Cloud, search: str) -> tuple[SearchDocument, np.ndarray]:
    """The document and the class means. Raises NotFound, CorruptFile, or NotReady for one of an older release."""
    raw = cloud.blobs.read(search)
    try:
        arrays, meta = tensors.unpack(raw, what="search index", limit_bytes=DOCUMENT_LIMIT_BYTES)
        document = convert(SearchDocument, meta, what="search index")
    except InvalidMessage:
        hint = "the administrator has to run 'cloud-aug index build'"
        raise NotReady("the search index was built by an older release", hint=hint, retry_after_s=60.0) from None
    return document, arrays["means"]


def load(cloud: Cloud, search: str) -> Searchable:
    """Index and roster, mapped from their files after each was checked. Raises what `read` does, and CorruptFile."""
    document, means = read(cloud, search)
    for name in document.files:
        cloud.blobs.check(name)
    names = decode(tuple[str, ...], cloud.blobs.read(document.names), what="names", limit_bytes=DOCUMENT_LIMIT_BYTES)
    files = [cloud.blobs.path(one.digest) for one in document.classes]
    bits = [cloud.blobs.path(one.bits) for one in document.classes if one.bits is not None]
    index = SearchIndex(document.base, files, [one.probes for one in document.classes], means, bits)
    return Searchable(index, Roster(names, [cloud.blobs.path(one.roster) for one in document.classes]))
