"""What the health gate lets pass and what it refuses, each time with a real model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.releases import models
from edgectl.inference import Predictor
from edgectl.releases import gate
from edgectl.telemetry.reading import Reading
from edgewire import golden, samples
from edgewire.releases import Limits
from tests.learn import world

Variant = Callable[[bytes], bytes]


def bench(folder: Path, base: bytes, candidate: bytes, **changes: object) -> tuple[Path, gate.Bench]:
    """The candidate's file, and a board with ten samples of each class and the base as incumbent."""
    old, new = folder / "old.onnx", folder / "new.onnx"
    old.write_bytes(base)
    new.write_bytes(candidate)
    x = golden.inputs(world.TASK.input)
    given = {
        "task": world.TASK,
        "expected": (x, Predictor(candidate).run(x)[0]),
        "incumbent": old,
        "samples": samples.make(*world.samples(world.style(100, 0.3), 10, 77)),
        "limits": Limits(memory_mib=64, latency_ratio=3.0),
        "read": lambda: Reading(0.0, 0.0, available_mib=500.0, throttled=False),
    }
    return new, gate.Bench(**{**given, **changes})  # type: ignore[arg-type]


def failed(verdict: gate.Verdict) -> list[str]:
    return [check.name for check in verdict.checks if not check.passed]


def test_a_model_as_good_as_the_incumbent_passes_every_check(tmp_path: Path, onnx: bytes) -> None:
    verdict = gate.judge(*bench(tmp_path, onnx, models.good(onnx)))
    assert verdict.state == "passed", verdict.reason
    names = [check.name for check in verdict.checks]
    assert names == ["memory", "loads", "golden", "finite", "quality", "latency", "resident", "throttled"]


@pytest.mark.parametrize(
    ("variant", "check"),
    [
        (models.not_finite, "finite"),
        (models.wrong, "quality"),
        (models.too_large, "memory"),
    ],
)
def test_a_bad_model_fails_the_check_that_is_meant_for_it(
    tmp_path: Path, onnx: bytes, variant: Variant, check: str
) -> None:
    verdict = gate.judge(*bench(tmp_path, onnx, variant(onnx)))
    assert (verdict.state, failed(verdict)) == ("failed", [check])
    assert verdict.reason


def test_a_model_that_cannot_be_run_on_this_boards_samples_has_failed(tmp_path: Path, onnx: bytes) -> None:
    verdict = gate.judge(*bench(tmp_path, onnx, models.breaking(onnx)))
    assert (verdict.state, failed(verdict)) == ("failed", ["loads"])


@dataclass
class Script:
    """The clock of a board on which the candidate takes that long, and the incumbent a millisecond: asked once before
    all turns, then before, between, after and at the end of each."""

    candidate_s: float
    calls: int = -1
    now: float = 0.0

    def __call__(self) -> float:
        if self.calls >= 0:
            self.now += (0.0, self.candidate_s, 0.001, 0.0)[self.calls % 4]
        self.calls = -1 if self.calls == 4 * gate.TURNS - 1 else self.calls + 1
        return self.now


@pytest.mark.parametrize(("candidate_s", "state"), [(0.0029, "passed"), (0.0031, "failed")])
def test_slower_than_the_limit_fails_and_less_is_let_pass(
    tmp_path: Path, onnx: bytes, candidate_s: float, state: str
) -> None:
    model, old = Predictor(models.slow(onnx)), Predictor(onnx)
    verdict, against = gate.Verdict(), bench(tmp_path, onnx, onnx, limits=Limits(latency_ratio=2.0, slack_ms=2.0))[1]
    clock = replace(against, clock=Script(candidate_s))
    gate._fast(model, old, clock, verdict)
    assert verdict.state == state


def test_a_file_that_is_no_model_fails_and_raises_nothing(tmp_path: Path, onnx: bytes) -> None:
    new, against = bench(tmp_path, onnx, onnx)
    new.write_bytes(b"no model" * 100)
    assert failed(gate.judge(new, against)) == ["loads"]


def test_other_golden_answers_than_those_of_the_cloud_fail(tmp_path: Path, onnx: bytes) -> None:
    x = golden.inputs(world.TASK.input)
    new, against = bench(tmp_path, onnx, onnx, expected=(x, Predictor(onnx).run(x)[0] + 1))
    assert failed(gate.judge(new, against)) == ["golden"]


@pytest.mark.parametrize("state", [{"throttled": True}, {"under_voltage": True}])
def test_a_throttled_board_judges_later_and_blames_nobody(tmp_path: Path, onnx: bytes, state: dict[str, bool]) -> None:
    verdict = gate.judge(*bench(tmp_path, onnx, onnx, read=lambda: Reading(0.0, 0.0, **state)))  # type: ignore[arg-type]
    assert (verdict.state, verdict.checks) == ("later", [])


def test_a_model_that_makes_the_board_throttle_fails(tmp_path: Path, onnx: bytes) -> None:
    readings = iter([Reading(0.0, 0.0, throttled=False), Reading(1.0, 1.0, throttled=True)])
    assert failed(gate.judge(*bench(tmp_path, onnx, onnx, read=lambda: next(readings)))) == ["throttled"]


def test_peaks_of_current_that_a_jetson_cuts_off_are_no_fault_of_a_candidate(tmp_path: Path, onnx: bytes) -> None:
    peaks = Reading(0.0, 0.0, throttled=True, throttle_flags=("over-current",), under_voltage=False)
    assert gate.judge(*bench(tmp_path, onnx, onnx, read=lambda: peaks)).state == "passed"
    low = replace(peaks, throttle_flags=("over-current", "under-voltage"), under_voltage=True)
    assert gate.judge(*bench(tmp_path, onnx, onnx, read=lambda: low)).state == "later"


def test_too_little_free_memory_refuses_before_anything_is_loaded(tmp_path: Path, onnx: bytes) -> None:
    full = bench(tmp_path, onnx, onnx, read=lambda: Reading(0.0, 0.0, available_mib=0.001))
    assert [check.name for check in gate.judge(*full).checks] == ["memory"]


def test_without_samples_or_an_incumbent_the_other_checks_decide(tmp_path: Path, onnx: bytes) -> None:
    none = samples.make(np.zeros((0, world.FEATURES), np.float32), np.zeros(0, np.int64))
    alone = gate.judge(*bench(tmp_path, onnx, models.good(onnx), samples=none, incumbent=None))
    assert alone.state == "passed"
    assert "quality" not in [check.name for check in alone.checks]


def test_a_damaged_incumbent_is_no_reason_to_keep_it(tmp_path: Path, onnx: bytes) -> None:
    new, against = bench(tmp_path, onnx, models.good(onnx))
    (tmp_path / "old.onnx").write_bytes(b"damaged")
    assert gate.judge(new, against).state == "passed"


@pytest.mark.parametrize(("worse", "better", "chance"), [(0, 0, 1.0), (5, 0, 1 / 32), (7, 0, 1 / 128), (3, 3, 42 / 64)])
def test_the_chance_of_an_equal_model_is_counted_exactly(worse: int, better: int, chance: float) -> None:
    assert gate.chance_of(worse, better) == pytest.approx(chance)


def test_of_many_samples_the_chance_is_approximated_closely() -> None:
    assert gate.chance_of(530, 470) == pytest.approx(0.0310, abs=0.001)
