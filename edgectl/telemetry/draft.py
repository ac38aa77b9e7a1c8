"""A reading in the making: sources are asked in turn, the first that knows a field gives it, and a sensor that says
what cannot be is not believed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

# (low, high), both believable: what lies outside is a broken or sleeping sensor. jtop says -256 °C for one that is off.
PLAUSIBLE: dict[str, tuple[float, float]] = {
    "temperature_c": (-40.0, 125.0),
    "throttle_c": (40.0, 125.0),
    "power_w": (0.05, 400.0),
    "cpu_load": (0.0, 1.0),
    "gpu_load": (0.0, 1.0),
    "total_mib": (1.0, 16 << 20),
    "available_mib": (0.0, 16 << 20),
    "cpu_mhz": (1.0, 20_000.0),
    "cpu_max_mhz": (1.0, 20_000.0),
    "gpu_mhz": (0.0, 20_000.0),
    "disk_wear": (0.0, 1.0),
}


def doubt(name: str, value: float) -> str | None:
    """Why a value cannot be, or None."""
    low, high = PLAUSIBLE[name]
    if math.isfinite(value) and low <= value <= high:
        return None
    return f"the sensor says {value:g}, which cannot be"


@dataclass
class Draft:
    """values: what is known by now; missing: why the rest is not."""

    values: dict[str, Any] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def open(self, name: str) -> bool:
        """Whether nobody has given the field yet."""
        return name not in self.values

    def give(self, name: str, value: Any) -> None:
        """Set a field, unless it is set or the value cannot be."""
        if not self.open(name):
            return
        reason = doubt(name, value) if name in PLAUSIBLE else None
        if reason:
            self.lack(name, reason)
        else:
            self.values[name] = value
            self.missing.pop(name, None)

    def lack(self, name: str, reason: str) -> None:
        """Say why a field is not known; the last source that was asked explains."""
        if self.open(name):
            self.missing[name] = reason
