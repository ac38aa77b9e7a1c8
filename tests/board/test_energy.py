"""Joules by the trapezoid rule, with what they rest on. The numbers can be checked by hand."""

from __future__ import annotations

import pytest

from edgectl.telemetry.energy import Meter


def test_a_ramp_is_a_trapezoid() -> None:
    meter = Meter()
    for at, watts in ((0.0, 2.0), (1.0, 4.0), (4.0, 4.0)):
        meter.add(at, watts, "measured")
    energy = meter.total(idle_w=1.5)
    assert (energy.joules, energy.above_idle_j, energy.seconds) == (15.0, 9.0, 4.0)
    assert (energy.readings, energy.largest_gap_s, energy.quality) == (3, 3.0, "measured")
    assert energy.per(3) == 3.0
    assert meter.mean_w == 3.75


def test_no_sensor_is_unknown_with_the_sensors_reason() -> None:
    meter = Meter()
    meter.add(0.0, None, "none", reason="no power sensor")
    meter.add(1.0, None, "none", reason="no power sensor")
    energy = meter.total(idle_w=1.0)
    assert (energy.joules, energy.above_idle_j, energy.per(10)) == (None, None, None)
    assert (energy.quality, energy.reason) == ("none", "no power sensor")


def test_one_reading_is_no_energy() -> None:
    meter = Meter()
    meter.add(0.0, 5.0, "measured")
    assert meter.total().joules is None
    assert meter.mean_w is None


def test_readings_with_a_pause_between_them_are_no_energy() -> None:
    meter = Meter()
    for at in (0.0, 10.0):
        meter.add(at, 5.0, "measured")
        meter.pause()
    assert (meter.total(idle_w=1.0).joules, meter.total().reason != "") == (None, True)


def test_without_idle_power_what_is_above_it_is_unknown() -> None:
    meter = Meter()
    meter.add(0.0, 5.0, "measured")
    meter.add(2.0, 5.0, "measured")
    assert (meter.total().joules, meter.total().above_idle_j) == (10.0, None)


def test_one_modelled_reading_makes_the_sum_modelled() -> None:
    meter = Meter()
    for at, quality in ((0.0, "measured"), (1.0, "modelled"), (2.0, "measured")):
        meter.add(at, 1.0, quality)  # type: ignore[arg-type]
    assert meter.total().quality == "modelled"


def test_a_reading_that_failed_shows_as_a_gap() -> None:
    meter = Meter()
    for at, watts in ((0.0, 3.0), (1.0, None), (2.0, None), (3.0, 3.0)):
        meter.add(at, watts, "measured" if watts else "none")
    energy = meter.total()
    assert (energy.joules, energy.readings, energy.largest_gap_s) == (9.0, 2, 3.0)


@pytest.mark.parametrize("again", [5.0, 4.0])
def test_a_clock_that_does_not_advance_adds_nothing(again: float) -> None:
    meter = Meter()
    meter.add(5.0, 10.0, "measured")
    meter.add(again, 10.0, "measured")
    assert meter.total().joules is None
