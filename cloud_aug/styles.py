"""What the search index is made of: unit residuals of each class, near duplicates of one contributor left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cloud_aug.bench import Bench, Step
from cloud_aug.embedded import Embedded, Part
from cloud_aug.vectors import Vectors, unit
from edgewire.samples import DIGEST_BYTES
from edgewire.tensors import Arrays

NEAR_DUPLICATE = 0.005  # of a residual's length: closer ones of one contributor are windows of a sensor at rest
_COMPARED_AT_ONCE = 1024


@dataclass(frozen=True)
class Unstyled:
    """A part embedded. first: place of its first contributor among all; means: digest in the work store of the pool's
    `means`; held_out: rows of the part that are queries to prove the index with."""

    part: Part
    first: int
    means: str
    held_out: tuple[int, ...]


@dataclass(frozen=True)
class Piece:
    """Some samples, of one class but for queries. styles, entries: digests in the work store, of `styles` float32
    (rows, dim); of `ids` int64 (rows,), `people` int32 (rows,), ascending, and `digests` uint8 (rows, 32)."""

    rows: int
    styles: str = ""
    entries: str = ""


@dataclass(frozen=True)
class Styled:
    """A part's styles. classes: a piece per class; queries: the same of the rows held out."""

    classes: tuple[Piece, ...]
    queries: Piece


def style(bench: Bench, part: Unstyled) -> Styled:
    """The styles of a part, class by class."""
    found, means = bench.kept(part.part.embeddings), bench.kept(part.means)["means"]
    held_out = np.asarray(part.held_out, np.int64)
    counts = list(part.part.rows.values())
    found["people"] = np.repeat(np.arange(part.first, part.first + len(counts), dtype=np.int32), counts)
    chosen = _distinct(found, counts, means)
    classes = [np.flatnonzero(chosen & (found["y"] == label)) for label in range(len(means))]
    return Styled(tuple(_piece(bench, found, means, rows) for rows in classes), _piece(bench, found, means, held_out))


STYLE = Step(style, Unstyled, Styled)


def unstyled(bench: Bench, embedded: Embedded, *, queries: int, seed: int) -> list[Unstyled]:
    """The parts, and in each of them which samples, of all classes and contributors, are queries."""
    sizes = [sum(part.rows.values()) for part in embedded.parts]
    starts, first = np.cumsum([0, *sizes]), np.cumsum([0, *(len(part.rows) for part in embedded.parts)])
    n = int(starts[-1])
    rows = np.sort(np.random.default_rng(seed).choice(n, min(n, queries), replace=False))
    means = bench.keep({"means": embedded.global_means})
    return [
        Unstyled(part, int(who), means, tuple((rows[(rows >= start) & (rows < start + size)] - start).tolist()))
        for part, who, start, size in zip(embedded.parts, first[:-1], starts[:-1], sizes, strict=True)
    ]


def entries(bench: Bench, pieces: Sequence[Piece]) -> Arrays:
    """What is known of all samples of some pieces but their styles, in order."""
    none: Arrays = {
        "ids": np.zeros(0, np.int64),
        "people": np.zeros(0, np.int32),
        "digests": np.zeros((0, DIGEST_BYTES), np.uint8),
    }
    found = [none, *(bench.kept(piece.entries) for piece in pieces if piece.rows)]
    return {name: np.concatenate([one[name] for one in found]) for name in none}


def stream(bench: Bench, pieces: Sequence[Piece], rows: np.ndarray | None = None) -> Vectors:
    """The styles of pieces one after the other, again and again; of all their rows only these, int (n,), ascending."""
    starts = np.cumsum([0, *(piece.rows for piece in pieces)])

    def again() -> Iterator[np.ndarray]:
        for piece, start, end in zip(pieces, starts[:-1], starts[1:], strict=True):
            here = np.arange(start, end) if rows is None else rows[slice(*np.searchsorted(rows, (start, end)))]
            if len(here):
                yield bench.kept(piece.styles)["styles"][here - start]

    return again


def _piece(bench: Bench, found: Arrays, means: np.ndarray, rows: np.ndarray) -> Piece:
    if len(rows) == 0:
        return Piece(0)
    styles = unit(found["vectors"][rows] - means[found["y"][rows]])[0]
    known = {name: found[name][rows] for name in ("ids", "people", "digests")}
    return Piece(len(rows), bench.keep({"styles": styles}), bench.keep(known))


def _distinct(found: Arrays, counts: Sequence[int], means: np.ndarray) -> np.ndarray:
    """Which rows, bool (n,), have a style that no earlier one of the same contributor and class nearly has."""
    y, vectors = found["y"], found["vectors"]
    chosen, start = np.zeros(len(y), bool), 0
    for count in counts:
        for label in np.unique(y[start : start + count]).tolist():
            rows = start + np.flatnonzero(y[start : start + count] == label)
            chosen[rows] = _first_of_alike(vectors[rows] - means[label])
        start += count
    return chosen


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
