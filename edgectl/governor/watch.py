"""What the board's sensors said last, and the energy that was used. They are read at most once a second."""

from __future__ import annotations

import time
from collections.abc import Callable

from edgectl.telemetry.energy import Energy, Quality
from edgectl.telemetry.reading import Reading

READ_EVERY_S = 1.0
# A longer one is a clock that jumped, or a board that slept: nothing is known of it. To load torch and the packs from
# an SD card may take a slow board minutes.
_LONGEST_GAP_S = 600.0


class Watch:
    """read: a reading of the sensors. modelled_w: what the board draws at the most, counted where nothing measures it
    (None: not known). idle_w: what it draws doing nothing; None takes what it drew when the watch began."""

    def __init__(
        self,
        read: Callable[[], Reading],
        *,
        modelled_w: float | None = None,
        idle_w: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read, self._modelled_w, self._clock = read, modelled_w, clock
        self._joules = self._seconds = self._largest_gap_s = 0.0
        self._counted = 0
        self._quality: Quality = "none"
        self._at = clock()
        self.reading = read()
        self._last_w = self.reading.power_w
        self.idle_w = self.reading.power_w if idle_w is None else idle_w
        # sensors that were opened with this watch have counted nothing yet: their first reading says None
        self._energy_j = self.reading.energy_j or (0.0 if _metered(self.reading) else None)

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
        """Add what was used since the reading before. Where the meter is gone, the model takes its place, or else what
        was drawn last."""
        energy_j = self.reading.energy_j if _metered(self.reading) else None
        instead_w = self._last_w if self._modelled_w is None else self._modelled_w
        if energy_j is not None and self._energy_j is not None:
            self._add(max(energy_j - self._energy_j, 0.0), gap_s, self.reading.power_quality)
        elif energy_j is None and instead_w is not None:
            self._add(instead_w * gap_s, gap_s, "modelled")
        self._energy_j = energy_j
        self._last_w = self._last_w if self.reading.power_w is None else self.reading.power_w

    def _add(self, joules: float, gap_s: float, quality: Quality) -> None:
        self._joules += joules
        self._seconds += gap_s
        self._largest_gap_s = max(self._largest_gap_s, gap_s)
        self._counted += 1
        self._quality = "modelled" if "modelled" in (quality, self._quality) else quality

    def joules(self) -> float:
        """Used since this watch began."""
        return self._joules

    @property
    def quality(self) -> Quality:
        """The worst of `joules`: 'none' where no meter is there and no model either."""
        if self._counted:
            return self._quality
        if _metered(self.reading):
            return self.reading.power_quality
        return "none" if self._modelled_w is None else "modelled"

    def energy(self) -> Energy:
        """Of the whole board since this watch began, and without what it draws doing nothing."""
        if not self._counted:
            return Energy(None, None, 0.0, 0, 0.0, "none", "nothing tells what this board draws")
        above = None if self.idle_w is None else self._joules - self.idle_w * self._seconds
        return Energy(self._joules, above, self._seconds, self._counted + 1, self._largest_gap_s, self._quality)


def _metered(reading: Reading) -> bool:
    return reading.power_quality != "none"
