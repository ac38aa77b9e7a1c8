"""What the search index is made of: unit residuals of each class, near duplicates of one contributor left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cloud_aug.bench import Bench, Step
from cloud_aug.embedded import Embedded, Part
from cloud_aug.vectors import Vectors, unit
from edgewire.tensors import Arrays

NEAR_DUPLICATE = 0.005  # of a residual's length: closer ones of one contributor are windows of a sensor at rest
_COMPARED_AT_ONCE = 1024


@dataclass(frozen=True)
class Unstyled:
    """A part embedded. means: digest in the work store of the pool's `means`; held_out: rows of the part that are
    queries to prove the index with."""

    part: Part
    means: str
    held_out: tuple[int, ...]


@dataclass(frozen=True)
class Piece:
    """Some styles of one class. digest: in the work store, of `styles` float32 (rows, dim) and `ids` int64 (rows,)."""

    digest: str
    rows: int


@dataclass(frozen=True)
class Styled:
    """A part's styles. classes: a piece per class; queries: the same of the rows held out."""

    classes: tuple[Piece, ...]
    queries: Piece


def style(bench: Bench, part: Unstyled) -> Styled:
    """The styles of a part, class by class."""
    found, means = bench.kept(part.part.embeddings), bench.kept(part.means)["means"]
    held_out = np.asarray(part.held_out, np.int64)
    chosen = _distinct(found, part.part.rows, means)
    classes = [np.flatnonzero(chosen & (found["y"] == label)) for label in range(len(means))]
    return Styled(tuple(_piece(bench, found, means, rows) for rows in classes), _piece(bench, found, means, held_out))


STYLE = Step(style, Unstyled, Styled)


def unstyled(bench: Bench, embedded: Embedded, *, queries: int, seed: int) -> list[Unstyled]:
    """The parts, and in each of them which samples, of all classes and contributors, are queries."""
    sizes = [sum(part.rows.values()) for part in embedded.parts]
    starts = np.cumsum([0, *sizes])
    n = int(starts[-1])
    rows = np.sort(np.random.default_rng(seed).choice(n, min(n, queries), replace=False))
    means = bench.keep({"means": embedded.global_means})
    return [
        Unstyled(part, means, tuple((rows[(rows >= start) & (rows < start + size)] - start).tolist()))
        for part, start, size in zip(embedded.parts, starts, sizes, strict=False)
    ]


def stream(bench: Bench, pieces: Sequence[Piece]) -> Vectors:
    """Pieces one after the other, again and again."""

    def again() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for piece in pieces:
            if piece.rows:
                found = bench.kept(piece.digest)
                yield found["styles"], found["ids"]

    return again


def _piece(bench: Bench, found: Arrays, means: np.ndarray, rows: np.ndarray) -> Piece:
    if len(rows) == 0:
        return Piece("", 0)
    styles = unit(found["vectors"][rows] - means[found["y"][rows]])[0]
    return Piece(bench.keep({"styles": styles, "ids": found["ids"][rows]}), len(rows))


def _distinct(found: Arrays, contributors: dict[str, int], means: np.ndarray) -> np.ndarray:
    """Which rows, bool (n,), have a style that no earlier one of the same contributor and class nearly has."""
    y, vectors = found["y"], found["vectors"]
    chosen, start = np.zeros(len(y), bool), 0
    for count in contributors.values():
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
