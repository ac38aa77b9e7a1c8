"""Energy from readings of power: the trapezoid rule over a clock that never jumps, with how far it can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Quality = Literal["measured", "modelled", "none"]


@dataclass(frozen=True)
class Energy:
    """joules: None where it is unknown, and `reason` says why. above_idle_j: without what the board takes doing
    nothing. seconds: between the first and the last reading of power; readings: of power; largest_gap_s: between two of
    them, across which a straight line was assumed. quality: of the worst reading."""

    joules: float | None
    above_idle_j: float | None
    seconds: float
    readings: int
    largest_gap_s: float
    quality: Quality
    reason: str = ""

    def per(self, count: int) -> float | None:
        """Joules above idle for each of `count` steps; None: unknown."""
        return None if self.above_idle_j is None or count < 1 else self.above_idle_j / count


class Meter:
    """Adds up readings as they come."""

    def __init__(self) -> None:
        self._joules = self._seconds = self._largest_gap_s = 0.0
        self._readings = 0
        self._last: tuple[float, float] | None = None
        self._quality: Quality = "none"
        self._reason = "nothing was read"

    def add(self, at_s: float, power_w: float | None, quality: Quality, *, reason: str = "") -> None:
        """at_s: monotonic; one that is not later than the last is dropped. reason: why power is None."""
        if power_w is None:
            self._reason = reason or "power is not known"
            return
        if self._last is not None:
            passed = at_s - self._last[0]
            if passed <= 0:
                return
            self._joules += passed * (self._last[1] + power_w) / 2
            self._seconds += passed
            self._largest_gap_s = max(self._largest_gap_s, passed)
        self._last = (at_s, power_w)
        self._readings += 1
        self._quality = quality if self._quality == "none" or quality == "modelled" else self._quality

    def pause(self) -> None:
        """What passes until the next reading is not counted."""
        self._last = None

    def total(self, *, idle_w: float | None = None) -> Energy:
        """All so far. idle_w: what the board takes doing nothing; None: unknown, so what is above it is, too."""
        gap_s = self._largest_gap_s
        if self._seconds <= 0.0:
            reason = self._reason if self._readings == 0 else "one reading of power adds up to nothing"
            return Energy(None, None, 0.0, self._readings, gap_s, "none", reason)
        above = None if idle_w is None else self._joules - idle_w * self._seconds
        return Energy(self._joules, above, self._seconds, self._readings, gap_s, self._quality)

    @property
    def mean_w(self) -> float | None:
        """Mean power over the time covered; None: unknown."""
        return self._joules / self._seconds if self._seconds > 0 else None
