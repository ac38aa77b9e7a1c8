"""Which way of training costs this board the fewest joules: the product's own steps, timed and metered for each number
of threads and each batch size. Where there is no sensor, energy is unknown, and only the pace is compared.

Settings take turns, forwards and then backwards, so that a board that warms up favours none of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgectl.telemetry.energy import Energy, Meter
from edgectl.telemetry.reading import Reading
from edgelearn.device import use_threads
from edgelearn.examples import Examples
from edgelearn.fit import FitSettings, Source, Step, fit
from edgelearn.models.build import Weights, build, load
from edgelearn.personalize.setting import Settings
from edgewire.tasks import Task

READ_EVERY_S = 0.25
_WARM_UP_STEPS = 3
_STEPS = 1 << 30  # a turn ends by the clock
_SYNTHETIC_SAMPLES = 256


@dataclass(frozen=True)
class Way:
    """One way to train."""

    threads: int
    batch: int


@dataclass
class Row:
    """What a way cost, over all its turns. throttled: at any reading; None: unknown."""

    threads: int
    batch: int
    steps: int
    seconds: float
    samples_per_s: float
    energy: Energy
    joules_per_step: float | None
    joules_per_1000_samples: float | None
    hottest_c: float | None
    throttled: bool | None


@dataclass(frozen=True)
class Comparison:
    """idle: the board doing nothing, before. cheapest: index of the row with the fewest joules per sample above idle,
    None: energy is unknown, and `reason` says why; fastest: by samples per second."""

    idle: Energy
    idle_w: float | None
    rows: list[Row]
    cheapest: int | None
    fastest: int
    reason: str


@dataclass(frozen=True)
class Bench:
    """read: the board's sensors; seconds: of a turn; idle_s: of idling first; rounds: turns of each way."""

    read: Callable[[], Reading]
    seconds: float = 10.0
    idle_s: float = 10.0
    rounds: int = 2
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    on_event: Callable[[str], None] = lambda line: None


def compare(task: Task, weights: Weights | None, local: Examples, ways: Sequence[Way], bench: Bench) -> Comparison:
    """Train in each way for a while. weights: of the base, None: a fresh model. Nothing is kept of the training."""
    bench.on_event(f"idle for {bench.idle_s:g} s")
    idle = _idle(bench)
    idle_w = idle.mean_w
    counts = [_Count(way) for way in ways]
    for number in range(bench.rounds):
        for count in counts if number % 2 == 0 else reversed(counts):
            way = count.way
            bench.on_event(f"round {number + 1} of {bench.rounds}: threads {way.threads}, batches of {way.batch}")
            _turn(task, weights, local, count, bench)
    rows = [count.row(idle_w) for count in counts]
    fastest = max(range(len(rows)), key=lambda i: rows[i].samples_per_s)
    return Comparison(idle.total(), idle_w, rows, _cheapest(rows), fastest, _reason(rows, idle.total()))


def synthetic(task: Task, *, seed: int = 0) -> Examples:
    """Samples of the task's shape that mean nothing, as many of each label."""
    rng = np.random.default_rng(seed)
    shape, dtype = (_SYNTHETIC_SAMPLES, *task.input.shape), np.dtype(task.input.dtype)
    x: np.ndarray
    if isinstance(task.input.items, int):
        x = rng.integers(1, task.input.items + 1, shape)
    elif dtype.kind == "f":
        x = rng.normal(size=shape)
    else:
        x = rng.integers(0, min(255, np.iinfo(dtype).max) + 1, shape)
    y = np.arange(_SYNTHETIC_SAMPLES, dtype=np.int64) % len(task.labels)
    return Examples(x.astype(dtype), y, np.arange(_SYNTHETIC_SAMPLES))


@dataclass
class _Count:
    """The turns of one way, added up."""

    way: Way
    meter: Meter = field(default_factory=Meter)
    steps: int = 0
    samples: int = 0
    seconds: float = 0.0
    temperatures: list[float] = field(default_factory=list)
    throttled: bool | None = None

    def note(self, reading: Reading) -> None:
        _meter(self.meter, reading)
        if reading.temperature_c is not None:
            self.temperatures.append(reading.temperature_c)
        if reading.throttled is not None:
            self.throttled = reading.throttled or bool(self.throttled)

    def row(self, idle_w: float | None) -> Row:
        energy = self.meter.total(idle_w=idle_w)
        above, covered = energy.above_idle_j, energy.seconds / self.seconds if self.seconds else 0.0
        whole = None if above is None or covered <= 0 else above / covered  # steps between the readings of power only
        return Row(
            self.way.threads,
            self.way.batch,
            self.steps,
            round(self.seconds, 3),
            self.samples / self.seconds if self.seconds else 0.0,
            energy,
            None if whole is None or not self.steps else whole / self.steps,
            None if whole is None or not self.samples else 1000 * whole / self.samples,
            max(self.temperatures, default=None),
            self.throttled,
        )


def _meter(meter: Meter, reading: Reading) -> None:
    reason = reading.missing.get("power_w", "")
    meter.add(reading.monotonic_s, reading.power_w, reading.power_quality, reason=reason)


def _idle(bench: Bench) -> Meter:
    meter, until = Meter(), bench.clock() + bench.idle_s
    _meter(meter, bench.read())
    while (left := until - bench.clock()) > 0:
        bench.sleep(min(READ_EVERY_S, left))
        _meter(meter, bench.read())
    return meter


def _turn(task: Task, weights: Weights | None, local: Examples, count: _Count, bench: Bench) -> None:
    use_threads(count.way.threads)
    model = build(task) if weights is None else load(task, weights)
    settings = replace(_fit_settings(task), steps=_STEPS, batch_size=count.way.batch, cosine=False)
    steps = fit(model, Source(local), settings, seed=0)
    for _ in range(_WARM_UP_STEPS):
        next(steps)
    started = read_at = bench.clock()
    count.note(bench.read())
    now = started
    while now - started < bench.seconds:
        step: Step = next(steps)
        step.loss  # noqa: B018  (waits for the device, where there is one)
        count.steps += 1
        count.samples += min(count.way.batch, len(local))
        now = bench.clock()
        if now - read_at >= READ_EVERY_S:
            count.note(bench.read())
            read_at = now
    count.note(bench.read())
    count.seconds += now - started
    count.meter.pause()


def _fit_settings(task: Task) -> FitSettings:
    return Settings.of(task).local


def _cheapest(rows: Sequence[Row]) -> int | None:
    """None unless every row is known: the best of some is not the best."""
    known = [row.joules_per_1000_samples for row in rows]
    if any(value is None for value in known):
        return None
    return min(range(len(rows)), key=lambda i: known[i] or 0.0)


def _reason(rows: Sequence[Row], idle: Energy) -> str:
    """Why energy is not known; '' where it is."""
    reasons = [row.energy.reason for row in rows if row.energy.joules is None]
    return reasons[0] if reasons else idle.reason


def report_of(found: Comparison) -> dict[str, Any]:
    """The comparison as JSON."""
    rows = [{**vars(row), "energy": vars(row.energy)} for row in found.rows]
    return {**vars(found), "idle": vars(found.idle), "rows": rows}
