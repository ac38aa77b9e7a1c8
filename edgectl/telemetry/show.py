"""A reading as text for people: a line for each field, or the whole in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgectl.telemetry.reading import Reading

_FORMATS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("temperature_c", "temperature", lambda value: f"{value:.1f} °C"),
    ("throttle_c", "throttles from", lambda value: f"{value:.1f} °C"),
    ("throttled", "throttled", lambda value: "yes" if value else "no"),
    ("throttled_before", "throttled since start", lambda value: "yes" if value else "no"),
    ("under_voltage", "under-voltage", lambda value: "yes" if value else "no"),
    ("under_voltage_before", "under-voltage since start", lambda value: "yes" if value else "no"),
    ("power_w", "power", lambda value: f"{value:.2f} W"),
    ("energy_j", "energy since watching", lambda value: f"{value:.1f} J"),
    ("cpu_load", "processor load", lambda value: f"{100 * value:.0f} %"),
    ("gpu_load", "GPU load", lambda value: f"{100 * value:.0f} %"),
    ("available_mib", "memory free", lambda value: f"{value:.0f} MiB"),
    ("total_mib", "memory in all", lambda value: f"{value:.0f} MiB"),
    ("cpu_mhz", "processor clock", lambda value: f"{value:.0f} MHz"),
    ("cpu_max_mhz", "processor clock at most", lambda value: f"{value:.0f} MHz"),
    ("gpu_mhz", "GPU clock", lambda value: f"{value:.0f} MHz"),
    ("disk_wear", "disk wear", lambda value: f"{100 * value:.0f} % of its rated life at most"),
)


def rows(reading: Reading) -> list[tuple[str, str, str]]:
    """(name, value or 'unknown', remark) of every field."""
    return [(label, _value(reading, name, shape), _remark(reading, name)) for name, label, shape in _FORMATS]


def _value(reading: Reading, name: str, shape: Callable[[Any], str]) -> str:
    value = getattr(reading, name)
    return "unknown" if value is None else shape(value)


def _remark(reading: Reading, name: str) -> str:
    if getattr(reading, name) is None:
        return reading.missing.get(name, "")
    if name == "temperature_c" and len(reading.temperatures_c) > 1:
        return ", ".join(f"{zone} {celsius:.1f}" for zone, celsius in reading.temperatures_c.items())
    if name == "throttled":
        return ", ".join(reading.throttle_flags)
    return reading.power_quality if name in ("power_w", "energy_j") else ""


def lines(reading: Reading) -> list[str]:
    """A line for each field; what is not known says why."""
    return [f"{name}: {value}" + (f" ({remark})" if remark else "") for name, value, remark in rows(reading)]


def one_line(reading: Reading) -> str:
    """The state in a few words, leaving out what is not known."""
    parts = []
    if reading.temperature_c is not None:
        parts.append(f"{reading.temperature_c:.1f} °C")
    if reading.throttled is not None:
        parts.append("throttled" if reading.throttled else "not throttled")
    if reading.under_voltage:
        parts.append("under-voltage")
    if reading.power_w is not None:
        parts.append(f"{reading.power_w:.2f} W ({reading.power_quality})")
    if reading.available_mib is not None and reading.total_mib is not None:
        parts.append(f"{reading.available_mib:.0f} of {reading.total_mib:.0f} MiB free")
    return ", ".join(parts) or "its state is not known: edgectl telemetry once says why"
