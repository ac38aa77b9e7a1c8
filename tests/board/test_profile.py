"""Which kind of board this is, from a recorded file system."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgectl.board import memory, profile
from edgewire.errors import NotFound


def recorded(tmp_path: Path, model: bytes | None, *, memory_kb: int = 8_000_000) -> Path:
    (tmp_path / "proc" / "device-tree").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text(f"MemTotal: {memory_kb} kB\nMemFree: 9 kB\nMemAvailable: 2048 kB\n")
    if model is not None:
        (tmp_path / "proc" / "device-tree" / "model").write_bytes(model)
    return tmp_path


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (b"Raspberry Pi 5 Model B Rev 1.0\0", "pi-5"),
        (b"NVIDIA Jetson Orin Nano Developer Kit\0", "jetson-orin-nano"),
        (b"Something else\0", "generic"),
        (None, "generic"),
    ],
)
def test_the_model_name_decides(tmp_path: Path, model: bytes | None, expected: str) -> None:
    assert profile.detect(recorded(tmp_path, model)) == expected


def test_of_two_that_fit_the_longer_name_wins_then_the_nearer_memory(tmp_path: Path) -> None:
    root = recorded(tmp_path, b"Acme Board Pro 2\0", memory_kb=3_900_000)
    kinds = [
        {"id": "acme", "match": {"device_tree_model_prefix": "Acme"}},
        {"id": "pro-8", "match": {"device_tree_model_prefix": "Acme Board Pro", "memory_mb": [8192]}},
        {"id": "pro-4", "match": {"device_tree_model_prefix": "Acme Board Pro", "memory_mb": [4096, 2048]}},
        {"id": "generic"},
    ]
    assert profile.detect(root, among=lambda: kinds) == "pro-4"


def test_a_profile_that_does_not_exist_names_those_that_do() -> None:
    with pytest.raises(NotFound, match="generic"):
        profile.load("toaster")


def test_every_profile_loads_and_knows_its_name() -> None:
    assert all(profile.load(name)["id"] == name for name in profile.ids())


def test_memory_that_the_system_does_not_tell_is_unknown_not_zero(tmp_path: Path) -> None:
    assert memory.available_mib(tmp_path) is None
    assert memory.available_mib(recorded(tmp_path, None)) == 2.0
