"""Memory limits that a container or a systemd unit sets: less than the machine has, and what the kernel kills for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_MIB = 1 << 20
_NO_LIMIT_BYTES = 1 << 60  # version 1 writes the largest multiple of a page where there is none


@dataclass(frozen=True)
class Room:
    """limit_mib: the lowest limit; free_mib: what is left below the tightest one, page cache counted as free."""

    limit_mib: float
    free_mib: float


def room(root: Path) -> Room | None:
    """Of this process; None: no limit, or none that can be read. root: of the file system to look at."""
    found = [_level(folder, names) for folder, names in _levels(root)]
    limited = [one for one in found if one is not None]
    if not limited:
        return None
    return Room(min(one.limit_mib for one in limited), min(one.free_mib for one in limited))


_VERSION_2 = ("memory.max", "memory.current", "inactive_file")
_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _levels(root: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """The group of this process and each above it: any of them may be the tight one."""
    mounts = root / "sys" / "fs" / "cgroup"
    for line in _lines(root / "proc" / "self" / "cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if number == "0" and not controllers:
            base, names = mounts, _VERSION_2
        elif "memory" in controllers.split(","):
            base, names = mounts / "memory", _VERSION_1
        else:
            continue
        # inside a container the path is the host's and not to be seen here: then only the mount's own top is left
        path = PurePosixPath(group.lstrip("/"))
        for step in (path, *path.parents):
            if ".." not in step.parts:
                yield base / step, names


def _level(folder: Path, names: tuple[str, str, str]) -> Room | None:
    limit_name, used_name, cache_name = names
    limit, used = _bytes(folder / limit_name), _bytes(folder / used_name)
    if limit is None or limit >= _NO_LIMIT_BYTES:
        return None
    match = re.search(rf"^{cache_name} (\d+)$", "\n".join(_lines(folder / "memory.stat")), re.MULTILINE)
    cache = int(match[1]) if match else 0
    free = limit if used is None else limit - max(0, used - cache)
    return Room(limit / _MIB, max(0, free) / _MIB)


def _bytes(path: Path) -> int | None:
    """None: 'max', which is no limit, or nothing readable."""
    text = "".join(_lines(path)).strip()
    return int(text) if text.isdigit() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
