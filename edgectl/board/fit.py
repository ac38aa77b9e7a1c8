"""Does a profile describe this machine? Field by field, so that a wrong limit is found before it matters."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from edgectl.board import memory, profile
from firmware_profiles import schema

_SEEN_SHARE = 0.7  # of the memory that is soldered on: firmware and GPU take the rest before Linux counts


@dataclass(frozen=True)
class Finding:
    """One field against this machine. outcome: 'unknown' where the machine does not say."""

    field: str
    outcome: Literal["fits", "differs", "unknown"]
    expected: str
    found: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def installed(library: str) -> str | None:
    """The version of a library in this Python; None: it is not installed."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def compare(
    known: dict[str, Any],
    root: Path = Path("/"),
    *,
    arch: str = platform.machine(),
    python: str = ".".join(platform.python_version_tuple()[:2]),
    version: Callable[[str], str | None] = installed,
) -> list[Finding]:
    """Every field of a profile that a machine can be asked about. root: of its file system."""
    return [*_board(known, root), *_system(known, root, arch, python), *_libraries(known, version)]


def _board(known: dict[str, Any], root: Path) -> Iterator[Finding]:
    match = known.get("match") or {}
    name, parts = profile.model(root), profile.part_numbers(root)
    if prefixes := match.get("device_tree_model_prefix"):
        fits = any(name.startswith(prefix) for prefix in prefixes)
        by_part = not parts.isdisjoint(match.get("part_number", ()))
        yield _finding("match", fits or by_part, " or ".join(prefixes), name)
    if sizes := known.get("ram_mb"):
        seen = memory.total_mib(root)
        fits = seen is not None and any(_SEEN_SHARE * size <= seen <= size for size in sizes)
        yield _finding("ram_mb", fits, " or ".join(map(str, sizes)), "" if seen is None else f"{seen:.0f}")
    if "cores" in known:
        there, cores = _cores(root), schema.numbers(known["cores"])
        yield _finding("cores", there in cores, " or ".join(map(str, cores)), "" if there is None else str(there))


def _system(known: dict[str, Any], root: Path, arch: str, python: str) -> Iterator[Finding]:
    if "arch" in known:
        yield _finding("arch", arch == known["arch"], known["arch"], arch)
    if versions := known.get("python"):
        yield _finding("python", python in versions, " or ".join(versions), python)
    if modes := known.get("power_modes"):
        there = _power_modes(root)
        unlisted = [mode for mode in there if mode not in modes]
        yield _finding("power_modes", not unlisted, " ".join(modes), " ".join(there))


def _libraries(known: dict[str, Any], version: Callable[[str], str | None]) -> Iterator[Finding]:
    for library in ("torch", "onnxruntime"):
        if (pinned := (known.get("pins") or {}).get(library)) is not None:
            there = version(library)
            fits = there is not None and there.split("+")[0] == pinned.split("+")[0]
            yield _finding(f"pins.{library}", fits, pinned, there or "")


def _finding(field: str, fits: bool, expected: str, found: str) -> Finding:
    return Finding(field, "unknown" if not found else "fits" if fits else "differs", expected, found)


def _cores(root: Path) -> int | None:
    """How many cores there are, also those that a power mode has switched off."""
    text = _read(root / "sys" / "devices" / "system" / "cpu" / "present")
    if not re.fullmatch(r"\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*", text):
        return os.cpu_count() if root == Path("/") else None
    ranges = [part.partition("-") for part in text.split(",")]
    return sum(int(last or first) - int(first) + 1 for first, _, last in ranges)


def _power_modes(root: Path) -> list[str]:
    text = _read(root / "etc" / "nvpmodel.conf")
    return re.findall(r"^<\s*POWER_MODEL\s+ID=\d+\s+NAME=(\w{1,40})", text, re.MULTILINE)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(1 << 20).decode(errors="replace").strip()
    except OSError:
        return ""
