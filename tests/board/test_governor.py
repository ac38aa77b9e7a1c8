"""The governor of training, on boards whose sensors are good, lie, or vanish; time passes only when told."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from edgectl.budget import Budget, Spent
from edgectl.governor.governor import (
    BLIND_S,
    BLIND_SHARE,
    LEAST_FREE_MIB,
    PATIENCE_S,
    Governor,
    HeatLimit,
)
from edgectl.governor.heat import CAREFUL_C, Heat, believable
from edgectl.governor.simulated import LiveBoard, Stage, Thermal, ThermalBoard
from edgectl.governor.watch import Watch
from edgectl.telemetry.energy import Meter
from edgectl.telemetry.reading import Reading
from edgewire.errors import ResourcesRefused

STEADY = Thermal((Stage(8.0, 6.0), Stage(32.0, 200.0)), 10.0, lambda now_s: 25.0, lag_s=2.0, noise_c=0.1)
COLD = Thermal((Stage(1.0, 6.0), Stage(2.0, 200.0)), 10.0, lambda now_s: 20.0)


@dataclass
class World:
    """A simulated board under a governor. tamper: what its sensors make of the truth; metered_w: what a meter counts,
    until it vanishes; events: what was decided."""

    thermal: Thermal = STEADY
    limit: HeatLimit = field(default_factory=lambda: HeatLimit(60.0, "test"))
    tamper: Callable[[dict[str, Any]], dict[str, Any]] = lambda fields: fields
    budget: dict[str, Any] = field(default_factory=dict)
    jump_s: float = 0.0
    modelled_w: float | None = None
    metered_w: float = 0.0
    meter_ends_s: float = math.inf
    events: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.board = ThermalBoard(self.thermal)
        self.watch = Watch(self.read, modelled_w=self.modelled_w, clock=self.clock)
        budget = Budget(clock=self.clock, used_joules=self.watch.joules, **self.budget)
        self.governor = Governor(
            self.watch, budget, self.limit, decide=self.decide, clock=self.clock,
            sleep=lambda seconds: self.board.advance(seconds, 0.0),
        )  # fmt: skip

    def clock(self) -> float:
        return self.board.now_s + self.jump_s

    def read(self) -> Reading:
        fields: dict[str, Any] = {"temperature_c": self.board.reading_c()}
        if self.metered_w and self.board.now_s < self.meter_ends_s:  # it has counted since long before
            fields |= {"energy_j": 5e4 + self.metered_w * self.board.now_s, "power_quality": "measured"}
        return Reading(self.clock(), 0.0, **self.tamper(fields))

    def decide(self, kind: str, line: str, **known: object) -> None:
        self.events.append((kind, line))

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.events]

    def train(self, seconds: float, *, step_s: float = 0.25) -> float:
        """For that long of the board's time; the share of it that was training."""
        begun_s, worked_s = self.board.now_s, self.board.worked_s
        while self.board.now_s < begun_s + seconds:
            self.board.advance(step_s, 1.0)
            self.governor.step()
        return (self.board.worked_s - worked_s) / (self.board.now_s - begun_s)


# Heat


def test_a_board_is_kept_below_its_limit_and_near_it() -> None:
    """It would settle at 75 °C; at 60 °C it may train 25 of 40 °C's worth."""
    world = World()
    world.train(600)
    assert world.train(1800) == pytest.approx(25 / 40, abs=0.05)
    assert world.board.temperature_c > 58.0
    assert world.board.hottest_c < 61.0
    assert "slow" in world.kinds


def test_a_cool_board_trains_all_the_time() -> None:
    world = World(COLD)
    world.train(120)
    assert world.train(120) > 0.99
    assert world.kinds == ["limit"]


def test_when_the_air_gets_hotter_training_slows_and_when_it_cools_it_goes_faster() -> None:
    warm = Thermal(STEADY.stages, 10.0, lambda now_s: 25.0 + 12.0 * (1200 < now_s < 3000))
    world = World(warm)
    world.train(900)
    normal = world.train(250)
    world.train(1250)
    hot = world.train(500)
    world.train(800)
    again = world.train(400)
    assert hot < 0.7 * normal
    assert again > 1.3 * hot
    assert world.board.hottest_c < 61.0
    assert "fast" in world.kinds


def test_a_board_that_is_too_hot_already_pauses_first_and_says_so() -> None:
    world = World(limit=HeatLimit(50.0, "test"))
    world.board.advance(3000.0, 1.0)
    world.train(600)
    assert world.kinds[:3] == ["limit", "pause", "resume"]
    assert world.board.temperature_c < 51.0


