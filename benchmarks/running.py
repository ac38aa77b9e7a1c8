"""What the kernel tells of running processes (proc(5))."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def memory_mib(pid: int, field: str = "VmRSS") -> float:
    """VmRSS: all that is resident; RssAnon: its own, without mapped files. 0 for a process that has ended."""
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), 0) / 1024
    return 0.0


def worked_s(pid: int) -> float:
    """Processor time of a process and of those of its children that have ended."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def below(pid: int) -> list[int]:
    """The processes that this one started, that those started, and so on."""
    found = []
    with suppress(OSError):
        lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
        for child in (int(child) for text in lists for child in text.split()):
            found += [child, *below(child)]
    return found
