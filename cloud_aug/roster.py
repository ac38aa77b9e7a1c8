"""What a search has to know of every sample in the index: whose it is, its digest, where in the pool it lies.

A file per class lies beside the class's index and is mapped like it. A sample's number in the index is the place of its
entry, so that nothing has to be looked up to answer with digests; contributors follow each other in order of names. A
sample that several of them shared is there once.
"""

from __future__ import annotations

import bisect
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgewire.errors import CorruptFile
from edgewire.samples import DIGEST_BYTES

# id: in the pool; person: place in the list of names; sorted: the entry that has this place in order of digests
ENTRY = np.dtype([("id", "<i8"), ("person", "<i4"), ("sorted", "<u4"), ("digest", "u1", (DIGEST_BYTES,))])


_WORDS = ENTRY.itemsize // 8


def _words(entries: np.ndarray) -> np.ndarray:
    """The same memory as uint64 (n, _WORDS): numpy copies these twenty times as fast as entries with fields."""
    return entries.view(np.uint64).reshape(-1, _WORDS)


def to_bytes(ids: np.ndarray, people: np.ndarray, digests: np.ndarray) -> bytes:
    """The entries of one class. ids, people: int (n,), people ascending; digests: uint8 (n, 32)."""
    entries = np.empty(len(ids), ENTRY)
    entries["id"], entries["person"], entries["digest"] = ids, people, digests
    entries["sorted"] = np.argsort(_heads(digests), kind="stable")
    file = io.BytesIO()
    np.save(file, entries)
    return file.getvalue()


def _heads(digests: np.ndarray) -> np.ndarray:
    """The first eight bytes of digests, uint8 (..., 32), as numbers that sort alike."""
    return np.ascontiguousarray(digests[..., :8]).view(">u8")[..., 0].astype(np.uint64)


class Roster:
    """The entries of all classes, mapped. Rows are numbered through: those of the first class, then of the second."""

    def __init__(self, names: Sequence[str], files: Sequence[Path]) -> None:
        """names: of contributors, in order. Raises CorruptFile."""
        try:
            self._classes = [np.asarray(np.load(file, mmap_mode="r", allow_pickle=False)) for file in files]
        except (ValueError, OSError) as error:
            raise CorruptFile(f"the search index cannot be read: {error}", hint="build the index again") from None
        if any(entries.dtype != ENTRY for entries in self._classes):
            raise CorruptFile("the search index has entries of another form", hint="build the index again")
        self._names = names
        self.starts = np.cumsum([0, *map(len, self._classes)])[:-1]

    def entries(self, rows: np.ndarray) -> np.ndarray:
        """ENTRY (n,) of these rows, int (n,)."""
        found, label = np.empty((len(rows), _WORDS), np.uint64), np.searchsorted(self.starts, rows, side="right") - 1
        for i, (start, entries) in enumerate(zip(self.starts, self._classes, strict=True)):
            here = np.flatnonzero(label == i)
            found[here] = _words(entries).take(rows[here] - start, axis=0)
        return found.view(ENTRY)[:, 0]

    def own(self, contributor: str) -> list[np.ndarray]:
        """A contributor's numbers in the index of each class, int (n,)."""
        place = bisect.bisect_left(self._names, contributor)
        if place == len(self._names) or self._names[place] != contributor:
            return [np.zeros(0, np.int64) for _ in self._classes]
        people = [entries["person"] for entries in self._classes]
        ranges = [(bisect.bisect_left(who, place), bisect.bisect_right(who, place)) for who in people]
        return [np.arange(start, end) for start, end in ranges]

    def find(self, digests: np.ndarray) -> np.ndarray:
        """The rows of those of these digests, uint8 (n, 32), that are in the index, int (m,), in the order asked."""
        found, wanted = np.full(len(digests), -1, np.int64), _heads(digests)
        for start, entries in zip(self.starts, self._classes, strict=True):
            if len(entries) == 0:
                continue
            place = np.minimum(_bisect(entries, wanted), len(entries) - 1)
            rows = entries["sorted"][place].astype(np.int64)
            same = (entries["digest"][rows] == digests).all(axis=1)
            found[same] = start + rows[same]
        return found[found >= 0]


def _bisect(entries: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each head, uint64 (n,), begins in order of digests: a search that touches few of the entries."""
    low, high = np.zeros(len(wanted), np.int64), np.full(len(wanted), len(entries), np.int64)
    while (open_ := low < high).any():
        middle = np.minimum((low + high) // 2, len(entries) - 1)
        before = open_ & (_heads(entries["digest"][entries["sorted"][middle]]) < wanted)
        low, high = np.where(before, middle + 1, low), np.where(open_ & ~before, middle, high)
    return low


def first_of_equal(digests: np.ndarray) -> np.ndarray:
    """The first place of each digest among these, uint8 (n, 32), ascending."""
    heads = _heads(digests)
    if len(np.unique(heads)) == len(heads):  # nearly always, and much faster to see
        return np.arange(len(heads))
    whole = np.ascontiguousarray(digests).view(f"S{digests.shape[1]}").reshape(-1)
    return np.sort(np.unique(whole, return_index=True)[1])
