"""Reading again and again at a steady pace."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator

from edgectl.telemetry.reading import Reading, Sensors
from edgectl.telemetry.ring import Ring

SETTLE_S = 0.5
_SETTLING_READINGS = 10


def every(
    sensors: Sensors,
    interval_s: float,
    *,
    count: int | None = None,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> Iterator[Reading]:
    """A reading at once, then one each interval; forever, or `count` of them. What took too long, or a board that was
    suspended, is not caught up with."""
    due = monotonic()
    for number in itertools.count(1):
        yield sensors.read()
        if number == count:
            return
        due = max(due + interval_s, monotonic())
        sleep(due - monotonic())


def settled(sensors: Sensors, *, sleep: Callable[[float], None] = time.sleep) -> Reading:
    """One reading that has something to compare with: loads are differences, and helpers take a moment to start."""
    sensors.read()
    for _ in range(_SETTLING_READINGS):
        sleep(SETTLE_S)
        reading = sensors.read()
        if not sensors.settling:
            break
    return reading


def since_the_last(sensors: Sensors) -> Callable[[], Reading]:
    """Readings that tell what happened from one to the next, however far apart: events are counted by the hardware. The
    first tells what happened since now."""
    sensors.read()
    return sensors.read


def keep(readings: Iterator[Reading], ring: Ring, *, tell: Callable[[str], None]) -> int:
    """Put readings into the ring until there are no more; how many it took. tell: called once when the disk refuses
    them, and once when it takes them again."""
    kept, trouble = 0, None
    for reading in readings:
        reason = ring.append(reading.plain())
        kept += reason is None
        if reason != trouble:
            tell(reason or "readings are kept again")
            trouble = reason
    return kept
