"""Which batches may still be used: asked of the database once, then remembered until something leaves use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cloud_aug import batches, changes
from cloud_aug.cloud import Cloud

_UNKNOWN, _DEAD = -1.0, 0.0


@dataclass(frozen=True)
class _Known:
    """until: when the consent to each batch ends, in seconds since 1970; 0: it must not be used. Sorted by batch."""

    word: str
    batches: np.ndarray
    until: np.ndarray


class Living:
    """What is known of the batches of one task. Safe to use from many threads: what is known is replaced whole."""

    def __init__(self, cloud: Cloud, task: str) -> None:
        self._cloud, self._task = cloud, task
        self._known = _Known("", np.zeros(0, np.int64), np.zeros(0))

    def usable(self, numbers: np.ndarray, *, now: float) -> np.ndarray:
        """Whether each of these batches, int64 (n,), may be used now, bool (n,)."""
        with self._cloud.database.reading() as connection:
            word = changes.word(connection)
            known = self._known if self._known.word == word else _Known(word, np.zeros(0, np.int64), np.zeros(0))
            until = _look_up(known, numbers)
            # a consent that ended may have been given again
            asked = np.unique(numbers[(until == _UNKNOWN) | ((until != _DEAD) & (until <= now))])
            if len(asked):
                found = batches.usable_until(connection, self._task, asked.tolist(), now=now)
                known = _merged(known, asked, np.asarray([found.get(int(number), _DEAD) for number in asked]))
        self._known = known
        return _look_up(known, numbers) > now


def _look_up(known: _Known, numbers: np.ndarray) -> np.ndarray:
    place = np.searchsorted(known.batches, numbers)
    there = place < len(known.batches)
    there[there] = known.batches[place[there]] == numbers[there]
    until = np.full(len(numbers), _UNKNOWN)
    until[there] = known.until[place[there]]
    return until


def _merged(known: _Known, numbers: np.ndarray, until: np.ndarray) -> _Known:
    kept = ~np.isin(known.batches, numbers)
    everything = np.concatenate([known.batches[kept], numbers])
    order = np.argsort(everything, kind="stable")
    return _Known(known.word, everything[order], np.concatenate([known.until[kept], until])[order])
