"""Sensors that are missing, unreadable, absurd, hanging or vanishing: a null with a reason, never a wrong number."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgectl.telemetry.files import Files, Unreadable
from edgectl.telemetry.reading import OPTIONAL
from edgectl.telemetry.runner import Hung, run
from tests.board.recorded import BOARDS, recorded

ZONE = "sys/class/thermal/thermal_zone0/temp"


@pytest.mark.parametrize("lie", ["-256000", "200000", "-2147483648", "99999999999999999999"])
def test_a_temperature_that_cannot_be_is_refused(lie: str, tmp_path: Path) -> None:
    board = recorded("pi-4b", tmp_path)
    board.commands.pop("vcgencmd measure_temp")
    board.write(ZONE, lie)
    reading = board.read()
    assert reading.temperature_c is None
    assert "cannot be" in reading.missing["temperature_c"]


def test_the_firmware_is_asked_where_the_kernels_zone_lies(tmp_path: Path) -> None:
    board = recorded("pi-4b", tmp_path)
    board.write(ZONE, "-256000")
    assert board.read().temperature_c == 81.3


def test_one_lying_zone_does_not_hide_the_others(tmp_path: Path) -> None:
    board = recorded("jetson-nano", tmp_path)
    board.write(ZONE, "200000")  # AO-therm
    assert board.read().temperatures_c == {"CPU-therm": 33.5, "GPU-therm": 32.0, "PLL-therm": 31.5}


def test_no_volts_is_no_power_not_0_watts(tmp_path: Path) -> None:
    board = recorded("jetson-orin-nano", tmp_path)
    board.write("sys/class/hwmon/hwmon1/in1_input", "0\n")
    reading = board.read()
    assert (reading.power_w, reading.power_quality) == (None, "none")
    assert reading.missing["power_w"].startswith("the sensor says 0, which cannot be")


def test_a_rail_that_cannot_be_read_matters_only_to_a_sum(tmp_path: Path) -> None:
    board = recorded("jetson-orin-nano", tmp_path)
    (board.root / "sys/class/hwmon/hwmon1/curr2_input").unlink()
    assert (board.read().power_w, board.read().power_quality) == (6.1592, "measured")
    board.write("sys/class/hwmon/hwmon1/in1_label", "VDD_GPU_SOC")
    reading = board.read()
    assert (reading.power_w, reading.missing["power_w"].split("; jtop")[0][-22:]) == (None, "curr2_input is missing")


def test_a_channel_without_a_name_is_no_rail(tmp_path: Path) -> None:
    board = recorded("jetson-orin-nano", tmp_path)
    board.write("sys/class/hwmon/hwmon1/in1_label", "VDD_GPU_SOC\n")
    board.write("sys/class/hwmon/hwmon1/in2_label", "\n")
    board.write("sys/class/hwmon/hwmon1/in2_input", "")
    assert board.read().power_quality == "modelled"


def test_rails_without_volts_on_a_pi_are_no_power(tmp_path: Path) -> None:
    board = recorded("pi-5", tmp_path)
    board.commands["vcgencmd pmic_read_adc"] = "VDD_CORE_A current(7)=1.0A\nVDD_CORE_V volt(15)=0.0V\n"
    reading = board.read()
    assert (reading.power_w, reading.power_quality) == (None, "none")


@pytest.mark.parametrize("garbage", ["", "VDD_CORE_A current(7)=1.0A\n", "A_A current(1)=1.2.3A\nA_V volt(2)=1V\n"])
def test_rails_that_are_none_are_no_power(garbage: str, tmp_path: Path) -> None:
    board = recorded("pi-5", tmp_path)
    board.commands["vcgencmd pmic_read_adc"] = garbage
    assert board.read().power_w is None


@pytest.mark.parametrize("garbage", ["throttled=0xZZ", "", "throttled=-1", "throttled=0xffffffff"])
def test_flags_that_are_none_are_unknown_not_clear(garbage: str, tmp_path: Path) -> None:
    board = recorded("pi-4b", tmp_path)
    board.commands["vcgencmd get_throttled"] = garbage
    reading = board.read()
    assert reading.throttled is None
    assert "no flags" in reading.missing["throttled"]


def test_without_vcgencmd_the_kernels_own_alarm_tells_the_supply(tmp_path: Path) -> None:
    board = recorded("pi-4b", tmp_path)
    board.commands.clear()
    reading = board.read()
    assert reading.under_voltage is True
    assert reading.missing["throttled"] == "vcgencmd is not installed"


def test_a_hanging_vcgencmd_is_waited_for_once_and_then_left_alone(tmp_path: Path) -> None:
    board = recorded("pi-4b", tmp_path)
    hung: Unreadable = Hung("vcgencmd did not answer in time")
    board.commands = dict.fromkeys(board.commands, hung)
    sensors = board.sensors()
    assert sensors.read().missing["throttled"] == "vcgencmd did not answer in time"
    board.now += 30
    sensors.read()
    assert board.asked == ["vcgencmd get_throttled"]
    board.now += 31
    sensors.read()
    assert len(board.asked) == 2


def test_a_board_without_a_power_chip_is_not_asked_again_at_every_reading(tmp_path: Path) -> None:
    board = recorded("pi-4b", tmp_path)
    sensors = board.sensors()
    for _ in range(5):
        board.now += 100
        sensors.read()
    assert board.asked.count("vcgencmd pmic_read_adc") == 1


@pytest.mark.parametrize("board_name", BOARDS)
def test_every_file_may_hold_garbage(board_name: str, tmp_path: Path) -> None:
    board = recorded(board_name, tmp_path)
    for path in [path for path in board.root.rglob("*") if path.is_file() and path.name not in ("model", "compatible")]:
        path.write_bytes(b"\xff\x00garbage\n")
    board.commands = dict.fromkeys(board.commands, "\x1b[31mgarbage")
    plain = board.sensors().read().plain()
    assert [name for name in OPTIONAL if plain[name] is not None] == []
    assert all(plain["missing"][name] for name in OPTIONAL)


@pytest.mark.parametrize("board_name", BOARDS)
def test_every_file_may_vanish_between_two_readings(board_name: str, tmp_path: Path) -> None:
    board = recorded(board_name, tmp_path)
    sensors = board.sensors()
    for path in sorted(path for path in board.root.rglob("*") if path.is_file()):
        path.unlink()
        sensors.read()
        board.now += 1
    board.commands.clear()
    board.now += 3600
    kept = {"throttle_c", "energy_j"}  # the trip point is not read twice; energy is what it was
    assert all(sensors.read().missing[name] for name in OPTIONAL if name not in kept)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    board = recorded("jetson-nano", tmp_path)
    (board.root / "sys/devices/gpu.0/load").chmod(0)
    assert "may not be read" in board.read().missing["gpu_load"]


def test_a_folder_in_the_place_of_a_file_is_a_reason(tmp_path: Path) -> None:
    (tmp_path / "proc" / "stat").mkdir(parents=True)
    with pytest.raises(Unreadable, match="/proc/stat cannot be read"):
        Files(tmp_path).text("proc/stat")


# The runner, with real processes


def test_a_command_that_is_missing_denied_or_failing_says_which(tmp_path: Path) -> None:
    denied = tmp_path / "vcgencmd"
    denied.write_text("#!/bin/sh\n")
    for arguments, reason in (
        (["/nowhere/vcgencmd"], "is not installed"),
        ([str(denied)], "may not be run"),
        (["sh", "-c", "echo no access to /dev/vcio >&2; exit 255"], "failed: no access to /dev/vcio"),
    ):
        with pytest.raises(Unreadable, match=reason):
            run(arguments)


def test_a_command_that_hangs_is_ended() -> None:
    with pytest.raises(Hung, match="did not answer"):
        run(["sleep", "1000"], timeout_s=0.05)


def test_a_command_that_never_stops_printing_is_cut_off() -> None:
    with pytest.raises(Unreadable, match="prints too much"):
        run(["yes"], timeout_s=60.0)


def test_a_command_that_closes_its_output_and_stays_is_ended() -> None:
    with pytest.raises(Hung, match="did not end"):
        run(["sh", "-c", "exec >&- 2>&-; sleep 1000"], timeout_s=0.2)


def test_what_a_command_prints_is_given() -> None:
    assert run(["echo", "throttled=0x0"]) == "throttled=0x0\n"


@pytest.mark.parametrize("model", [b"", b"\xff\xfe\x00", b"Raspberry Pi", b"\x1b[31mNVIDIA" * 500])
def test_a_device_tree_with_garbage_leaves_what_every_linux_tells(model: bytes, tmp_path: Path) -> None:
    board = recorded("jetson-nano", tmp_path)
    board.write("proc/device-tree/model", model)
    board.write("proc/device-tree/compatible", b"\xff" * 10_000)
    reading = board.read()
    assert (reading.temperature_c, reading.power_w) == (41.5, None)
