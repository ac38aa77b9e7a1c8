"""A container's memory limit counts, wherever in the hierarchy it is set."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgectl.board import memory

MIB = 1 << 20
V2, V1 = ("memory.max", "memory.current", "inactive_file"), (
    "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file",
)  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 1024000 kB\nMemAvailable: 819200 kB\n")
    return tmp_path


def group(root: Path, folder: str, names: tuple[str, str, str], *, limit: str, used_mib: int = 0, cache_mib: int = 0):  # type: ignore[no-untyped-def]
    place = root / "sys" / "fs" / "cgroup" / folder
    place.mkdir(parents=True, exist_ok=True)
    (place / names[0]).write_text(limit + "\n")
    (place / names[1]).write_text(f"{used_mib * MIB}\n")
    (place / "memory.stat").write_text(f"anon 1\n{names[2]} {cache_mib * MIB}\n")


def test_without_a_group_the_machine_decides(root: Path) -> None:
    assert (memory.usable_mib(root), memory.available_mib(root)) == (1000.0, 800.0)


def test_version_2_counts_what_is_used_but_not_the_page_cache(root: Path) -> None:
    (root / "proc/self/cgroup").write_text("0::/box\n")
    group(root, "box", V2, limit=str(300 * MIB), used_mib=250, cache_mib=50)
    assert (memory.usable_mib(root), memory.available_mib(root)) == (300.0, 100.0)


def test_the_limit_of_a_group_above_counts_too(root: Path) -> None:
    (root / "proc/self/cgroup").write_text("0::/system.slice/edgectl.service\n")
    group(root, "system.slice/edgectl.service", V2, limit="max", used_mib=10)
    group(root, "system.slice", V2, limit=str(200 * MIB), used_mib=150)
    assert (memory.usable_mib(root), memory.available_mib(root)) == (200.0, 50.0)


def test_version_1_inside_a_container_shows_its_limit_at_the_top(root: Path) -> None:
    (root / "proc/self/cgroup").write_text("5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n")
    group(root, "memory", V1, limit=str(400 * MIB), used_mib=100, cache_mib=20)
    assert (memory.usable_mib(root), memory.available_mib(root)) == (400.0, 320.0)


def test_version_1_without_a_limit_is_no_limit(root: Path) -> None:
    (root / "proc/self/cgroup").write_text("4:memory:/\n")
    group(root, "memory", V1, limit="9223372036854771712", used_mib=100)
    assert memory.usable_mib(root) == 1000.0


def test_a_limit_above_the_machines_memory_changes_nothing(root: Path) -> None:
    (root / "proc/self/cgroup").write_text("0::/\n")
    group(root, "", V2, limit=str(9000 * MIB), used_mib=10)
    assert (memory.usable_mib(root), memory.available_mib(root)) == (1000.0, 800.0)


@pytest.mark.parametrize("garbage", ["\x00\xff", "0::/../../etc\n", "no colons at all\n", "0::/box\n" * 3])
def test_garbage_is_no_limit(root: Path, garbage: str) -> None:
    (root / "proc/self/cgroup").write_text(garbage)
    group(root, "box", V2, limit="much", used_mib=1)
    assert memory.available_mib(root) == 800.0


def test_a_group_that_is_over_its_limit_has_nothing_left(root: Path) -> None:
    (root / "proc/self/cgroup").write_text("0::/box\n")
    group(root, "box", V2, limit=str(100 * MIB), used_mib=130)
    assert memory.available_mib(root) == 0.0
