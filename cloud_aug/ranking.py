"""Which of the neighbours that were found a board is told of: what may be used, and of no contributor too many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

LARGEST_SHARE = 0.2  # of an answer that one contributor may have
_JUDGED = 4  # times as many as may be told: one question must not ask about the whole pool


@dataclass(frozen=True)
class Ranked:
    """digests: uint8 (m, 32), best ranks first; rows: int32 (n, classes, k), whose digest each neighbour is, -1 for one
    that is left out; scores: float32 (n, classes, k), 0 there."""

    digests: np.ndarray
    rows: np.ndarray
    scores: np.ndarray


def rank(
    scores: np.ndarray,
    rows: np.ndarray,
    *,
    entries: Callable[[np.ndarray], np.ndarray],
    usable: Callable[[np.ndarray], np.ndarray],
    most: int,
) -> Ranked:
    """Order what was found and leave out what must not be told. scores, rows: (n, classes, k), rows of the roster, -1
    for none; entries: of rows; usable: which ids may be used, bool (n,); most: digests."""
    order, ranked = _by_rank(scores, rows)
    names, first, inverse = np.unique(ranked, return_index=True, return_inverse=True)
    best = np.argsort(first, kind="stable")
    best = best[names[best] >= 0][: _JUDGED * most]
    held = entries(names[best])
    alive = usable(held["id"])
    best, held = best[alive], held[alive]
    kept = fair(held["person"][:most])
    of_name = np.full(len(names), -1, np.int32)
    of_name[best[kept]] = np.arange(len(kept))
    places = np.empty(ranked.shape, np.int32)
    np.put_along_axis(places, order, of_name[inverse.reshape(ranked.shape)], axis=1)
    shaped = np.ascontiguousarray(places.reshape(rows.shape[2], *rows.shape[:2]).transpose(1, 2, 0))
    told = np.where(shaped >= 0, scores, 0.0).astype(np.float32)
    return Ranked(np.ascontiguousarray(held["digest"][kept]), shaped, told)


def _by_rank(scores: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows (k, n * classes): the nearest of every query and class first, so that a cut is fair to all; among these the
    best score first; and the order that made it so."""
    k = rows.shape[2]
    found, how_good = (part.transpose(2, 0, 1).reshape(k, -1) for part in (rows, scores))
    order = np.argsort(-how_good, axis=1, kind="stable")
    return order, np.take_along_axis(found, order, axis=1)


def fair(person: np.ndarray) -> np.ndarray:
    """Which of an answer's rows, best first, to keep, so that no person, int (n,), has more than a fifth (an equal
    share where there are fewer than five)."""
    place, people = _place_within(person), len(np.unique(person))
    share = max(LARGEST_SHARE, 1 / max(1, people))
    allowed = max(1, int(len(person) * share))
    while (kept := int((place < allowed).sum())) and allowed > 1 and allowed > kept * share:
        allowed -= 1
    return np.flatnonzero(place < allowed)


def _place_within(person: np.ndarray) -> np.ndarray:
    """How many rows of the same person come before each, int (n,)."""
    order = np.argsort(person, kind="stable")
    starts = np.r_[0, np.flatnonzero(np.diff(person[order])) + 1]
    sizes = np.diff(np.r_[starts, len(person)])
    place = np.empty(len(person), np.int64)
    place[order] = np.arange(len(person)) - np.repeat(starts, sizes)
    return place
