"""When to do something again: at an interval with jitter, so that a fleet that started together does not stay together;
after failures sooner, and then less and less often."""

from __future__ import annotations

from random import Random

FIRST_RETRY_S = 60.0
_JITTER = 0.1


class Pace:
    """Due at once, then every `every_s`, give or take a tenth. Times are those of a clock that never jumps, in s."""

    def __init__(self, every_s: float, rng: Random) -> None:
        self.every_s, self._rng = every_s, rng
        self._next = float("-inf")
        self._failures = 0

    def due(self, now: float) -> bool:
        return now >= self._next

    def done(self, now: float) -> None:
        """It went well."""
        self._failures = 0
        self._next = now + self.every_s * self._rng.uniform(1 - _JITTER, 1 + _JITTER)

    def reset(self) -> None:
        """Due again at once, and nothing failed."""
        self._failures, self._next = 0, float("-inf")

    def failed(self, now: float) -> float:
        """It did not: seconds until the next try, twice as long each time up to the interval, between half and all of
        that by chance."""
        most = min(FIRST_RETRY_S * 2.0 ** min(self._failures, 20), max(self.every_s, FIRST_RETRY_S))
        self._failures += 1
        wait_s = most * self._rng.uniform(0.5, 1.0)
        self._next = now + wait_s
        return wait_s
