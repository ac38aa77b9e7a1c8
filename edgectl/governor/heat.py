"""How large a share of the time a board may train without getting hotter than a limit, from its temperature alone.

Nothing is known of the board: neither how far it heats, nor how soon, nor how late its sensor notices, nor what the
air around it will do. The law is proportional-integral in its velocity form: what is left up to the limit shrinks
exponentially, and nothing winds up while the board is cool. What it has to know of the board, how many degrees the
whole load is worth at the pace at which the law corrects itself, it learns from how the temperature answered so far,
beginning with a careful guess (a self-tuning regulator: Astrom and Wittenmark, "Adaptive Control", 2nd ed., 1995,
chapter 3). Its constants were chosen on simulated boards: `python -m benchmarks.governor`.
"""

from __future__ import annotations

import math
from statistics import median

COLDEST_C, HOTTEST_C = -40.0, 125.0  # beyond these a sensor lies: -256 °C is one that is switched off
MARGIN_C = 0.4  # the law aims that far below the limit: for noise, and for steps that heat between two readings
FIRST_MARGIN_C, FIRST_MARGIN_S = 1.0, 300.0  # more at the beginning, while the board is known less
TOO_HOT_C = 0.2  # above the limit: no training at all until it is below again
APPROACH_S = 35.0  # what is left up to the limit shrinks to 1/e in that time
RISE_S = 20.0  # nor is more load added than would close the gap in that time
PACE_S = 25.0  # how soon the law corrects itself: later than sensors lag (seconds), sooner than boards heat (minutes)
STRENGTH = 1.2  # of a correction, in units of what was learnt
WHOLE_C = 80.0  # no board is thought to heat further than that under load
CAREFUL_C, LEAST_C = 40.0, 2.0  # the whole load's worth at that pace: before anything was learnt, and at the least
_MOVED = 0.02  # of the load: smaller moves teach nothing, the air's would be taken for their answer
_SMOOTHING_S = 3.0
_AHEAD_S = 3.0
_LONGEST_S = 10.0  # between two readings; a longer gap says nothing of the pace


def believable(reading_c: float | None) -> bool:
    """Whether a sensor may have measured that."""
    return reading_c is not None and math.isfinite(reading_c) and COLDEST_C <= reading_c <= HOTTEST_C


class Heat:
    """Feed it readings, and what was done since the last one; it gives the share of time to train.

    limit_c: what the board is not to pass, by more than a degree at the most. first_c: a first reading.
    """

    def __init__(self, limit_c: float, first_c: float) -> None:
        self.limit_c = limit_c
        self.temperature_c = first_c  # without single jumps and the worst of the noise
        self.too_hot = first_c > limit_c
        self.gain_c = CAREFUL_C
        self._share = min(max((limit_c - first_c) / WHOLE_C, 0.05), 1.0)
        self._last = [first_c, first_c]
        self._age_s = 0.0
        self._temperature, self._load = _Band(first_c), _Band(0.0)
        self._answered, self._asked = (CAREFUL_C * 0.1) ** 2, 0.1**2

    @property
    def duty(self) -> float:
        """The share of time to train, 0..1."""
        return 0.0 if self.too_hot else self._share

    def update(self, reading_c: float, *, seconds: float, worked: float) -> float:
        """The share of time to train from now on. reading_c: believable; seconds, worked: since the last reading, and
        the share of them that was training."""
        seconds = min(max(seconds, 0.0), _LONGEST_S)
        self._age_s += seconds
        self._last = [*self._last[-2:], reading_c]
        before = self.temperature_c
        self.temperature_c += (median(self._last) - before) * -math.expm1(-seconds / _SMOOTHING_S)
        rise_c = self.temperature_c - before
        self._learn(seconds, worked)
        left_c = self.limit_c - self._margin_c() - self.temperature_c
        self._steer(left_c, rise_c, seconds)
        ahead_c = self.temperature_c + max(rise_c, 0.0) * _AHEAD_S / max(seconds, 0.1)
        self.too_hot = ahead_c > self.limit_c + TOO_HOT_C or (self.too_hot and left_c < 0.0)
        return self.duty

    def _steer(self, left_c: float, rise_c: float, seconds: float) -> None:
        change = STRENGTH / self.gain_c * (left_c * seconds / APPROACH_S - rise_c)
        most = seconds * (max(left_c, 0.0) + 1.0) / (self.gain_c * RISE_S)
        self._share = min(max(self._share + min(change, most), 0.0), 1.0)

    def _margin_c(self) -> float:
        return MARGIN_C + FIRST_MARGIN_C * math.exp(-self._age_s / FIRST_MARGIN_S)

    def _learn(self, seconds: float, worked: float) -> None:
        """Compare how temperature and load moved at the law's own pace."""
        answered, asked = self._temperature.update(self.temperature_c, seconds), self._load.update(worked, seconds)
        if abs(asked) > _MOVED:
            self._answered += answered**2 * seconds / PACE_S
            self._asked += asked**2 * seconds / PACE_S
            self.gain_c = min(max(math.sqrt(self._answered / self._asked), LEAST_C), CAREFUL_C)


class _Band:
    """How a signal moves within about PACE_S: the difference of a quicker and a slower mean."""

    def __init__(self, value: float) -> None:
        self._quick = self._slow = value

    def update(self, value: float, seconds: float) -> float:
        self._quick += (value - self._quick) * -math.expm1(-2 * seconds / PACE_S)
        self._slow += (value - self._slow) * -math.expm1(-seconds / (2 * PACE_S))
        return self._quick - self._slow