def test_where_even_rest_is_too_hot_training_stops() -> None:
    world = World(limit=HeatLimit(34.0, "test"))
    with pytest.raises(Spent) as found:
        world.train(3600)
    assert found.value.kind == "heat"
    assert isinstance(found.value.refusal(), ResourcesRefused)
    assert PATIENCE_S["heat"] <= world.board.now_s < PATIENCE_S["heat"] + 60


def test_time_is_up_in_a_pause_too() -> None:
    world = World(limit=HeatLimit(34.0, "test"), budget={"seconds": 100.0})
    with pytest.raises(Spent, match="time budget"):
        world.train(3600)
    assert world.board.now_s < 100.0


def test_without_a_limit_nothing_is_slowed() -> None:
    world = World(limit=HeatLimit())
    assert world.train(600) == 1.0
    assert world.events == []


# Sensors that lie, vanish, or jump


@pytest.mark.parametrize("lie", [-256.0, math.nan, math.inf, 900.0, None])
def test_what_cannot_be_is_not_believed(lie: float | None) -> None:
    """Every other reading is a lie: the board is governed by the rest."""
    seen = 0

    def sometimes(fields: dict[str, Any]) -> dict[str, Any]:
        nonlocal seen
        seen += 1
        return fields if seen % 2 else {"temperature_c": lie}

    world = World(tamper=sometimes)
    world.train(1800)
    assert world.board.hottest_c < 61.5
    assert world.train(600) > 0.5
    assert "blind" not in world.kinds


def test_believable_is_what_a_sensor_can_have_measured() -> None:
    assert [believable(value) for value in (None, -256.0, math.nan, 0.0, 85.0)] == [False, False, False, True, True]


@pytest.mark.parametrize("spike", [5.0, 110.0])
def test_a_single_jump_changes_nothing_much(spike: float) -> None:
    seen = 0

    def jumping(fields: dict[str, Any]) -> dict[str, Any]:
        nonlocal seen
        seen += 1
        return {"temperature_c": spike} if seen % 50 == 0 else fields

    honest, world = World(), World(tamper=jumping)
    assert world.train(1800) == pytest.approx(honest.train(1800), abs=0.03)
    assert world.board.hottest_c < 61.0


def test_a_sensor_that_vanishes_halves_the_pace_and_one_that_returns_restores_it() -> None:
    gone = False
    world = World(tamper=lambda fields: {"missing": {"temperature_c": "the zone is gone"}} if gone else fields)
    world.train(1200)
    before = world.governor.duty
    gone = True
    world.train(2 * BLIND_S)
    assert world.governor.duty == pytest.approx(BLIND_SHARE * before)
    assert "the zone is gone" in world.events[-1][1]
    world.train(600)
    assert world.board.temperature_c < 60.0
    gone = False
    world.train(60)
    assert world.governor.duty > before
    assert [kind for kind in world.kinds if kind in ("blind", "sight")] == ["blind", "sight"]


def test_without_a_sensor_a_limit_that_was_asked_for_is_refused() -> None:
    with pytest.raises(ResourcesRefused, match=r"no zone.* cannot be kept below 60 °C") as found:
        World(
            limit=HeatLimit(60.0, "--train_temp_c", asked=True),
            tamper=lambda _: {"missing": {"temperature_c": "no zone"}},
        )
    assert found.value.exit_code == 6


def test_without_a_sensor_a_profile_s_limit_is_not_governed_and_that_is_told() -> None:
    world = World(tamper=lambda _: {"temperature_c": -256.0})
    assert world.train(60) == 1.0
    assert world.kinds == ["blind"]


@pytest.mark.parametrize("jump_s", [-1e6, 1e6, 120.0, -5.0])
def test_a_clock_that_jumps_neither_stops_nor_frees_training(jump_s: float) -> None:
    world = World()
    world.train(1200)
    world.jump_s = jump_s
    begun_s = world.board.now_s
    world.train(1.0)
    assert world.board.now_s < begun_s + 30.0
    assert world.train(600) == pytest.approx(25 / 40, abs=0.08)
    assert world.board.hottest_c < 61.0


def test_a_step_that_takes_minutes_is_followed_by_a_rest_that_fits_it() -> None:
    world = World()
    world.train(1200)
    assert 0.4 < world.train(3600, step_s=20.0) < 0.7
    assert world.board.hottest_c < 66.0  # what one such step heats it by


