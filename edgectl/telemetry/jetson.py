"""NVIDIA Jetson from /sys alone: power monitors, GPU, over-current counters. `jtop.Jtop` fills what this leaves open.

Rails: https://docs.nvidia.com/jetson/archives/r36.3/DeveloperGuide/SD/PlatformPowerAndPerformance.html; the layouts of
/sys as in https://github.com/rbonghi/jetson_stats/blob/master/jtop/core/power.py
"""

from __future__ import annotations

import re

from edgectl.telemetry.draft import Draft
from edgectl.telemetry.files import Files, Unreadable

TOTAL_RAILS = ("VDD_IN", "POM_5V_IN", "VIN")
"""Rails that carry all that the module takes. Where there is none (AGX Orin), the sum of the rails is an estimate."""

_GPU = re.compile(r"gpu|gm20b|gp10b|gv11b|ga10b")
_NOT_A_RAIL = re.compile(r"^NC$|sum of shunt", re.IGNORECASE)
_LOADS = ("sys/devices/gpu.0/load", "sys/devices/platform/gpu.0/load", "sys/class/devfreq/*/device/load")


def is_jetson(files: Files, model: str) -> bool:
    """By its name, or by its processor (a Jetson TX2 calls itself 'quill')."""
    try:
        raw = (files.root / "proc" / "device-tree" / "compatible").read_bytes()[:4096]
    except OSError:
        raw = b""
    return model.startswith("NVIDIA Jetson") or b"nvidia,tegra" in raw


class Jetson:
    """Keeps the over-current counters between two readings."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._events: int | None = None

    def read(self, draft: Draft, now: float) -> None:
        self._power(draft)
        self._gpu(draft)
        self._over_current(draft)
        for name in ("under_voltage", "under_voltage_before"):
            draft.lack(name, "a Jetson tells over-current, see throttled")

    def _power(self, draft: Draft) -> None:
        try:
            rails = {**_iio_rails(self._files), **_hwmon_rails(self._files)}
        except Unreadable as error:
            draft.lack("power_w", str(error))
            return
        total = next((name for name in TOTAL_RAILS if name in rails), None)
        if not rails:
            draft.lack("power_w", "there is no INA3221 or INA238 power monitor in /sys")
            return
        draft.give("power_w", round(rails[total] if total else sum(rails.values()), 4))
        if not draft.open("power_w"):
            draft.give("power_quality", "measured" if total else "modelled")

    def _gpu(self, draft: Draft) -> None:
        for name in (name for pattern in _LOADS for name in self._files.glob(pattern) if _GPU.search(name)):
            try:
                draft.give("gpu_load", self._files.whole(name) / 1000)  # the driver counts to 1000
            except Unreadable as error:
                draft.lack("gpu_load", str(error))
        for name in self._files.glob("sys/class/devfreq/*/cur_freq"):
            if _GPU.search(name):
                try:
                    draft.give("gpu_mhz", self._files.whole(name) / 1e6)
                except Unreadable as error:
                    draft.lack("gpu_mhz", str(error))

    def _over_current(self, draft: Draft) -> None:
        """Events since the board started; one since the last reading counts as throttled now."""
        counts = []
        for name in self._files.glob("sys/class/hwmon/hwmon*/oc*_event_cnt"):
            try:
                counts.append(self._files.whole(name))
            except Unreadable:
                continue
        if not counts:
            draft.lack("throttled_before", "the kernel has no over-current counters")
            return
        events, before = sum(counts), self._events
        self._events = events
        draft.give("throttled_before", events > 0)
        if before is not None and events > before:
            draft.give("throttled", True)
            draft.give("throttle_flags", ("over-current",))


def _iio_rails(files: Files) -> dict[str, float]:
    """JetPack 4: iio:device*/rail_name_N and in_powerN_input, in mW. Watts by rail. Raises Unreadable."""
    found = {}
    for name in files.glob("sys/bus/i2c/drivers/ina3221x/*/iio:device*/rail_name_*"):
        rail = files.text(name)
        if not _NOT_A_RAIL.search(rail):
            folder, _, number = name.rpartition("/rail_name_")
            found[rail] = files.whole(f"{folder}/in_power{number}_input") / 1000
    return found


def _hwmon_rails(files: Files) -> dict[str, float]:
    """JetPack 5 and later: inN_label, inN_input in mV, currN_input in mA; Thor's INA238: power1_input in µW."""
    found = {}
    for name in files.glob("sys/class/hwmon/hwmon*/name"):
        try:
            folder, chip = name.removesuffix("/name"), files.text(name)
        except Unreadable:  # some other chip's business
            continue
        if chip == "ina3221":
            found.update(_ina3221(files, folder))
        elif chip == "ina238":
            found["VIN"] = files.whole(f"{folder}/power1_input") / 1e6
    return found


def _ina3221(files: Files, folder: str) -> dict[str, float]:
    found = {}
    for label in files.glob(f"{folder}/in*_label"):
        number = label.removeprefix(f"{folder}/in").removesuffix("_label")
        rail = files.text(label)
        if number != "7" and not _NOT_A_RAIL.search(rail):  # 7 is the sum of the shunt voltages
            volts = files.whole(f"{folder}/in{number}_input") / 1000
            found[rail] = volts * files.whole(f"{folder}/curr{number}_input") / 1000
    return found
