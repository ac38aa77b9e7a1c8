"""One schema for all boards: what each recording says, and what is null with a reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgectl.telemetry import watching
from edgectl.telemetry.files import Unreadable
from edgectl.telemetry.reading import OPTIONAL, Sensors
from tests.board.recorded import BOARDS, recorded


@pytest.mark.parametrize("board", BOARDS)
def test_every_field_of_every_board_has_a_value_or_a_reason(board: str, tmp_path: Path) -> None:
    plain = recorded(board, tmp_path).read().plain()
    assert [name for name in OPTIONAL if plain[name] is None and not plain["missing"].get(name)] == []
    assert [name for name in plain["missing"] if plain[name] is not None] == []
    json.dumps(plain, allow_nan=False)


def test_every_board_has_the_same_fields(tmp_path: Path) -> None:
    assert len({tuple(recorded(board, tmp_path).read().plain()) for board in BOARDS}) == 1


@pytest.mark.parametrize(
    ("board", "celsius", "throttle_c"),
    [
        ("pi-zero-2w", 47.236, None),
        ("pi-4b", 81.303, None),
        ("jetson-nano", 41.5, 97.0),  # not the 100 °C of the PMIC's zone
        ("jetson-xavier-nx", 48.5, 95.5),
        ("jetson-orin-nano", 55.406, 99.0),  # one of its zones cannot be read
    ],
)
def test_the_hottest_zone_counts_and_the_kernel_says_where_it_throttles(
    board: str, celsius: float, throttle_c: float | None, tmp_path: Path
) -> None:
    reading = recorded(board, tmp_path).read()
    assert (reading.temperature_c, reading.throttle_c) == (celsius, throttle_c)


def test_a_board_throttles_from_the_lowest_trip_point_of_any_zone_on(tmp_path: Path) -> None:
    board = recorded("jetson-xavier-nx", tmp_path)
    board.write("sys/class/thermal/thermal_zone1/trip_point_0_temp", "88000\n")  # of the GPU
    assert board.read().throttle_c == 88.0


@pytest.mark.parametrize(
    ("board", "watts", "quality"),
    [
        ("pi-zero-2w", None, "none"),
        ("pi-4b", None, "none"),
        ("pi-5", 1.8081, "modelled"),
        ("jetson-nano", 2.489, "measured"),
        ("jetson-xavier-nx", 4.0145, "measured"),  # 4.944 V x 0.812 A
        ("jetson-orin-nano", 6.1592, "measured"),  # 5.032 V x 1.224 A
    ],
)
def test_power_says_how_it_is_known(board: str, watts: float | None, quality: str, tmp_path: Path) -> None:
    reading = recorded(board, tmp_path).read()
    assert (reading.power_w, reading.power_quality) == (watts, quality)


def test_a_sum_of_rails_is_only_modelled(tmp_path: Path) -> None:
    board = recorded("jetson-orin-nano", tmp_path)
    board.write("sys/class/hwmon/hwmon1/in1_label", "VDD_GPU_SOC")
    reading = board.read()
    assert reading.power_quality == "modelled"
    assert reading.power_w == pytest.approx(5.032 * 1.224 + 5.024 * 0.304 + 5.032 * 0.288, abs=1e-3)


def test_a_sites_own_profile_names_its_rail(tmp_path: Path) -> None:
    board = recorded("jetson-orin-nano", tmp_path)
    board.write("sys/class/hwmon/hwmon1/in1_label", "CARRIER_IN")
    board.write("profiles/carrier.toml", 'id = "carrier"\nschema_version = 1\n[power]\ntotal_rail = "CARRIER_IN"\n')
    board.write("profiles/broken.toml", "total_rail = ")
    reading = Sensors(board.root, board.run, site=[board.root / "profiles"]).read()
    assert (reading.power_w, reading.power_quality) == (6.1592, "measured")


def test_a_jetson_thor_tells_microwatts(tmp_path: Path) -> None:
    board = recorded("jetson-orin-nano", tmp_path)
    board.write("sys/class/hwmon/hwmon1/name", "ina238\n")
    board.write("sys/class/hwmon/hwmon1/power1_input", "31500000\n")
    assert (board.read().power_w, board.read().power_quality) == (31.5, "measured")


def test_the_flags_of_a_hot_pi_on_a_weak_supply(tmp_path: Path) -> None:
    reading = recorded("pi-4b", tmp_path).read()
    assert (reading.throttled, reading.throttle_flags, reading.throttled_before) == (True, ("throttled",), True)
    assert (reading.under_voltage, reading.under_voltage_before) == (True, True)


def test_flags_of_the_past_are_not_those_of_now(tmp_path: Path) -> None:
    board = recorded("pi-4b", tmp_path)
    board.commands["vcgencmd get_throttled"] = "throttled=0xd0000\n"
    reading = board.read()
    assert (reading.throttled, reading.under_voltage) == (False, False)
    assert (reading.throttled_before, reading.under_voltage_before) == (True, True)


def test_a_pi_zero_cannot_tell_its_supply_whatever_its_firmware_says(tmp_path: Path) -> None:
    reading = recorded("pi-zero-2w", tmp_path).read()
    assert reading.under_voltage is None
    assert "no low-voltage detector" in reading.missing["under_voltage"]
    assert reading.throttled is False


COPY = "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled"


def test_the_kernels_copy_of_the_flags_forgets_so_the_firmware_is_asked(tmp_path: Path) -> None:
    board = recorded("pi-5", tmp_path)
    board.commands["vcgencmd get_throttled"] = "throttled=0x50004\n"
    board.write(COPY, "0\n")  # the driver that asks every 2 s has the firmware clear them
    reading = board.read()
    assert (reading.throttle_flags, reading.throttled_before) == (("throttled",), True)
    assert reading.under_voltage_before is True


def test_without_vcgencmd_the_kernels_copy_tells_of_now_only(tmp_path: Path) -> None:
    board = recorded("pi-5", tmp_path)
    del board.commands["vcgencmd get_throttled"]
    board.write(COPY, "80008\n")
    reading = board.read()
    assert (reading.throttled, reading.throttle_flags) == (True, ("soft temperature limit",))
    assert reading.missing["throttled_before"] == "vcgencmd is not installed"
    assert (reading.under_voltage, reading.under_voltage_before) == (False, None)


def test_a_copy_that_no_driver_renews_is_not_believed(tmp_path: Path) -> None:
    board = recorded("pi-5", tmp_path)
    del board.commands["vcgencmd get_throttled"]
    board.write("sys/class/hwmon/hwmon2/name", "rp1_adc\n")
    reading = board.read()
    assert (reading.throttled, reading.under_voltage) == (None, None)


def test_an_over_current_event_since_the_last_reading_is_throttling(tmp_path: Path) -> None:
    board = recorded("jetson-xavier-nx", tmp_path)
    sensors = board.sensors()
    assert (sensors.read().throttled, sensors.read().throttled_before) == (False, True)
    board.write("sys/class/hwmon/hwmon4/oc3_event_cnt", "1\n")
    reading = sensors.read()
    assert (reading.throttled, reading.throttle_flags) == (True, ("over-current",))
    assert (reading.under_voltage, reading.under_voltage_before) == (False, True)
    assert sensors.read().throttled is False


def test_an_event_between_two_looks_is_told_by_the_second_however_long_after(tmp_path: Path) -> None:
    board = recorded("jetson-orin-nano", tmp_path)
    look = watching.since_the_last(board.sensors())
    board.write("sys/class/hwmon/hwmon2/oc1_event_cnt", "4\n")
    board.now += 300.0
    assert [look().under_voltage, look().under_voltage] == [True, False]


@pytest.mark.parametrize(
    ("board", "counter"),
    [("jetson-xavier-nx", "hwmon4/oc2_event_cnt"), ("jetson-orin-nano", "hwmon2/oc1_event_cnt")],
)
def test_one_of_a_jetsons_over_current_counters_is_that_of_its_supply(board: str, counter: str, tmp_path: Path) -> None:
    jetson = recorded(board, tmp_path)
    sensors = jetson.sensors()
    assert "nothing to compare" in sensors.read().missing["under_voltage"]
    jetson.write(f"sys/class/hwmon/{counter}", "4\n")
    reading = sensors.read()
    assert (reading.under_voltage, reading.under_voltage_before) == (True, True)
    assert (reading.throttled, reading.throttle_flags) == (True, ("under-voltage",))
    assert sensors.read().under_voltage is False


def test_heat_is_not_hidden_by_over_current(tmp_path: Path) -> None:
    board = recorded("jetson-orin-nano", tmp_path)
    sensors = board.sensors()
    sensors.read()
    board.write("sys/class/hwmon/hwmon2/oc3_event_cnt", "7\n")
    assert not sensors.read().throttled_by_heat
    board.write("sys/class/hwmon/hwmon2/oc3_event_cnt", "8\n")
    board.write("sys/class/thermal/cooling_device3/cur_state", "1\n")
    reading = sensors.read()
    assert reading.throttle_flags == ("over-current", "cpu-throttle-alert")
    assert reading.throttled_by_heat


def test_an_event_that_somebody_forbade_to_slow_the_board_is_no_throttling(tmp_path: Path) -> None:
    board = recorded("jetson-orin-nano", tmp_path)
    board.write("sys/class/hwmon/hwmon2/oc2_throt_en", "0\n")
    sensors = board.sensors()
    sensors.read()
    board.write("sys/class/hwmon/hwmon2/oc2_event_cnt", "9\n")
    assert (sensors.read().throttled, sensors.read().throttled_before) == (False, False)


def test_where_nobody_knows_which_counter_is_the_supplys_under_voltage_is_null(tmp_path: Path) -> None:
    board = recorded("jetson-orin-nano", tmp_path)
    board.write("proc/device-tree/compatible", b"nvidia,p3971-0080+p3834-0008\0nvidia,tegra264\0")
    reading = board.read()
    assert (reading.under_voltage, reading.throttled_before) == (None, False)
    assert "is not known" in reading.missing["under_voltage"]
    assert "no over-current counters" in recorded("jetson-nano", tmp_path).read().missing["under_voltage"]


def test_a_cooling_device_at_work_is_throttling_but_a_fan_is_not(tmp_path: Path) -> None:
    board = recorded("jetson-orin-nano", tmp_path)
    assert board.read().throttled is False  # its fan turns
    board.write("sys/class/thermal/cooling_device3/cur_state", "1\n")
    assert board.read().throttle_flags == ("cpu-throttle-alert",)


@pytest.mark.parametrize("name", ["cpu-balanced", "GPU-balanced", "emergency-balanced", "tegra-heavy"])
def test_the_cooling_devices_of_jetpack_4_are_known(name: str, tmp_path: Path) -> None:
    board = recorded("jetson-nano", tmp_path)
    board.write("sys/class/thermal/cooling_device2/type", name + "\n")
    board.write("sys/class/thermal/cooling_device2/cur_state", "2\n")
    assert board.read().throttle_flags == (name,)


def test_load_is_what_happened_between_two_readings(tmp_path: Path) -> None:
    board = recorded("pi-4b", tmp_path)
    sensors = board.sensors()
    board.write("proc/stat", "cpu 1000 0 0 1000 0 0 0 0 0 0\n")
    assert "nothing to compare" in sensors.read().missing["cpu_load"]
    board.write("proc/stat", "cpu 1030 0 0 1050 20 0 0 0 0 0\n")
    assert sensors.read().cpu_load == 0.3


def test_energy_is_power_over_time_that_never_jumps(tmp_path: Path) -> None:
    board = recorded("jetson-nano", tmp_path)
    sensors = board.sensors()
    assert sensors.read().energy_j is None
    board.now, board.wall = 110.0, 0.0  # the wall clock fell back to 1970
    reading = sensors.read()
    assert reading.energy_j == pytest.approx(24.89)
    assert (reading.monotonic_s, reading.wall_s) == (110.0, 0.0)


def test_an_emmc_tells_its_wear_and_other_disks_do_not(tmp_path: Path) -> None:
    assert recorded("jetson-xavier-nx", tmp_path).read().disk_wear == 0.2  # the worse of 0x02 and 0x01
    assert recorded("pi-4b", tmp_path).read().missing["disk_wear"] == "SD cards do not tell"
    assert "an NVMe disk tells root only" in recorded("jetson-orin-nano", tmp_path).read().missing["disk_wear"]


@pytest.mark.parametrize(
    ("life_time", "reserve", "wear", "reason"),
    [
        ("0x02 0x01", "0x02", 0.8, ""),
        ("0x02 0x01", "0x03", 0.9, ""),
        ("0x0b 0x01", "0x01", 1.0, ""),
        ("0x02 0x01", "garbage", 0.2, ""),
        ("0x00 0x00", "0x00", None, "is not defined"),
        ("0xff 0x01", "0x01", None, "holds garbage"),
        ("", "0x01", None, "is not defined"),
        ("new", "0x01", None, "holds garbage"),
    ],
)
def test_wear_is_the_worse_of_cells_and_reserve(
    life_time: str, reserve: str, wear: float | None, reason: str, tmp_path: Path
) -> None:
    board = recorded("jetson-xavier-nx", tmp_path)
    board.write("sys/block/mmcblk0/device/life_time", life_time)
    board.write("sys/block/mmcblk0/device/pre_eol_info", reserve)
    reading = board.read()
    assert reading.disk_wear == wear
    assert reason in reading.missing.get("disk_wear", "")


def test_a_containers_limit_is_the_boards_memory(tmp_path: Path) -> None:
    board = recorded("pi-5", tmp_path)
    folder = "sys/fs/cgroup/user.slice"
    board.write(f"{folder}/memory.max", str(512 << 20))
    board.write(f"{folder}/memory.current", str(100 << 20))
    reading = board.read()
    assert (reading.total_mib, reading.available_mib) == (512.0, 412.0)


def test_an_empty_root_gives_a_reading_of_reasons(tmp_path: Path) -> None:
    plain = Sensors(tmp_path, lambda arguments: (_ for _ in ()).throw(Unreadable("no"))).read().plain()
    assert all(plain[name] is None and plain["missing"][name] for name in OPTIONAL)
    assert plain["power_quality"] == "none"
