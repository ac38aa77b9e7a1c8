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

from cloud_aug import roster, styles, vectors
from cloud_aug.bench import Bench, Engine, Step, counted
from cloud_aug.cloud import Cloud
from cloud_aug.embedded import Embedded
from cloud_aug.roster import Roster
from cloud_aug.styles import Piece
from cloud_aug.vectors import SearchIndex
from edgewire import tensors
from edgewire.decoding import convert, decode, encode, plain
from edgewire.errors import InvalidMessage, NotReady
from edgewire.messages import BlobRef, Digest

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


@dataclass(frozen=True)
class ClassOrder:
    """The index of one class to build. pieces: its styles; queries: styles of samples held out, to prove it with;
    budget_bytes: what it may take in memory."""

    pieces: tuple[Piece, ...]
    queries: tuple[Piece, ...]
    dim: int
    budget_bytes: int


def build_class(bench: Bench, order: ClassOrder) -> ClassFile:
    """Build and prove the index of a class, reading its styles in pieces; a sample that several contributors shared is
    in it once, as the first one's by name. Raises TooLarge, EdgeError."""
    known = styles.entries(bench, order.pieces)
    rows = roster.first_of_equal(known["digests"])
    known = {name: column[rows] for name, column in known.items()}
    found, put = styles.stream(bench, order.pieces, rows), bench.cloud.blobs.put
    built = vectors.build(
        found,
        len(rows),
        order.dim,
        budget_bytes=order.budget_bytes,
        queries=np.concatenate([np.zeros((0, order.dim), np.float32), *styles.stream(bench, order.queries)()]),
        held_out=np.flatnonzero(np.isin(known["ids"], styles.entries(bench, order.queries)["ids"])),
    )
    blob = put(built.data)
    bits = put(vectors.build_bits(found, order.dim)).digest if "bits" in bench.task.privacy.modes else None
    files = (blob.digest, blob.size, bits, put(roster.to_bytes(**known)).digest)
    return ClassFile(built.kind, built.vectors, built.probes, built.recall, built.memory_bytes, *files)


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
    names = bench.cloud.blobs.put(encode(list(embedded.rows)))
    document = SearchDocument("search/3", bench.job.onnx, names.digest, embedded.dim, budget, tuple(made))
    return bench.cloud.blobs.put(tensors.pack({"means": embedded.global_means}, plain(document)))


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