# What the firmware says


def test_under_voltage_pauses_until_it_has_been_gone_for_a_while() -> None:
    world = World(limit=HeatLimit())
    world.tamper = lambda fields: {**fields, "under_voltage": 10.0 <= world.board.now_s < 40.0}
    world.train(60)
    assert world.board.worked_s == pytest.approx(10 + 10, abs=3.0)  # before, and 10 s after it was gone
    assert world.kinds == ["pause", "resume"]
    assert "under-voltage" in world.events[0][1]


def test_a_supply_that_does_not_recover_ends_the_training() -> None:
    world = World(limit=HeatLimit(), tamper=lambda fields: {**fields, "under_voltage": True})
    with pytest.raises(Spent) as found:
        world.train(3600)
    assert found.value.kind == "power"


def test_a_board_that_throttles_itself_teaches_the_limit() -> None:
    """The limit was thought to be 90 °C, the firmware throttles at 62."""
    world = World(limit=HeatLimit(90.0, "test"))
    world.tamper = lambda fields: {**fields, "throttled": world.board.temperature_c > 62.0}
    world.train(1800)
    hottest_c, world.board.hottest_c = world.board.hottest_c, 0.0
    assert hottest_c < 66.0
    world.train(1800)
    assert world.board.hottest_c < 62.0
    assert world.train(300) > 0.4
    assert any(kind == "limit" and "throttles itself" in line for kind, line in world.events)


def test_throttling_that_rest_does_not_help_is_ignored_after_a_while_and_told() -> None:
    world = World(COLD, tamper=lambda fields: {**fields, "throttled": True})
    world.train(300)
    assert world.train(60) == 1.0
    assert [kind for kind in world.kinds if kind != "limit"] == ["pause", "ignore", "resume"]


def test_peaks_of_current_that_the_hardware_cuts_off_do_not_pause_training_nor_lower_its_limit() -> None:
    current = {"throttled": True, "throttle_flags": ("over-current",)}
    world = World(COLD, tamper=lambda fields: {**fields, **current})
    world.train(300)
    assert world.train(60) == 1.0
    assert [kind for kind in world.kinds if kind != "limit"] == []


# Memory and energy


def test_memory_that_runs_out_on_the_machine_stops_training_before_the_kernel_does() -> None:
    left = {"mib": 500.0}
    world = World(limit=HeatLimit(), tamper=lambda fields: {**fields, "available_mib": left["mib"]})
    world.train(60)
    left["mib"] = LEAST_FREE_MIB - 1
    with pytest.raises(Spent, match="15 MiB of memory were left") as found:
        world.train(60)
    assert found.value.kind == "memory"


def test_energy_is_what_the_meter_says_since_the_training_began() -> None:
    world = World(limit=HeatLimit(), budget={"joules": 1000.0}, metered_w=10.0)
    with pytest.raises(Spent) as found:
        world.train(3600)
    assert found.value.kind == "energy"
    assert world.board.now_s == pytest.approx(90.0, abs=2.0)
    assert world.watch.quality == "measured"


def test_without_a_meter_the_most_that_the_board_draws_is_counted_and_marked() -> None:
    world = World(limit=HeatLimit(), budget={"joules": 1000.0}, modelled_w=10.0)
    with pytest.raises(Spent):
        world.train(3600)
    assert world.board.now_s == pytest.approx(90.0, abs=2.0)
    assert world.watch.quality == "modelled"


def test_a_meter_that_vanishes_is_replaced_by_the_model() -> None:
    world = World(limit=HeatLimit(), modelled_w=20.0, metered_w=4.0, meter_ends_s=50.0)
    world.train(100)
    assert world.watch.joules() == pytest.approx(4 * 50 + 20 * 50, abs=45)


def sensors_say(watts: Callable[[float], float | None], clock: Callable[[], float]) -> Callable[[], Reading]:
    """As `Sensors` reads: energy from the second reading on, and what was counted stays when the meter is gone."""
    meter = Meter()

    def read() -> Reading:
        power_w = watts(clock())
        meter.add(clock(), power_w, "measured")
        return Reading(
            clock(), 0.0, power_w=power_w, power_quality="none" if power_w is None else "measured",
            energy_j=meter.total().joules,
        )  # fmt: skip

    return read


