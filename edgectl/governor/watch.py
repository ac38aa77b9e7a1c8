"""What the board's sensors said last, and the energy that was used. They are read at most once a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from edgectl.telemetry.reading import Reading

READ_EVERY_S = 1.0
_LONGEST_GAP_S = 60.0  # a longer one is a clock that jumped, or a board that slept: nothing is known of it


class Watch:
    """read: a reading of the sensors. modelled_w: what the board draws at the most, counted where nothing measures it
    (None: not known)."""

    def __init__(
        self,
        read: Callable[[], Reading],
        *,
        modelled_w: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read, self._modelled_w, self._clock = read, modelled_w, clock
        self._joules = 0.0
        self._at = clock()
        self.reading = read()
        self._energy_j = self.reading.energy_j

    def look(self) -> Reading | None:
        """A new reading; None if the last one is less than READ_EVERY_S old."""
        gap_s = self._clock() - self._at
        if 0.0 <= gap_s < READ_EVERY_S:
            return None
        self._at += gap_s
        self.reading = self._read()
        self._count(gap_s if 0.0 <= gap_s <= _LONGEST_GAP_S else 0.0)
        return self.reading

    def _count(self, gap_s: float) -> None:
        """Add what was used since the reading before. Where the meter is gone, the model takes its place."""
        energy_j = self.reading.energy_j
        if energy_j is not None and self._energy_j is not None:
            self._joules += max(energy_j - self._energy_j, 0.0)
        elif energy_j is None:
            self._joules += (self._modelled_w or 0.0) * gap_s
        self._energy_j = energy_j

    def joules(self) -> float:
        """Used since this watch began."""
        return self._joules

    @property
    def quality(self) -> Literal["measured", "modelled", "none"]:
        """Of `joules`: 'none' where no meter is there and no model either."""
        if self.reading.energy_j is not None:
            return self.reading.power_quality
        return "none" if self._modelled_w is None else "modelled"
