"""Memory of this machine and of this process, as the kernel counts it."""

from __future__ import annotations

import os
import re
from pathlib import Path


def total_mib(root: Path = Path("/")) -> float | None:
    """All memory the kernel sees: less than what is soldered on, since firmware and GPU take theirs first."""
    return _field(root, "MemTotal")


def available_mib(root: Path = Path("/")) -> float | None:
    """What programs can have without swapping; None: the system does not say."""
    return _field(root, "MemAvailable")


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
        text = (root / "proc" / "meminfo").read_bytes().decode(errors="replace")
    except OSError:
        return None
    match = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    return int(match[1]) / 1024 if match else None
