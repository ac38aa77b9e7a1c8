"""Boards from recordings: a copy of their file system that a test may damage, and a runner that answers from files."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgectl.telemetry.files import Unreadable
from edgectl.telemetry.jtop import Jtop
from edgectl.telemetry.reading import Reading, Sensors

RECORDINGS = Path(__file__).parent / "recordings"
BOARDS = tuple(sorted(path.name for path in RECORDINGS.iterdir() if path.is_dir()))


def nothing_to_spawn() -> None:
    raise FileNotFoundError(2, "No such file or directory")


@dataclass
class Recorded:
    """root: a copy; commands: command line -> output, or the failure; asked: what was run. now: both clocks."""

    root: Path
    commands: dict[str, str | Unreadable]
    now: float = 100.0
    wall: float = 1_767_225_600.0
    asked: list[str] = field(default_factory=list)

    def run(self, arguments: Sequence[str]) -> str:
        line = " ".join(arguments)
        self.asked.append(line)
        said = self.commands.get(line, Unreadable(f"{arguments[0]} is not installed"))
        if isinstance(said, Unreadable):
            raise said
        if said.startswith("error="):
            raise Unreadable(f"{arguments[0]} failed: {said.strip()}")
        return said

    def sensors(self, jtop: Jtop | None = None) -> Sensors:
        jtop = jtop or Jtop(nothing_to_spawn)  # type: ignore[arg-type]
        return Sensors(self.root, self.run, jtop=jtop, monotonic=lambda: self.now, wall=lambda: self.wall)

    def read(self) -> Reading:
        return self.sensors().read()

    def write(self, name: str, content: str | bytes) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def recorded(name: str, tmp_path: Path) -> Recorded:
    root = tmp_path / name
    shutil.copytree(RECORDINGS / name / "root", root)
    said = {path.stem: path.read_text() for path in (RECORDINGS / name / "commands").glob("*.txt")}
    return Recorded(root, dict(said))
