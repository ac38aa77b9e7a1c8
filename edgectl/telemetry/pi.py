"""Raspberry Pi: what the firmware says of heat and supply, and the Pi 5's power chip.

Bits of get_throttled: https://www.raspberrypi.com/documentation/computers/os.html#get_throttled
"""

from __future__ import annotations

import contextlib
import re

from edgectl.telemetry.draft import Draft
from edgectl.telemetry.files import Files, Unreadable
from edgectl.telemetry.runner import Asking

# What the driver rpi_volt heard last: it asks every 2 s and has the firmware forget the past each time. Without that
# driver it is as old as the start: https://github.com/raspberrypi/linux/blob/rpi-6.6.y/drivers/firmware/raspberrypi.c
_COPIES = "sys/devices/platform/soc*/soc*:firmware/get_throttled"
_SLOWED = {1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
_BEFORE = 16  # from this bit on: the same, since the board started
_ALL_BITS = 0xF000F
_RAIL = re.compile(r"^\s*(\w+)_([AV]) (?:current|volt)\(\d+\)=([0-9.]+)[AV]\s*$", re.MULTILINE)
_NO_DETECTOR = "the Zero family has no low-voltage detector"
_NO_PMIC_REST_S = 3600.0  # boards do not grow one


class Pi:
    """Asks vcgencmd; where that is missing or denied, /sys tells of now. model: what the firmware calls this board."""

    def __init__(self, files: Files, asking: Asking, model: str) -> None:
        self._files, self._asking = files, asking
        # the Zero family has no detector: its firmware says 0 whatever the supply does
        self._detects_voltage = not model.startswith("Raspberry Pi Zero")

    def read(self, draft: Draft, now: float) -> None:
        self._flags(draft, now)
        self._power(draft, now)

    def _flags(self, draft: Draft, now: float) -> None:
        try:
            bits = _hexadecimal(self._asking.ask("vcgencmd", "get_throttled", now=now))
        except Unreadable as error:
            for name in ("throttled", "throttled_before", "under_voltage", "under_voltage_before"):
                draft.lack(name, str(error))
            self._of_the_driver(draft)
            return
        _slowed(draft, bits)
        draft.give("throttled_before", any(bits >> (bit + _BEFORE) & 1 for bit in _SLOWED))
        for name, bit in (("under_voltage", 0), ("under_voltage_before", _BEFORE)):
            if self._detects_voltage:
                draft.give(name, bool(bits >> bit & 1))
            else:
                draft.lack(name, _NO_DETECTOR)

    def _of_the_driver(self, draft: Draft) -> None:
        """What the kernel's own detector, known by name only, heard within its last seconds; of the past it knows
        nothing."""
        for name in self._files.glob("sys/class/hwmon/hwmon*/name"):
            try:
                if self._files.text(name) == "rpi_volt":
                    self._copy(draft)
                    if self._detects_voltage:
                        alarm = self._files.whole(name.replace("/name", "/in0_lcrit_alarm"))
                        draft.give("under_voltage", alarm != 0)
            except Unreadable as error:
                draft.lack("under_voltage", str(error))
        if not self._detects_voltage:
            draft.lack("under_voltage", _NO_DETECTOR)

    def _copy(self, draft: Draft) -> None:
        for name in self._files.glob(_COPIES):
            with contextlib.suppress(Unreadable):
                _slowed(draft, _hexadecimal(self._files.text(name)))

    def _power(self, draft: Draft, now: float) -> None:
        """Volts times amperes of the rails of a Pi 5's power chip. Modelled: what hangs on 5 V itself (USB, HATs, the
        converter's losses) is not in it."""
        try:
            said = self._asking.ask("vcgencmd", "pmic_read_adc", now=now, rest_s=_NO_PMIC_REST_S)
        except Unreadable as error:
            draft.lack("power_w", f"no power sensor: {error}")
            return
        found: dict[str, dict[str, float]] = {}
        for rail, unit, number in _RAIL.findall(said):
            found.setdefault(rail, {})[unit] = _number(number)
        pairs = [units["A"] * units["V"] for units in found.values() if len(units) == 2]
        if not pairs:
            draft.lack("power_w", f"no power sensor: vcgencmd pmic_read_adc says '{said.strip()[:60]}'")
            return
        draft.give("power_w", round(sum(pairs), 4))
        if not draft.open("power_w"):
            draft.give("power_quality", "modelled")


class Thermometer:
    """The firmware's own, for where the kernel's zone is missing or lies: asking it costs a process."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking

    def read(self, draft: Draft, now: float) -> None:
        if not draft.open("temperature_c"):
            return
        before = draft.missing.get("temperature_c", "")
        try:
            said = self._asking.ask("vcgencmd", "measure_temp", now=now)
        except Unreadable as error:
            draft.lack("temperature_c", f"{before}; {error}")
            return
        match = re.search(r"temp=(-?[0-9]+(?:\.[0-9]+)?)'C", said)
        if match is None:
            draft.lack("temperature_c", f"{before}; vcgencmd measure_temp says '{said.strip()[:40]}'")
            return
        draft.give("temperature_c", float(match[1]))
        if not draft.open("temperature_c"):
            draft.give("temperatures_c", {"soc": float(match[1])})


def _slowed(draft: Draft, bits: int) -> None:
    flags = tuple(name for bit, name in _SLOWED.items() if bits >> bit & 1)
    draft.give("throttled", bool(flags))
    draft.give("throttle_flags", flags)


def _hexadecimal(said: str) -> int:
    """Raises Unreadable unless it is the flags, and no bit that has no meaning."""
    text = said.strip().removeprefix("throttled=")
    try:
        bits = int(text, 16)
    except ValueError:
        bits = -1
    if bits < 0 or bits & ~_ALL_BITS:
        raise Unreadable(f"get_throttled says '{text[:40]}', which are no flags")
    return bits


def _number(text: str) -> float:
    """NaN for what only looks like a number ('1.2.3'): the sum is then refused."""
    try:
        return float(text)
    except ValueError:
        return float("nan")