def test_a_board_with_a_meter_and_no_model_is_metered_from_its_first_reading_on() -> None:
    now = [0.0]
    watch = Watch(sensors_say(lambda at_s: 6.0, lambda: now[0]), clock=lambda: now[0])
    assert watch.quality == "measured"
    for now[0] in (1.0, 2.0, 5.0):
        watch.look()
    energy = watch.energy()
    assert (energy.joules, energy.quality, energy.readings, energy.largest_gap_s) == (30.0, "measured", 4, 3.0)


@pytest.mark.parametrize("meter", [True, False])
def test_what_a_slow_board_draws_until_its_first_step_counts(meter: bool) -> None:
    """It loads torch from an SD card for minutes, and looks at no sensor meanwhile."""
    now = [0.0]
    read = sensors_say(lambda at_s: 6.0 if meter else None, lambda: now[0])
    watch = Watch(read, modelled_w=6.0, idle_w=2.0, clock=lambda: now[0])
    now[0] = 150.0
    watch.look()
    energy = watch.energy()
    assert (energy.joules, energy.above_idle_j, energy.largest_gap_s) == (900.0, 600.0, 150.0)


@pytest.mark.parametrize(("idle_w", "above"), [(2.0, 20.0), (None, 0.0)])
def test_what_the_board_draws_doing_nothing_is_taken_off(idle_w: float | None, above: float) -> None:
    now = [0.0]
    watch = Watch(sensors_say(lambda at_s: 6.0, lambda: now[0]), idle_w=idle_w, clock=lambda: now[0])
    now[0] = 5.0
    watch.look()
    assert (watch.energy().joules, watch.energy().above_idle_j) == (30.0, above)
    assert watch.energy().per(10) == above / 10


def test_where_a_meter_vanishes_and_no_model_is_known_what_was_drawn_last_counts_and_is_marked() -> None:
    now = [0.0]
    watch = Watch(
        sensors_say(lambda at_s: 6.0 if at_s <= 2.0 or at_s > 8.0 else None, lambda: now[0]), clock=lambda: now[0]
    )
    for second in range(1, 11):
        now[0] = float(second)
        watch.look()
    assert watch.energy().joules == pytest.approx(60.0, abs=6.0)  # the first second after the gap is not known
    assert watch.quality == "modelled"


def test_a_clock_that_jumps_costs_no_energy() -> None:
    world = World(limit=HeatLimit(), modelled_w=10.0)
    world.train(10)
    world.jump_s = 1e6
    world.train(10)
    assert world.watch.joules() == pytest.approx(200.0, abs=25.0)


# The law by itself


def test_the_law_learns_how_much_a_board_heats() -> None:
    strong, weak = World(), World(Thermal((Stage(3.0, 6.0), Stage(12.0, 200.0)), 30.0, lambda now_s: 15.0))
    strong.train(1200)
    weak.train(1200)
    assert strong.governor._heat is not None
    assert weak.governor._heat is not None
    assert weak.governor._heat.gain_c < strong.governor._heat.gain_c < CAREFUL_C


def test_readings_without_time_between_them_change_nothing() -> None:
    heat = Heat(70.0, 50.0)
    before = heat.duty
    for _ in range(100):
        heat.update(69.0, seconds=0.0, worked=0.0)
    assert heat.duty == before


# A simulated board, live


def test_a_live_board_is_busy_while_this_machine_works_and_rests_while_it_sleeps() -> None:
    now, slept = [0.0], list[float]()
    board = LiveBoard(
        {"throttle_c": 80, "idle_w": 2.0, "max_w": 12.0}, speed=60.0, clock=lambda: now[0], sleep=slept.append
    )
    board.begin()
    now[0] += 1.0
    assert board.clock() == 60.0
    board.sleep(30.0)
    assert board.clock() == 90.0
    assert slept == [0.5]
    assert board.read().energy_j == pytest.approx(2.0 * 90 + 10.0 * 60)
    assert board.read().power_quality == "modelled"


def test_a_live_board_without_known_power_has_no_meter() -> None:
    assert LiveBoard({}, clock=lambda: 0.0, sleep=lambda _: None).read().energy_j is None


def test_left_alone_a_live_board_would_throttle() -> None:
    now = [0.0]
    board = LiveBoard({"throttle_c": 80}, speed=60.0, clock=lambda: now[0], sleep=lambda _: None)
    board.begin()
    now[0] += 20.0
    assert board.read().throttled
    board.sleep(3000.0)
    assert not board.read().throttled
