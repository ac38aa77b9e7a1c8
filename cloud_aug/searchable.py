"""The search index of a publication as blobs: a document that names, by digest, the base and a file per class.

Index, class means and encoder belong together: whoever opens the document checks each file against its digest, and the
queries say which base they were made with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta

from cloud_aug import styles, vectors
from cloud_aug.bench import Bench, Engine, Step, counted
from cloud_aug.cloud import Cloud
from cloud_aug.embedded import Embedded
from cloud_aug.styles import Piece
from cloud_aug.vectors import SearchIndex, Vectors
from edgewire import tensors
from edgewire.decoding import convert, plain
from edgewire.errors import InvalidMessage, NotReady
from edgewire.messages import BlobRef, Digest

DOCUMENT_LIMIT_BYTES = 64 << 20
QUERIES = 200  # held out, to prove an index


@dataclass(frozen=True)
class ClassFile:
    """The index of one class. See `vectors.Built`; size: of its file in bytes; bits: the index over sign bits."""

    kind: str
    vectors: int
    probes: int
    recall: float
    memory_bytes: int
    digest: Digest
    size: int
    bits: Digest | None


@dataclass(frozen=True)
class SearchDocument:
    """base: digest of the ONNX file whose embeddings are in it."""

    format: Literal["search/2"]
    base: Digest
    dim: Annotated[int, Meta(ge=1)]
    budget_bytes: int
    classes: tuple[ClassFile, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """The digests of all files."""
        return tuple(name for one in self.classes for name in (one.digest, one.bits) if name is not None)


@dataclass(frozen=True)
class ClassOrder:
    """The index of one class to build. pieces: its styles; queries: styles of samples held out, to prove it with;
    budget_bytes: what it may take in memory."""

    pieces: tuple[Piece, ...]
    queries: tuple[Piece, ...]
    dim: int
    budget_bytes: int


def build_class(bench: Bench, order: ClassOrder) -> ClassFile:
    """Build and prove the index of a class, reading its styles in pieces. Raises TooLarge, EdgeError."""
    found, n = styles.stream(bench, order.pieces), sum(piece.rows for piece in order.pieces)
    queries, held_out = _all(styles.stream(bench, order.queries), order.dim)
    built = vectors.build(found, n, order.dim, budget_bytes=order.budget_bytes, queries=queries, held_out=held_out)
    put = bench.cloud.blobs.put
    blob = put(built.data)
    bits = put(vectors.build_bits(found, order.dim)).digest if "bits" in bench.task.privacy.modes else None
    sizes = (built.memory_bytes, blob.digest, blob.size)
    return ClassFile(built.kind, built.vectors, built.probes, built.recall, *sizes, bits)


BUILD_CLASS = Step(build_class, ClassOrder, ClassFile)


def write(
    bench: Bench, embedded: Embedded, engine: Engine, *, seed: int, on_progress: Callable[[int, int], None]
) -> BlobRef:
    """Build and prove an index per class, each within its share of the memory allowed. Raises TooLarge, EdgeError."""
    budget, of_class = bench.cloud.settings.limits.index_mib << 20, embedded.counts.sum(axis=0)
    share = of_class / max(1, of_class.sum())
    parts = styles.unstyled(bench, embedded, queries=QUERIES, seed=seed)
    one_more = counted(on_progress, len(parts) + len(share))
    styled = engine.each(bench, styles.STYLE, parts, one_more)
    queries = tuple(one.queries for one in styled)
    orders = [
        ClassOrder(tuple(one.classes[label] for one in styled), queries, embedded.dim, int(budget * of_all))
        for label, of_all in enumerate(share)
    ]
    made = engine.each(bench, BUILD_CLASS, orders, one_more)
    document = SearchDocument("search/2", bench.job.onnx, embedded.dim, budget, tuple(made))
    return bench.cloud.blobs.put(tensors.pack({"means": embedded.global_means}, plain(document)))


def _all(pieces: Vectors, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """What is small enough to be in memory together."""
    rows = [(np.zeros((0, dim), np.float32), np.zeros(0, np.int64)), *pieces()]
    return np.concatenate([found for found, _ in rows]), np.concatenate([ids for _, ids in rows])


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


def load(cloud: Cloud, search: str) -> SearchIndex:
    """The index, mapped from its files after each was checked. Raises what `read` does, and CorruptFile."""
    document, means = read(cloud, search)
    for name in document.files:
        cloud.blobs.check(name)
    files = [cloud.blobs.path(one.digest) for one in document.classes]
    bits = [cloud.blobs.path(one.bits) for one in document.classes if one.bits is not None]
    return SearchIndex(document.base, files, [one.probes for one in document.classes], means, bits)
