"""The change detector on streams whose truth is known."""

from __future__ import annotations

import random

from edgelearn.drift import watch


def stream(*parts: tuple[float, int], seed: int) -> list[float]:
    rng = random.Random(seed)
    return [float(rng.random() < rate) for rate, count in parts for _ in range(count)]


def test_a_rise_is_found_and_where_it_began() -> None:
    seen = watch([0.0] * 40 + [1.0] * 40)
    assert len(seen.changes) == 1
    change = seen.changes[0]
    assert (change.since, change.before, change.after) == (40, 0.0, 1.0)
    assert 40 < change.at < 50


def test_a_steady_stream_gives_hardly_ever_an_alarm() -> None:
    for rate in (0.05, 0.15, 0.3):
        alarms = sum(bool(watch(stream((rate, 300), seed=seed)).changes) for seed in range(200))
        assert alarms <= 4, rate


def test_a_large_rise_is_found_on_nearly_every_stream_within_a_hundred() -> None:
    found = [watch(stream((0.15, 60), (0.55, 100), seed=seed)).changes for seed in range(200)]
    assert sum(bool(changes) for changes in found) >= 190


def test_errors_that_fall_are_no_drift() -> None:
    seen = watch(stream((0.6, 100), (0.1, 100), seed=1))
    assert (seen.changes, seen.warning) == ((), None)


def test_after_an_alarm_the_new_level_is_the_normal_one() -> None:
    assert len(watch([0.0] * 40 + [1.0] * 200).changes) == 1


def test_a_warning_comes_before_the_alarm() -> None:
    errors, warned = [0.0] * 40, False
    while not watch(errors).changes:
        warned = warned or watch(errors).warning is not None
        errors.append(1.0)
    assert warned


def test_nothing_observed_is_no_change() -> None:
    assert watch([]).changes == ()
