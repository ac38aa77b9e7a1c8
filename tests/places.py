"""Where tests keep their files: in memory, where there is room.

What is under test flushes every file and every transaction, and a disk takes ten milliseconds for each. It is
processes that tests kill, never the machine: what those leave behind is the same in both places.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

MEMORY = Path("/dev/shm")
ROOM_BYTES = 6 << 30  # all tests together keep less than half of that


def in_memory() -> Path | None:
    """A folder in memory with room for all tests, from which programs may be started; None: there is none."""
    if not os.access(MEMORY, os.W_OK) or os.statvfs(MEMORY).f_flag & os.ST_NOEXEC:  # as in many containers
        return None
    free = min(shutil.disk_usage(MEMORY).free, _available_bytes())
    return MEMORY if free >= ROOM_BYTES else None


def _available_bytes() -> int:
    """What programs may still take of this machine's memory."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    return next(1024 * int(words[1]) for words in lines if words[0] == "MemAvailable:")


def choose() -> None:
    """Let temporary files of this process and of those that it starts go there, unless TMPDIR says where."""
    if "TMPDIR" not in os.environ and (folder := in_memory()) is not None:
        tempfile.tempdir = os.environ["TMPDIR"] = str(folder)


def for_sockets() -> Path:
    """A folder with a short path: that of a socket has 108 bytes at most."""
    return in_memory() or Path("/tmp")
