"""A board that exists as a thermal model only: to try the governor on, and to show it on a machine that stays cool.

The network of thermal resistances and capacities between a chip and the air is written in Foster's form: each stage
heats on its own, towards its share of the whole rise, at its own pace, and the rises add up to the chip's temperature
(any such network that is heated in one place has that form). The air reaches the chip as late as the slowest stage. The
sensor follows the chip late, in steps, and with noise.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgectl.board import memory
from edgectl.telemetry.reading import Reading

_PIECE_S = 0.5


@dataclass(frozen=True)
class Stage:
    """One part that heats. rise_c: above the rest of the board at full load, in the end; time_s: to 63 % of that."""

    rise_c: float
    time_s: float


@dataclass(frozen=True)
class Thermal:
    """stages: the quickest first; idle_c: how much hotter than the air the chip is at rest; ambient_c: of the air, over
    seconds; lag_s, noise_c, resolution_c: of the sensor."""

    stages: tuple[Stage, ...]
    idle_c: float
    ambient_c: Callable[[float], float]
    lag_s: float = 1.0
    noise_c: float = 0.0
    resolution_c: float = 0.1


@dataclass
class ThermalBoard:
    """A board that begins at rest, in balance with the air. temperature_c: of the chip itself; hottest_c: the most it
    ever had; worked_s: time at full load."""

    thermal: Thermal
    seed: int = 0
    now_s: float = 0.0
    worked_s: float = 0.0
    temperature_c: float = field(init=False)
    hottest_c: float = field(init=False)

    def __post_init__(self) -> None:
        self._heat = [0.0 for _ in self.thermal.stages]
        self._air = self.thermal.ambient_c(self.now_s)
        self.temperature_c = self.hottest_c = self._sensor = self._air + self.thermal.idle_c
        self._rng = random.Random(self.seed)  # noqa: S311  (noise, no secret)

    def advance(self, seconds: float, load: float) -> None:
        """Let time pass. load: 0..1."""
        self.worked_s += seconds * load
        while seconds > 0.0:
            piece = min(seconds, _PIECE_S)
            seconds -= piece
            self._pass(piece, load)

    def _pass(self, seconds: float, load: float) -> None:
        thermal, before, rises_c, kept = self.thermal, self.temperature_c, 0.0, 0.0
        self.now_s += seconds
        for i, stage in enumerate(thermal.stages):
            kept = math.exp(-seconds / stage.time_s)
            self._heat[i] = load + (self._heat[i] - load) * kept
            rises_c += self._heat[i] * stage.rise_c
        air = thermal.ambient_c(self.now_s)
        self._air = air + (self._air - air) * kept
        self.temperature_c = self._air + thermal.idle_c + rises_c
        self.hottest_c = max(self.hottest_c, self.temperature_c)
        middle = (before + self.temperature_c) / 2
        self._sensor = middle + (self._sensor - middle) * math.exp(-seconds / thermal.lag_s)

    def reading_c(self) -> float:
        """What the sensor says."""
        step = self.thermal.resolution_c
        return round((self._sensor + self._rng.gauss(0.0, self.thermal.noise_c)) / step) * step


class LiveBoard:
    """A simulated board that this machine trains for: a second of this processor keeps the board busy for `speed`
    seconds, and a rest is as much shorter. So a board that heats for minutes is seen doing so in seconds.

    clock: seconds of this process's work, whatever else the machine does meanwhile."""

    def __init__(
        self,
        profile: Mapping[str, Any],
        *,
        speed: float = 60.0,
        clock: Callable[[], float] = time.process_time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.throttle_c = float(profile.get("throttle_c") or 85.0)
        self._idle_w, self._busy_w = float(profile.get("idle_w") or 0.0), float(profile.get("max_w") or 0.0)
        self._board = ThermalBoard(closed_case(self.throttle_c))
        self._speed, self._real_clock, self._real_sleep = speed, clock, sleep
        self._seen: float | None = None

    def begin(self) -> None:
        """From here on time passes: what comes before, like loading libraries, is not the board's."""
        self._seen = self._real_clock()

    def clock(self) -> float:
        """Seconds of the board's time."""
        if self._seen is not None:
            real = self._real_clock()
            self._board.advance(max(real - self._seen, 0.0) * self._speed, 1.0)
            self._seen = real
        return self._board.now_s

    def sleep(self, seconds: float) -> None:
        """Let the board rest."""
        self.clock()
        self._real_sleep(seconds / self._speed)
        self._board.advance(seconds, 0.0)
        self.begin()

    def read(self) -> Reading:
        """As the sensors of a board would say it."""
        now_s, board = self.clock(), self._board
        powered = self._busy_w > 0.0
        return Reading(
            now_s,
            time.time(),
            temperature_c=board.reading_c(),
            throttle_c=self.throttle_c,
            throttled=board.temperature_c >= self.throttle_c,
            under_voltage=False,
            power_quality="modelled" if powered else "none",
            energy_j=self._idle_w * now_s + (self._busy_w - self._idle_w) * board.worked_s if powered else None,
            available_mib=memory.available_mib(),
        )


def closed_case(throttle_c: float) -> Thermal:
    """A board in a closed case in a warm room: training without a rest would take it 10 °C beyond where it throttles.

    Profiles state no thermal resistances; these figures are made up to be of a small board without a fan.
    """
    room_c, idle_c = 28.0, 14.0
    rise_c = throttle_c + 10.0 - room_c - idle_c
    stages = (Stage(0.25 * rise_c, 5.0), Stage(0.75 * rise_c, 150.0))
    return Thermal(stages, idle_c, lambda now_s: room_c + 3.0 * math.sin(now_s / 300.0), noise_c=0.1)
