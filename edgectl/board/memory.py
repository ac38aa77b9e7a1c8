"""Memory of this machine, from /proc/meminfo."""

from __future__ import annotations

import re
from pathlib import Path


def total_mib(root: Path = Path("/")) -> float | None:
    """All memory the kernel sees: less than what is soldered on, since firmware and GPU take theirs first."""
    return _field(root, "MemTotal")


def available_mib(root: Path = Path("/")) -> float | None:
    """What programs can have without swapping; None: the system does not say."""
    return _field(root, "MemAvailable")


def _field(root: Path, name: str) -> float | None:
    try:
        text = (root / "proc" / "meminfo").read_text()
    except OSError:
        return None
    match = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    return int(match[1]) / 1024 if match else None
