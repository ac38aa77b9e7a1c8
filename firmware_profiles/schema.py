"""What a profile may say. Strict: a field that nothing reads, or a value that no board has, is refused, because a limit
that is silently ignored cooks a board."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Rule = Callable[[Any], bool]

VERSION = 1
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
PROVIDERS = ("CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider")


def _text(pattern: str = r"[^\x00-\x1f]{1,200}") -> Rule:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _whole(low: int, high: int) -> Rule:
    return lambda value: type(value) is int and low <= value <= high


def _number(low: float, high: float) -> Rule:
    return lambda value: type(value) in (int, float) and low <= value <= high


def _one_of(*choices: str) -> Rule:
    return lambda value: value in choices


def _some(rule: Rule) -> Rule:
    """A list, not empty, without repetition, of values that the rule allows."""
    return lambda value: (
        isinstance(value, list)
        and 0 < len(value) <= 20
        and all(rule(one) for one in value)
        and len({str(one) for one in value}) == len(value)
    )


def _one_or_some(rule: Rule) -> Rule:
    return lambda value: rule(value) or _some(rule)(value)


_VERSION_OF_LIBRARY = r"\d+(\.\d+){1,3}(\+[a-z0-9.]+)?"

# path -> (what is expected, in words; the rule)
FIELDS: dict[str, tuple[str, Rule]] = {
    "id": ("a name of a-z, 0-9 and -", _text(NAME.pattern)),
    "schema_version": (str(VERSION), lambda value: type(value) is int and value == VERSION),
    "match.device_tree_model_prefix": ("a list of texts", _some(_text())),
    "match.part_number": ("a list like ['p3767-0005']", _some(_text(r"p\d{4}-\d{4}"))),
    "match.memory_mb": ("a list of whole numbers from 64 to 1048576", _some(_whole(64, 1 << 20))),
    "arch": ("'aarch64' or 'x86_64'", _one_of("aarch64", "x86_64")),
    "isa": ("like 'armv8.2-a'", _text(r"armv[89](\.\d)?-a|x86-64(-v\d)?")),
    "cores": ("a whole number from 1 to 1024, or a list of them", _one_or_some(_whole(1, 1024))),
    "threads": ("a whole number from 1 to 1024", _whole(1, 1024)),
    "ram_mb": ("a list of whole numbers from 64 to 1048576", _some(_whole(64, 1 << 20))),
    "gpu.kind": ("'cuda' or 'none'", _one_of("cuda", "none")),
    "gpu.sm": ("like '8.7'", _text(r"\d{1,2}\.\d")),
    "power_modes": ("a list of names as in /etc/nvpmodel.conf", _some(_text(r"[A-Za-z0-9_]{1,40}"))),
    "default_mode": ("one of power_modes", _text(r"[A-Za-z0-9_]{1,40}")),
    "throttle_c": ("a number from 40 to 120", _number(40, 120)),
    "soft_limit_c": ("a number from 40 to 120", _number(40, 120)),
    "shutdown_c": ("a number from 40 to 150", _number(40, 150)),
    "power.source": ("'none', 'pmic', 'ina3221' or 'ina238'", _one_of("none", "pmic", "ina3221", "ina238")),
    "power.total_rail": ("the name of a rail", _text(r"[A-Za-z0-9_]{1,40}")),
    "power.quality": ("'measured', 'modelled' or 'none'", _one_of("measured", "modelled", "none")),
    "idle_w": ("a number from 0.1 to 1000", _number(0.1, 1000)),
    "max_w": ("a number from 0.1 to 1000", _number(0.1, 1000)),
    "python": ("a list like ['3.11']", _some(_text(r"3\.\d{1,2}"))),
    "container": ("the name of an image", _text(r"[a-z0-9][a-z0-9./_-]*(:[A-Za-z0-9._-]+)?")),
    "providers": (f"a list of {', '.join(PROVIDERS)}", _some(_one_of(*PROVIDERS))),
    "pins.torch": ("a version like '2.9.1'", _text(_VERSION_OF_LIBRARY)),
    "pins.torch_from": ("'image'", _one_of("image")),
    "pins.onnxruntime": ("a version like '1.22.0'", _text(_VERSION_OF_LIBRARY)),
    "pins.index_url": ("an https address", _text(r"https://[^\s\x00-\x1f]{1,200}")),
    "train.allow": ("'all', 'head' or 'none'", _one_of("all", "head", "none")),
    "train.batch_size": ("a whole number from 8 to 4096", _whole(8, 4096)),
    "train.max_rss_mb": ("a whole number from 64 to 1048576", _whole(64, 1 << 20)),
    "train.student_parameters": ("a whole number from 1000 to 1000000000", _whole(1000, 10**9)),
}
_TABLES = {path.split(".")[0] for path in FIELDS if "." in path}
_REQUIRED = ("id", "schema_version")
_MARKS = ("v", "s", "m", "p")


def problems(profile: Mapping[str, Any], *, name: str) -> list[str]:
    """What is wrong with a profile that is called `name`, a line each; none if it is valid."""
    found = [f"{path} is missing" for path in _REQUIRED if path not in profile]
    for path, value in leaves(profile):
        if path not in FIELDS:
            found.append(f"{path} is not a field of a profile")
        elif not FIELDS[path][1](value):
            found.append(f"{path} is {value!r:.80}, expected {FIELDS[path][0]}")
    found += [f"{table} is not a table" for table in _TABLES & profile.keys() if not _is_table(profile[table])]
    return found or _contradictions(profile, name)


def leaves(profile: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every value with its dotted path, but for provenance."""
    for key, value in profile.items():
        if key == "provenance":
            continue
        if _is_table(value):
            yield from ((f"{key}.{inner}", one) for inner, one in value.items())
        elif key not in _TABLES:
            yield key, value


