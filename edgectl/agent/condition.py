"""What a reading of the board's state means for the agent: whether training has to wait, what a person should look at.
What no sensor tells is no reason for either, nor are peaks of current that a Jetson cuts off by itself."""

from __future__ import annotations

from edgectl.telemetry.reading import Reading

COOL_C = 5.0  # below the limit of training: hotter, it would rest more than train
LOW_DISK_MIB = 200.0


def not_now(reading: Reading, *, limit_c: float | None, idle_load: float) -> str:
    """Why training should wait; '' if it need not."""
    if reading.throttled_by_heat or reading.under_voltage:
        return "the board is throttled" if reading.throttled_by_heat else "the supply's voltage is too low"
    if limit_c is not None and reading.temperature_c is not None and reading.temperature_c > limit_c - COOL_C:
        return f"the board is not cool (it should be below {limit_c - COOL_C:.0f} °C)"
    loads = [load for load in (reading.cpu_load, reading.gpu_load) if load is not None]
    return f"the board is not idle (above {100 * idle_load:.0f} %)" if max(loads, default=0.0) > idle_load else ""


def troubles(reading: Reading, *, free_mib: float) -> list[str]:
    """What a person should look at."""
    found = [("throttled", reading.throttled_by_heat), ("under-voltage", reading.under_voltage)]
    lines = [name for name, now in found if now]
    return [*lines, *(["less than 200 MiB of disk are free"] if free_mib < LOW_DISK_MIB else [])]
