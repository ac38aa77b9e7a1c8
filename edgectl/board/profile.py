"""Which kind of board this is. What is known of each kind is data, in `firmware_profiles`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import firmware_profiles
from edgectl.board import memory
from edgewire.errors import NotFound

GENERIC = "generic"
_SLASH = Path("/")


def model(root: Path = _SLASH) -> str:
    """What the firmware calls this board; '' where it says nothing (a PC)."""
    try:
        raw = (root / "proc" / "device-tree" / "model").read_bytes()
    except OSError:
        return ""
    return raw.split(b"\0")[0].decode(errors="replace").strip()


def ids() -> Sequence[str]:
    """Every profile there is."""
    return firmware_profiles.ids()


def load(profile_id: str) -> dict[str, Any]:
    """A profile's fields. Raises NotFound, naming those there are."""
    if profile_id not in firmware_profiles.ids():
        raise NotFound(f"there is no profile '{profile_id}'", hint=f"there are: {', '.join(ids())}")
    return firmware_profiles.load(profile_id)


def detect(root: Path = _SLASH, *, among: Callable[[], Sequence[dict[str, Any]]] | None = None) -> str:
    """The profile whose model name this board's begins with; the longest such name, then the nearest amount of memory,
    decides. 'generic' where none fits. root: of the file system to look at."""
    name, memory_mib = model(root), memory.total_mib(root)
    profiles = among() if among else [load(profile_id) for profile_id in ids()]
    fitting = [(_fit(profile, name, memory_mib), str(profile["id"])) for profile in profiles]
    best = max(fitting, default=((0, 0.0), GENERIC))
    return best[1] if best[0][0] > 0 else GENERIC


def _fit(profile: dict[str, Any], name: str, memory_mib: float | None) -> tuple[int, float]:
    """(length of the matching prefix, minus the distance in memory): larger is better, 0 characters is no fit."""
    match = profile.get("match") or {}
    prefixes = _listed(match.get("device_tree_model_prefix"))
    length = max((len(prefix) for prefix in prefixes if prefix and name.startswith(prefix)), default=0)
    sizes = [float(size) for size in _listed(match.get("memory_mb"))]
    if memory_mib is None or not sizes:
        return length, 0.0
    return length, -min(abs(size - memory_mib) for size in sizes)


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def recommended(profile_id: str) -> dict[str, Any]:
    """The settings (by their keys in `edgectl.config`) that a profile gives a value to."""
    profile = load(profile_id)
    most_mib = (profile.get("train") or {}).get("max_rss_mb")
    return {
        name: value
        for name, value in (("threads", profile.get("threads")), ("train_memory_mib", most_mib))
        if value is not None
    }


def pinned(library: str, profile_id: str | None = None) -> str | None:
    """The version of a library that the profile pins; None where it pins none."""
    pins = load(profile_id or detect()).get("pins") or {}
    version = pins.get(library)
    return None if version is None else str(version)
