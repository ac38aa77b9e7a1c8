"""The health gate: is this base fit to serve on this board? Judged before it serves, by running it here.

It needs no state folder: a file, what it should answer, what serves now, samples, and a way to read the board's state.
Whatever is measured is compared with the incumbent, in turns and on the same inputs, so that a board that is slow, or
busy, or has difficult samples, refuses nothing for that.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from edgectl.board import memory
from edgectl.inference import Predictor
from edgectl.telemetry.reading import Reading
from edgelearn.metrics import row_scores
from edgewire import golden
from edgewire.errors import CorruptFile
from edgewire.releases import Check, Limits
from edgewire.samples import Samples
from edgewire.tasks import Task

_LOG = logging.getLogger(__name__)

LOADED_TIMES = (
    3.0  # the memory that a model takes at first, as a multiple of its file: graph, weights, prepacked weights
)
MOST_SAMPLES = 1000
WARM_UPS, TURNS, TRIES = 3, 15, 3
LATENCY_LIMIT_S = 20.0  # all turns of one try together


@dataclass(frozen=True)
class Bench:
    """What a candidate is judged against. expected: golden inputs and answers; incumbent: the base that serves, None:
    there is none that loads; samples: labelled ones of this board; read: the board's state; clock: in s, for
    differences."""

    task: Task
    expected: tuple[np.ndarray, np.ndarray]
    incumbent: Path | None
    samples: Samples
    limits: Limits
    read: Callable[[], Reading]
    threads: int = 1
    clock: Callable[[], float] = time.perf_counter


@dataclass
class Verdict:
    """state: 'later' where the board is in no state to judge; reason: a sentence; checks: what was measured."""

    state: Literal["passed", "failed", "later"] = "passed"
    reason: str = ""
    checks: list[Check] = field(default_factory=list)

    def note(self, name: str, passed: bool, value: float | None = None, limit: float | None = None) -> bool:
        """Add a check; whether it passed. The first that did not decides."""
        self.checks.append(Check(name, passed, _finite(value), _finite(limit)))
        if not passed and self.state == "passed":
            self.state = "failed"
            said = "" if value is None else f": {value:.3g}" + ("" if limit is None else f", allowed {limit:.3g}")
            self.reason = f"{_WORDS[name]}{said}"
        return passed


_WORDS = {
    "memory": "it needs more memory than it may have (MiB)",
    "loads": "onnxruntime does not load or run it",
    "golden": "it does not answer the golden inputs as it did where it was made",
    "finite": "it gives answers that are not finite on this board's samples",
    "quality": "it is worse than what serves on this board's samples (share of chance to see this of an equal model)",
    "latency": "it is slower than what serves (ms)",
    "resident": "it took more memory than it may (MiB)",
    "throttled": "the board was throttled, or its voltage fell, while it ran",
}


def judge(candidate: Path, bench: Bench) -> Verdict:
    """Run the candidate through all checks, cheapest first; the first that fails ends it. Never raises for what the
    candidate does: a model that breaks the gate has failed it."""
    verdict = Verdict()
    before = bench.read()
    if _slowed(before):
        why = "throttled" if before.throttled_by_heat else "short of voltage"
        return Verdict("later", f"the board is {why}; its speed says nothing now")
    if not _fits(candidate, bench, before, verdict):
        return verdict
    held_mib = memory.resident_mib()
    try:
        _run(candidate, bench, verdict)
    except Exception as error:  # onnxruntime raises classes of its own that share no base but Exception
        _LOG.warning("the candidate does not run: %s", error)
        verdict.note("loads", False)
    after_mib = memory.resident_mib()
    if verdict.state == "passed" and held_mib is not None and after_mib is not None:
        verdict.note(
            "resident", after_mib - held_mib <= bench.limits.memory_mib, after_mib - held_mib, bench.limits.memory_mib
        )
    if verdict.state == "passed":
        verdict.note("throttled", not _slowed(bench.read()))
    return verdict


def _slowed(reading: Reading) -> bool:
    """Not by peaks of current, which a Jetson in its fastest mode cuts off by itself several times a second."""
    return reading.throttled_by_heat or bool(reading.under_voltage)


def _fits(candidate: Path, bench: Bench, reading: Reading, verdict: Verdict) -> bool:
    """Before it is loaded: what is too large would take the board's other work down with it."""
    need_mib = LOADED_TIMES * candidate.stat().st_size / (1 << 20)
    allowed_mib = float(bench.limits.memory_mib)
    if reading.available_mib is not None:
        allowed_mib = min(allowed_mib, reading.available_mib)
    return verdict.note("memory", need_mib <= allowed_mib, need_mib, allowed_mib)


