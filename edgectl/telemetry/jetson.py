"""NVIDIA Jetson from /sys alone: power monitors, GPU, over-current counters. `jtop.Jtop` fills what this leaves open.

Rails: https://docs.nvidia.com/jetson/archives/r36.3/DeveloperGuide/SD/PlatformPowerAndPerformance.html; the layouts of
/sys as in https://github.com/rbonghi/jetson_stats/blob/master/jtop/core/power.py
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from functools import partial

from edgectl.board import profile
from edgectl.telemetry.draft import Draft
from edgectl.telemetry.files import Files, Unreadable

_GPU = re.compile(r"gpu|gm20b|gp10b|gv11b|ga10b")
_NOT_A_RAIL = re.compile(r"^(NC)?$|sum of shunt", re.IGNORECASE)
_OC_COUNTER = re.compile(r"oc(\d)_event_cnt$")
# Which of the counters is that of a supply below 4.5 V; the others are of currents. tegra234 (Orin):
# https://docs.nvidia.com/jetson/archives/r36.3/DeveloperGuide/SD/PlatformPowerAndPerformance/JetsonOrinNanoSeriesJetsonOrinNxSeriesAndJetsonAgxOrinSeries.html
# tegra194 (Xavier): https://forums.developer.nvidia.com/t/jetson-xavier-nx-soctherm-oc-alarm-codes/307919
_OF_THE_SUPPLY = {"nvidia,tegra234": 1, "nvidia,tegra194": 2}
_LOADS = ("sys/devices/gpu.0/load", "sys/devices/platform/gpu.0/load", "sys/class/devfreq/*/device/load")

Rail = tuple[str, Callable[[], float]]
"""Its name, and what reads its watts; that raises Unreadable."""


def is_jetson(files: Files, model: str) -> bool:
    """By its name, or by its processor (a Jetson TX2 calls itself 'quill')."""
    return model.startswith("NVIDIA Jetson") or "nvidia,tegra" in profile.device_tree(files.root, "compatible")


class Jetson:
    """Keeps the over-current counters between two readings. total_rails: those that carry all that a module takes;
    where there is none (AGX Orin), the sum of the rails is an estimate."""

    def __init__(self, files: Files, total_rails: Collection[str]) -> None:
        self._files, self._total_rails = files, total_rails
        self._events: dict[int, int] | None = None
        names = profile.device_tree(files.root, "compatible").split("\0")
        self._of_the_supply = next((number for name, number in _OF_THE_SUPPLY.items() if name in names), None)

    def read(self, draft: Draft, now: float) -> None:
        self._power(draft)
        self._gpu(draft)
        self._over_current(draft)

    def _power(self, draft: Draft) -> None:
        """A rail that cannot be read matters only to a sum."""
        rails, unreadable = dict[str, float](), ""
        try:
            for rail, watts in (*_iio_rails(self._files), *_hwmon_rails(self._files)):
                try:
                    rails[rail] = watts()
                except Unreadable as error:
                    unreadable = str(error)
        except Unreadable as error:
            unreadable = str(error)
        total = next((name for name in rails if name in self._total_rails), None)
        if not rails or (total is None and unreadable):
            draft.lack("power_w", unreadable or "there is no INA3221 or INA238 power monitor in /sys")
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
        """Events since the board started, a counter for each kind; one since the last reading counts as now."""
        counts = self._counts()
        if not counts:
            for name in ("throttled_before", "under_voltage", "under_voltage_before"):
                draft.lack(name, "the kernel has no over-current counters")
            return
        before, self._events = self._events, counts
        rose = [number for number in counts if before is not None and counts[number] > before.get(number, 0)]
        slowing = [number for number in rose if self._slows(number)]
        draft.give("throttled_before", any(count for number, count in counts.items() if self._slows(number)))
        if slowing:
            kinds = {"under-voltage" if number == self._of_the_supply else "over-current" for number in slowing}
            draft.give("throttled", True)
            draft.give("throttle_flags", tuple(sorted(kinds)))
        self._under_voltage(draft, counts, None if before is None else rose)

    def _under_voltage(self, draft: Draft, counts: dict[int, int], rose: list[int] | None) -> None:
        if self._of_the_supply not in counts:
            for name in ("under_voltage", "under_voltage_before"):
                draft.lack(name, "which of this board's over-current counters is the supply's is not known")
            return
        draft.give("under_voltage_before", counts[self._of_the_supply] > 0)
        if rose is None:
            draft.lack("under_voltage", "a first reading has nothing to compare with")
        else:
            draft.give("under_voltage", self._of_the_supply in rose)

    def _counts(self) -> dict[int, int]:
        found = {}
        for name in self._files.glob("sys/class/hwmon/hwmon*/oc*_event_cnt"):
            match = _OC_COUNTER.search(name)
            try:
                if match:
                    found[int(match[1])] = self._files.whole(name)
            except Unreadable:
                continue
        return found

    def _slows(self, number: int) -> bool:
        """Whether the hardware throttles at such an event; it does, unless somebody switched that off."""
        for name in self._files.glob(f"sys/class/hwmon/hwmon*/oc{number}_throt_en"):
            try:
                return self._files.whole(name) != 0
            except Unreadable:
                continue
        return True


def _iio_rails(files: Files) -> Iterator[Rail]:
    """JetPack 4: iio:device*/rail_name_N and in_powerN_input, in mW. Raises Unreadable."""
    for name in files.glob("sys/bus/i2c/drivers/ina3221x/*/iio:device*/rail_name_*"):
        rail = files.text(name)
        if not _NOT_A_RAIL.search(rail):
            folder, _, number = name.rpartition("/rail_name_")
            yield rail, partial(_scaled, files, f"{folder}/in_power{number}_input", 1e3)


def _hwmon_rails(files: Files) -> Iterator[Rail]:
    """JetPack 5 and later: inN_label, inN_input in mV, currN_input in mA; Thor's INA238: power1_input in µW. Raises
    Unreadable."""
    for name in files.glob("sys/class/hwmon/hwmon*/name"):
        try:
            folder, chip = name.removesuffix("/name"), files.text(name)
        except Unreadable:  # some other chip's business
            continue
        if chip == "ina3221":
            yield from _ina3221(files, folder)
        elif chip == "ina238":
            yield "VIN", partial(_scaled, files, f"{folder}/power1_input", 1e6)


def _ina3221(files: Files, folder: str) -> Iterator[Rail]:
    for label in files.glob(f"{folder}/in*_label"):
        number = label.removeprefix(f"{folder}/in").removesuffix("_label")
        rail = files.text(label)
        if number != "7" and not _NOT_A_RAIL.search(rail):  # 7 is the sum of the shunt voltages
            yield rail, partial(_product, files, f"{folder}/in{number}_input", f"{folder}/curr{number}_input")


def _scaled(files: Files, name: str, of_a_watt: float) -> float:
    return files.whole(name) / of_a_watt


def _product(files: Files, millivolts: str, milliamperes: str) -> float:
    return files.whole(millivolts) * files.whole(milliamperes) / 1e6
