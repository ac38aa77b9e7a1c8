"""Memory of this machine and of this process, as the kernel counts it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from edgectl.board import cgroup


def total_mib(root: Path = Path("/")) -> float | None:
    """All memory the kernel sees: less than what is soldered on, since firmware and GPU take theirs first."""
    return _field(root, "MemTotal")


def usable_mib(root: Path = Path("/")) -> float | None:
    """All memory that this process may ever have: less than `total_mib` where its cgroup has a lower limit."""
    total, room = total_mib(root), cgroup.room(root)
    return total if total is None or room is None else min(total, room.limit_mib)


def available_mib(root: Path = Path("/")) -> float | None:
    """What this process can have without swapping, and without passing its cgroup's limit; None: the system does not
    say."""
    free, room = _field(root, "MemAvailable"), cgroup.room(root)
    return free if free is None or room is None else min(free, room.free_mib)


def resident_mib() -> float | None:
    """What this process holds in memory now; None: the system does not say. Cheap enough to ask at every step."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def peak_mib() -> float | None:
    """The most that this process ever held (VmHWM); None: the system does not say."""
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return None
    match = re.search(r"^VmHWM:\s+(\d+) kB", text, re.MULTILINE)
    return int(match[1]) / 1024 if match else None


def _field(root: Path, name: str) -> float | None:
    try:
        text = (root / "proc" / "meminfo").read_text(errors="replace")
    except OSError:
        return None
    match = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    return int(match[1]) / 1024 if match else None