def _run(candidate: Path, bench: Bench, verdict: Verdict) -> None:
    model = Predictor(candidate, threads=bench.threads)
    x, expected = bench.expected
    found, embedding = model.run(x)
    verdict.note("loads", True)
    same = golden.agree(found, expected) and bool(np.isfinite(embedding).all())
    if not verdict.note("golden", same):
        return
    incumbent = _incumbent(bench)
    if not _good(model, incumbent, bench, verdict):
        return
    if incumbent is not None:
        _fast(model, incumbent, bench, verdict)


def _incumbent(bench: Bench) -> Predictor | None:
    """What serves, or None where it is damaged: then nothing is a step back."""
    try:
        return None if bench.incumbent is None else Predictor(bench.incumbent, threads=bench.threads)
    except CorruptFile as error:
        _LOG.warning("what serves does not load: %s", error)
        return None


def _good(model: Predictor, incumbent: Predictor | None, bench: Bench, verdict: Verdict) -> bool:
    rows = np.unique(np.linspace(0, len(bench.samples) - 1, min(len(bench.samples), MOST_SAMPLES)).astype(np.int64))
    x, y = bench.samples.x[rows], bench.samples.y[rows]
    if len(x) == 0:
        return True
    found, embedding = model.run(x)
    if found.shape != (len(x), len(bench.task.labels)):
        return verdict.note("loads", False)
    if not verdict.note("finite", bool(np.isfinite(found).all() and np.isfinite(embedding).all())):
        return False
    if incumbent is None:
        return True
    new, old = (row_scores(bench.task.metric, logits, y) for logits in (found, incumbent.run(x)[0]))
    chance = chance_of(int((new < old).sum()), int((new > old).sum()))
    return verdict.note("quality", chance >= bench.limits.chance, chance, bench.limits.chance)


def chance_of(worse: int, better: int) -> float:
    """How probable it is that a model as good as the incumbent does worse on at least so many of the samples that the
    two do not do equally well on (the sign test, one-sided and exact; McNemar 1947)."""
    n = worse + better
    return min(1.0, sum(math.comb(n, k) for k in range(worse, n + 1)) / 2**n) if n < 1000 else _normal(worse, n)


def _normal(worse: int, n: int) -> float:
    return 0.5 * math.erfc((worse - 0.5 - n / 2) / math.sqrt(n / 2))


def _fast(model: Predictor, incumbent: Predictor, bench: Bench, verdict: Verdict) -> None:
    """One sample at a time, as `infer` does, candidate and incumbent in turns. Measured again where it looks slow:
    something else may have run just then."""
    x = bench.expected[0][:1]
    for number in range(TRIES):
        new_s, old_s = _turns(model, incumbent, x, bench.clock)
        limit_ms = max(bench.limits.latency_ratio * old_s * 1e3, old_s * 1e3 + bench.limits.slack_ms)
        if new_s * 1e3 <= limit_ms or number == TRIES - 1:
            verdict.note("latency", new_s * 1e3 <= limit_ms, new_s * 1e3, limit_ms)
            return


def _turns(model: Predictor, incumbent: Predictor, x: np.ndarray, clock: Callable[[], float]) -> tuple[float, float]:
    """Median seconds of each."""
    for _ in range(WARM_UPS):
        model.run(x)
        incumbent.run(x)
    new, old, began = [], [], clock()
    for _ in range(TURNS):
        started = clock()
        model.run(x)
        between = clock()
        incumbent.run(x)
        new.append(between - started)
        old.append(clock() - between)
        if clock() - began > LATENCY_LIMIT_S:
            break
    return float(np.median(new)), float(np.median(old))


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), 6)
