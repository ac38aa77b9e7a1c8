"""One reading of a board's state, with the same fields on every board; and the sensors that it comes from.

A field that is not known is None, and `missing` says why: never 0, never a guess.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgectl.board import profile
from edgectl.telemetry.draft import Draft
from edgectl.telemetry.energy import Meter, Quality
from edgectl.telemetry.files import Files
from edgectl.telemetry.jetson import Jetson, is_jetson
from edgectl.telemetry.linux import Linux
from edgectl.telemetry.pi import Pi, Thermometer
from edgectl.telemetry.runner import Asking, Run, run

if TYPE_CHECKING:
    from edgectl.telemetry.jtop import Jtop


_SUPPLY = frozenset({"over-current", "under-voltage"})


@dataclass(frozen=True)
class Reading:
    """The state of a board at one moment. Loads and wear are shares from 0 to 1.

    monotonic_s: a clock that never jumps, for differences; wall_s: seconds since 1970, as far as the board's clock is
    right. temperature_c: the hottest of `temperatures_c`; throttle_c: where the kernel begins to throttle. throttled:
    slowed down now, by heat or supply, throttle_flags: by what; *_before: since the board started. power_quality:
    'modelled' where a part of the board is not measured. energy_j: since these sensors were opened. available_mib,
    total_mib: what this process may use, of a cgroup where that is less. disk_wear: used share of the rated life or
    of the blocks in reserve, an upper bound.
    """

    monotonic_s: float
    wall_s: float
    temperature_c: float | None = None
    temperatures_c: Mapping[str, float] = field(default_factory=dict)
    throttle_c: float | None = None
    throttled: bool | None = None
    throttle_flags: tuple[str, ...] = ()
    throttled_before: bool | None = None
    under_voltage: bool | None = None
    under_voltage_before: bool | None = None
    power_w: float | None = None
    power_quality: Quality = "none"
    energy_j: float | None = None
    cpu_load: float | None = None
    gpu_load: float | None = None
    available_mib: float | None = None
    total_mib: float | None = None
    cpu_mhz: float | None = None
    cpu_max_mhz: float | None = None
    gpu_mhz: float | None = None
    disk_wear: float | None = None
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def throttled_by_heat(self) -> bool:
        """Slowed down now, and not by over-current or under-voltage alone."""
        return bool(by_heat(self.throttled, self.throttle_flags))

    def plain(self) -> dict[str, Any]:
        """As JSON: every field, also those that are null."""
        return {**vars(self), "temperatures_c": dict(self.temperatures_c), "missing": dict(self.missing)}


def by_heat(throttled: bool | None, flags: Collection[str]) -> bool | None:
    """Whether a board is slowed down, and not by over-current or under-voltage alone; None: nobody knows."""
    return throttled and not (flags and _SUPPLY.issuperset(flags))


OPTIONAL = tuple(one.name for one in fields(Reading) if one.default is None)
"""The fields that may be null: each then has a reason in `missing`."""


class Source(Protocol):
    """Something that knows a few fields on some boards."""

    def read(self, draft: Draft, now: float) -> None:
        """Give what is known, explain what is not. Never raises. now: monotonic, in s."""
        ...


class Sensors:
    """All sensors of this board. Keep one and read it again and again: loads and energy are differences.

    root: of the file system to look at; run: how to run a command; jtop: asked on a Jetson for what /sys does not tell,
    None: nobody is. It takes a process and some seconds to start, so it is for who reads again and again. site: folders
    with a site's own profiles, which may name its rails. Not safe for use by two threads at once.
    """

    def __init__(
        self,
        root: Path = Path("/"),
        run: Run = run,
        *,
        jtop: Jtop | None = None,
        site: Sequence[Path] = (),
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._monotonic, self._wall = monotonic, wall
        self._meter = Meter()
        self._jtop = jtop
        self._sources = self._of_this_board(Files(root), run, site)

    def _of_this_board(self, files: Files, run: Run, site: Sequence[Path]) -> list[Source]:
        """Who knows most is asked first."""
        model = profile.model(files.root)
        if model.startswith("Raspberry Pi"):
            asking = Asking(run)
            return [Pi(files, asking, model), Linux(files), Thermometer(asking)]
        if is_jetson(files, model):
            jetson = Jetson(files, profile.total_rails(site))
            return [jetson, Linux(files), *([self._jtop] if self._jtop else [])]
        return [Linux(files)]

    def read(self) -> Reading:
        """What is known now. Takes milliseconds; where a command hangs, its time limit once, and then not again for a
        while. Never raises."""
        draft, now = Draft(), self._monotonic()
        for source in self._sources:
            source.read(draft, now)
        self._add_up(draft, now)
        for name in OPTIONAL:
            if draft.open(name):
                draft.missing.setdefault(name, "nothing on this board tells it")
        return Reading(now, self._wall(), **draft.values, missing=draft.missing)

    def _add_up(self, draft: Draft, now: float) -> None:
        power_w: float | None = draft.values.get("power_w")
        quality: Quality = draft.values.get("power_quality", "none")
        self._meter.add(now, power_w, quality, reason=draft.missing.get("power_w", ""))
        energy = self._meter.total()
        if energy.joules is None:
            draft.lack("energy_j", "power is not known" if power_w is None else energy.reason)
        else:
            draft.give("energy_j", round(energy.joules, 3))

    @property
    def settling(self) -> bool:
        """Whether something that helps to read is still starting: another reading soon knows more."""
        return self._jtop is not None and self._jtop.starting

    def close(self) -> None:
        """End what helps to read."""
        if self._jtop is not None:
            self._jtop.close()

    def __enter__(self) -> Sensors:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
