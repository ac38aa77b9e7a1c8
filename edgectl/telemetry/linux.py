"""What every Linux tells: thermal zones, cooling devices, processors, memory, eMMC wear."""

from __future__ import annotations

import re

from edgectl.board import memory
from edgectl.telemetry.draft import Draft, doubt
from edgectl.telemetry.files import Files, Unreadable

_NOT_THE_PROCESSOR = re.compile(r"pmic|wifi|batt|fan|charger|skin", re.IGNORECASE)
# 'cpu-balanced', 'gpu-balanced', 'emergency-balanced' and 'tegra-heavy' are NVIDIA's kernel 4.9 (Nano, TX2, Xavier)
_SLOWS_DOWN = re.compile(r"cpufreq|devfreq|throttl|balanced|tegra-heavy", re.IGNORECASE)
_ZONES = "sys/class/thermal/thermal_zone*"
_FREQUENCIES = "sys/devices/system/cpu/cpufreq/policy*/"
_WEAR_STEPS = 10  # JEDEC eMMC 5.0: 0x01 is 0 to 10 % of the rated life, 0x0A 90 to 100 %, 0x0B beyond it
_RESERVE_STEPS = {2: 8, 3: 9}  # pre_eol_info: 80 %, 90 % of the blocks held in reserve are used up


class Linux:
    """Reads /sys and /proc. Keeps the processor's counters between two readings."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._counters: tuple[int, int] | None = None
        self._trips: dict[str, float] = {}

    def read(self, draft: Draft, now: float) -> None:
        self._temperatures(draft)
        self._cooling(draft)
        self._load(draft)
        self._frequency(draft)
        self._memory(draft)
        self._wear(draft)

    def _temperatures(self, draft: Draft) -> None:
        """The zones of processors. One that sleeps or lies does not hide the others."""
        found: dict[str, float] = {}
        reason = "there is no thermal zone"
        for zone in self._files.glob(_ZONES):
            try:
                name = self._files.text(f"{zone}/type") or zone.rpartition("/")[2]
                if _NOT_THE_PROCESSOR.search(name):
                    continue
                celsius = self._files.whole(f"{zone}/temp") / 1000
            except Unreadable as error:
                reason = str(error)
                continue
            wrong = doubt("temperature_c", celsius)
            if wrong:
                reason = f"{name}: {wrong}"
            else:
                found[name if name not in found else zone.rpartition("/")[2]] = celsius
                self._trip(zone)
        if found:
            draft.give("temperature_c", max(found.values()))
            draft.give("temperatures_c", found)
        else:
            draft.lack("temperature_c", reason)
        if self._trips:
            draft.give("throttle_c", min(self._trips.values()))
        else:
            draft.lack("throttle_c", "no thermal zone has a passive trip point")

    def _trip(self, zone: str) -> None:
        """Note the zone's lowest passive trip point: the kernel slows processors down from there on. Boards set it
        once, so a known one is not read again."""
        if zone in self._trips:
            return
        found = []
        for point in self._files.glob(f"{zone}/trip_point_*_type"):
            try:
                if self._files.text(point) == "passive":
                    found.append(self._files.whole(point.replace("_type", "_temp")) / 1000)
            except Unreadable:
                continue
        if believable := [celsius for celsius in found if doubt("throttle_c", celsius) is None]:
            self._trips[zone] = min(believable)

    def _cooling(self, draft: Draft) -> None:
        """Throttled: a cooling device that slows a processor down is at work."""
        active: list[str] = []
        known = False
        for device in self._files.glob("sys/class/thermal/cooling_device*"):
            try:
                name = self._files.text(f"{device}/type")
                if _SLOWS_DOWN.search(name):
                    at_work = self._files.whole(f"{device}/cur_state") > 0
                    known = True
                    active += [name] if at_work else []
            except Unreadable:
                continue
        if known and draft.open("throttled"):
            draft.give("throttled", bool(active))
            draft.give("throttle_flags", tuple(active))
        elif active and draft.values.get("throttled"):
            draft.values["throttle_flags"] = (*draft.values["throttle_flags"], *active)

    def _load(self, draft: Draft) -> None:
        try:
            head = self._files.text("proc/stat").splitlines()[0]
            ticks = [int(number) for number in head.split()[1:9]]
            idle = ticks[3] + ticks[4]  # idle and iowait
        except (Unreadable, ValueError, IndexError) as error:
            draft.lack("cpu_load", str(error) if isinstance(error, Unreadable) else "/proc/stat holds garbage")
            return
        before, self._counters = self._counters, (sum(ticks), idle)
        if before is None:
            draft.lack("cpu_load", "a first reading has nothing to compare with")
        elif (passed := self._counters[0] - before[0]) <= 0:
            draft.lack("cpu_load", "the kernel's counters did not move since the last reading")
        else:
            draft.give("cpu_load", round(min(1.0, max(0.0, 1 - (idle - before[1]) / passed)), 4))

    def _frequency(self, draft: Draft) -> None:
        for name, file in (("cpu_mhz", "scaling_cur_freq"), ("cpu_max_mhz", "cpuinfo_max_freq")):
            found, reason = [], "the kernel shows no cpufreq policy"
            for path in self._files.glob(_FREQUENCIES + file):
                try:
                    found.append(self._files.whole(path) / 1000)
                except Unreadable as error:
                    reason = str(error)
            if found:
                draft.give(name, max(found))
            else:
                draft.lack(name, reason)

    def _memory(self, draft: Draft) -> None:
        for name, mib in (
            ("total_mib", memory.usable_mib(self._files.root)),
            ("available_mib", memory.available_mib(self._files.root)),
        ):
            if mib is None:
                draft.lack(name, "/proc/meminfo does not tell")
            else:
                draft.give(name, round(mib, 1))

    def _wear(self, draft: Draft) -> None:
        """Of the most worn eMMC. Other disks do not tell it without root."""
        worst, reasons = 0, []
        for disk in self._files.glob("sys/block/mmcblk*/device/type"):
            try:
                if self._files.text(disk) == "MMC":
                    worst = max(worst, self._emmc_steps(disk.removesuffix("/type")))
                else:
                    reasons.append("SD cards do not tell")
            except (Unreadable, ValueError) as error:
                reasons.append(str(error) if isinstance(error, Unreadable) else "the eMMC's life_time holds garbage")
        if self._files.glob("sys/block/nvme*"):
            reasons.append("an NVMe disk tells root only (nvme smart-log /dev/nvme0)")
        if worst:
            draft.give("disk_wear", min(worst, _WEAR_STEPS) / _WEAR_STEPS)
        else:
            draft.lack("disk_wear", "; ".join(dict.fromkeys(reasons)) or "no disk of this board tells it in /sys")

    def _emmc_steps(self, folder: str) -> int:
        """Tenths of the rated life. Raises Unreadable, or ValueError where the eMMC says nothing of sense."""
        steps = [int(step, 16) for step in self._files.text(f"{folder}/life_time").split()]
        try:
            reserve = int(self._files.text(f"{folder}/pre_eol_info"), 16)
        except (Unreadable, ValueError):  # older kernels do not have it
            reserve = 0
        worst = max([*steps, _RESERVE_STEPS.get(reserve, 0)])
        if worst == 0:
            raise Unreadable("the eMMC does not tell: its life_time is not defined")
        if worst > _WEAR_STEPS + 1:
            raise ValueError(f"life_time {steps}")
        return worst
