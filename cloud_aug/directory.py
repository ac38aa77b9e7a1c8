"""Cohorts and packs: contributors grouped by style, their samples bundled under pseudonyms. Pure functions.

Boards fetch what changed, so what need not change stays: who has a cohort and a pack keeps them in the next build, new
contributors go where there is room. Everything is grouped anew only when the pool has doubled or halved since, or the
base, the seed or the minimum changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cloud_aug import vectors
from cloud_aug.pseudonyms import pseudonyms
from edgelearn.retrieval.cohorts import merge_small
from edgewire.errors import TooLarge
from edgewire.files import digest
from edgewire.samples import Samples, to_bytes

HEADER_BYTES_PER_SAMPLE = 64  # label, codes of user and group, and their names


@dataclass(frozen=True)
class Place:
    """Where a contributor's samples are. pack: a number that no other cohort has."""

    cohort: int
    pack: int


@dataclass(frozen=True)
class Layout:
    """Where everybody is. made_from: base, seed and minimum; grouped: how many contributors there were when cohorts
    were made anew."""

    made_from: str
    grouped: int
    places: dict[str, Place]


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


def arrange(
    features: np.ndarray,
    rows: Mapping[str, int],
    before: Layout | None,
    *,
    made_from: str,
    minimum: int,
    rows_per_pack: int,
    cluster: Callable[[int], np.ndarray],
) -> Layout:
    """Give every contributor a cohort of `minimum` members at least, and a pack in it.

    features: float32 (contributors, dim), residual prototypes in order of `rows`; rows: how many samples of each are
    published; before: the layout of the last build; cluster: groups contributors into so many clusters, int
    (contributors,).
    """
    names = list(rows)
    kept = before if before is not None and _still_good(before, made_from, len(names)) else None
    old = kept.places if kept is not None else {}
    if kept is None:
        k = max(1, min(math.ceil(math.sqrt(len(names))), len(names) // minimum))
        cohort = cluster(k)
    else:
        cohort = _join_nearest(features, np.asarray([old[name].cohort if name in old else -1 for name in names]))
    cohort = merge_small(features, cohort, minimum)
    pack = _fill(names, cohort, rows, {name: place.pack for name, place in old.items()}, minimum, rows_per_pack)
    places = {name: Place(int(cohort[i]), pack[name]) for i, name in enumerate(names)}
    return Layout(made_from, kept.grouped if kept is not None else len(names), places)


def _still_good(before: Layout, made_from: str, people: int) -> bool:
    return before.made_from == made_from and before.grouped / 2 <= people <= before.grouped * 2


def _join_nearest(features: np.ndarray, cohort: np.ndarray) -> np.ndarray:
    """Members stay; newcomers (-1) join the cohort whose members' mean is nearest."""
    known = cohort >= 0
    if not known.any():
        return np.zeros(len(cohort), np.int64)
    there, numbered = np.unique(cohort[known], return_inverse=True)
    centres = np.stack([features[known][numbered.reshape(-1) == i].mean(axis=0) for i in range(len(there))])
    joined = cohort.copy()
    joined[~known] = there[vectors.nearest(features[~known], centres)]
    return np.asarray(joined)


def _fill(
    names: Sequence[str],
    cohort: np.ndarray,
    rows: Mapping[str, int],
    old: Mapping[str, int],
    minimum: int,
    rows_per_pack: int,
) -> dict[str, int]:
    """A pack for everybody: its old one while it has room, else one of the same cohort that has, else a new one."""
    found: dict[str, int] = {}
    fresh = max(old.values(), default=-1) + 1
    for k in range(int(cohort.max()) + 1):
        members = [names[i] for i in np.flatnonzero(cohort == k).tolist()]
        packs: dict[int, list[str]] = {}
        newcomers = []
        for name in members:
            mine = packs.setdefault(old[name], []) if name in old else None
            if mine is not None and (len(mine) < minimum or _rows(mine, rows) + rows[name] <= rows_per_pack):
                mine.append(name)
            else:
                newcomers.append(name)
        last = max(packs, default=-1)
        for name in newcomers:
            mine = packs.get(last, [])
            if last < 0 or (len(mine) >= minimum and _rows(mine, rows) + rows[name] > rows_per_pack):
                last, fresh = fresh, fresh + 1
            packs.setdefault(last, []).append(name)
        found |= {name: number for number, mine in _merged(packs, minimum).items() for name in mine}
    return found


def _rows(names: Sequence[str], rows: Mapping[str, int]) -> int:
    return sum(rows[name] for name in names)


def _merged(packs: dict[int, list[str]], minimum: int) -> dict[int, list[str]]:
    """No pack of fewer than `minimum`: a smaller one joins the smallest of the others."""
    while len(packs) > 1 and min(len(mine) for mine in packs.values()) < minimum:
        smallest = min(packs, key=lambda number: (len(packs[number]), number))
        gone = packs.pop(smallest)
        packs[min(packs, key=lambda number: (len(packs[number]), number))] += gone
    return packs


def rows_per_pack(row_bytes: int, limit_bytes: int) -> int:
    """How many samples a pack may have. Raises TooLarge if not even one fits."""
    most = limit_bytes // (row_bytes + HEADER_BYTES_PER_SAMPLE)
    if most < 1:
        raise TooLarge(
            f"one sample has {row_bytes} bytes, a pack may have {limit_bytes}", hint="raise limits.pack_bytes"
        )
    return most


def make_pack(
    samples: Samples, digests: Sequence[str], *, cohort: int, withdrawn: int, task_id: str, secret: bytes
) -> Pack:
    """A pack of these samples. The same samples, withdrawals and secret give the same bytes.

    withdrawn: how often its contributors have withdrawn before, in all: a pack that was withdrawn stays so, and who
    consents to the same samples again is in another one.
    """
    # of the content, so that a rebuild gives the same pseudonyms
    scope = digest("\n".join([*sorted(digests), *([str(withdrawn)] if withdrawn else [])]).encode())
    names = pseudonyms(secret, scope, samples.user)
    order = np.lexsort((np.asarray(digests), names))  # by pseudonym: the true names' order must not show
    clean = samples.without_metadata(names).take(order)
    contributors = tuple(str(name) for name in np.unique(samples.user))
    return Pack(cohort, len(clean), contributors, to_bytes(clean, task_id))
