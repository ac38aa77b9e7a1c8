"""Which kind of board this is. What is known of each kind is data, in `firmware_profiles`; a site's own profiles, in a
folder `profiles` beside its settings, come before those."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import firmware_profiles
from edgectl.board import memory
from edgewire.errors import CorruptFile, NotFound, UsageError
from firmware_profiles import schema

GENERIC = "generic"
LIMIT_BYTES = 64 << 10
BELOW_THROTTLE_C = 3  # that much colder than where a board slows down by itself, training is kept
_SLASH = Path("/")
_DEVICE_TREE_BYTES = 4096  # what the kernel has there is shorter; a garbled file may have no end
_DEVICE_TREES = ("proc/device-tree", "run/device-tree")  # Docker hides the first; the second is mounted there


def model(root: Path = _SLASH) -> str:
    """What the firmware calls this board; '' where it says nothing (a PC), or nothing that can be read."""
    return device_tree(root, "model").split("\0")[0].strip()


def part_numbers(root: Path = _SLASH) -> frozenset[str]:
    """The numbers of module and carrier that an NVIDIA device tree names, like 'p3767-0005'."""
    names = device_tree(root, "compatible").replace("\0", "+").replace(",", "+").split("+")
    return frozenset(name[:10] for name in names if name.startswith("p"))


def device_tree(root: Path, name: str) -> str:
    """What the device tree says of that name; '' where there is none."""
    for tree in _DEVICE_TREES:
        with contextlib.suppress(OSError), (root / tree / name).open("rb") as file:
            return file.read(_DEVICE_TREE_BYTES).decode(errors="replace")
    return ""


def ids(site: Sequence[Path] = ()) -> list[str]:
    """Every profile there is. site: folders with a site's own, the first counts."""
    own = {path.stem for folder in site for path in _own(folder)}
    return sorted({*firmware_profiles.ids(), *own})


def load(profile_id: str, site: Sequence[Path] = ()) -> dict[str, Any]:
    """A profile's fields. Raises NotFound, naming those there are; UsageError or CorruptFile if a site's own is
    invalid."""
    if (own := site_file(profile_id, site)) is not None:
        return read(own)
    if profile_id not in firmware_profiles.ids():
        raise NotFound(f"there is no profile '{profile_id}'", hint=f"there are: {', '.join(ids(site))}")
    return firmware_profiles.facts(profile_id)


def site_file(profile_id: str, site: Sequence[Path]) -> Path | None:
    """The file of a site's own profile; None: it has none of that name."""
    return next((path for folder in site for path in _own(folder) if path.stem == profile_id and path.is_file()), None)


def _own(folder: Path) -> list[Path]:
    """Without hidden files: a Mac's copies (`._pi-4b.toml`) and an editor's locks are no profiles."""
    return [path for path in folder.glob("*.toml") if not path.name.startswith(".")]


def read(path: Path) -> dict[str, Any]:
    """A profile from a file, checked. Raises CorruptFile if it is not TOML, UsageError that names every wrong field."""
    profile = parse(path)
    if found := schema.problems(profile, name=path.stem):
        raise UsageError(f"{path}: {'; '.join(found)}", hint=f"edgectl profile check {path}")
    return profile


def parse(path: Path) -> dict[str, Any]:
    """What a file says, unchecked. Raises NotFound, CorruptFile (too large, or not TOML)."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    if not path.is_file():
        raise NotFound(f"there is no file {path}")
    with path.open("rb") as file:
        data = file.read(LIMIT_BYTES + 1)
    if len(data) > LIMIT_BYTES:
        raise CorruptFile(f"{path} is larger than {LIMIT_BYTES >> 10} KiB: that is no profile")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptFile(f"{path} is not TOML: {error}", hint="correct it or move it away") from None


def detect(
    root: Path = _SLASH, *, site: Sequence[Path] = (), among: Callable[[], Sequence[dict[str, Any]]] | None = None
) -> str:
    """The profile whose model name this board's begins with, or that has its part number; the longest such name, then
    the part number, then the nearest amount of memory decides. 'generic' where none fits.

    root: of the file system to look at. Raises UsageError or CorruptFile if a site's own profile is invalid.
    """
    name, parts = model(root), part_numbers(root)
    if not name and not parts:
        return GENERIC
    memory_mib = memory.total_mib(root)
    profiles = among() if among else [load(profile_id, site) for profile_id in ids(site)]
    fitting = [(_fit(profile, name, parts, memory_mib), str(profile["id"])) for profile in profiles]
    best = max(fitting, default=((0, False, 0.0), GENERIC))
    return best[1] if any(best[0][:2]) else GENERIC


def _fit(
    profile: dict[str, Any], name: str, parts: frozenset[str], memory_mib: float | None
) -> tuple[int, bool, float]:
    """(length of the matching name, part number matches, minus the distance in memory): larger is better."""
    match = profile.get("match") or {}
    prefixes = match.get("device_tree_model_prefix", ())
    length = max((len(prefix) for prefix in prefixes if name.startswith(prefix)), default=0)
    part = not parts.isdisjoint(match.get("part_number", ()))
    sizes = match.get("memory_mb", ())
    if memory_mib is None or not sizes:
        return length, part, 0.0
    return length, part, -min(abs(size - memory_mib) for size in sizes)


def total_rails(site: Sequence[Path] = ()) -> frozenset[str]:
    """The rails of power monitors that carry all that a board takes, by what any profile says; a site's own that is
    invalid says nothing here."""
    found = set()
    for profile_id in ids(site):
        with contextlib.suppress(UsageError, CorruptFile, OSError):
            found.add((load(profile_id, site).get("power") or {}).get("total_rail"))
    return frozenset(name for name in found if name)


def recommended(profile: dict[str, Any]) -> dict[str, Any]:
    """The settings (by their keys in `edgectl.config`) that a profile gives a value to."""
    train = profile.get("train") or {}
    providers, throttle_c = profile.get("providers"), profile.get("throttle_c")
    values = {
        "threads": profile.get("threads"),
        "providers": ",".join(providers) if providers else None,
        "train_scope": train.get("allow"),
        "train_batch_rows": train.get("batch_size"),
        "train_whole_parameters": train.get("student_parameters"),
        "train_memory_mib": train.get("max_rss_mb"),
        "train_temp_c": None if throttle_c is None else int(throttle_c) - BELOW_THROTTLE_C,
    }
    return {name: value for name, value in values.items() if value is not None}