def numbers(value: int | list[int]) -> list[int]:
    """Of a field that is a number, or a list where the board is sold in several kinds."""
    return value if isinstance(value, list) else [value]


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping)


def _contradictions(profile: Mapping[str, Any], name: str) -> list[str]:
    """Values that are possible each, but not together."""
    value = dict(leaves(profile))
    found = []
    if value["id"] != name:
        found.append(f"id is '{value['id']}', but the file is called '{name}'")
    if "default_mode" in value and value["default_mode"] not in value.get("power_modes", ()):
        found.append(f"default_mode is '{value['default_mode']}', which is not among power_modes")
    rising = [path for path in ("soft_limit_c", "throttle_c", "shutdown_c") if path in value]
    found += [f"{a} is not below {b}" for a, b in itertools.pairwise(rising) if value[a] >= value[b]]
    if value.get("idle_w", 0) > value.get("max_w", float("inf")):
        found.append("idle_w is above max_w")
    if "cores" in value and value.get("threads", 0) > max(numbers(value["cores"])):
        found.append("threads is above cores")
    if "pins.torch" in value and "pins.torch_from" in value:
        found.append("pins.torch names a version, and pins.torch_from says that the image brings its own")
    if value.get("power.source") == "none" and value.get("power.quality", "none") != "none":
        found.append("power.quality is given, but power.source is 'none'")
    return found


def unfounded(profile: Mapping[str, Any]) -> list[str]:
    """Values without a source, sources without a value, and marks that mean nothing: for the profiles of this project.
    A site answers for its own."""
    provenance = profile.get("provenance") or {}
    paths = [path for path, _ in leaves(profile) if path not in _REQUIRED]
    covered = {path for path in paths if path in provenance or path.split(".")[0] in provenance}
    tables = {path.split(".")[0] for path in paths}
    found = [f"{path} has no source" for path in paths if path not in covered]
    found += [f"provenance of {path}, which has no value" for path in provenance if path not in {*paths, *tables}]
    for path, entry in provenance.items():
        if (
            not _is_table(entry)
            or set(entry) != {"mark", "source"}
            or entry["mark"] not in _MARKS
            or not entry["source"]
        ):
            found.append(f"provenance of {path}: expected a mark ({', '.join(_MARKS)}) and a source")
    return found
