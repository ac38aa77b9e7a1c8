"""A board in a folder of its own, enrolled at a cloud in memory."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgectl import enrolment
from edgectl.home import Home
from edgewire.decoding import encode
from edgewire.messages import EnrolRequest
from edgewire.signing import SigningKey
from edgewire.tasks import InputSchema, ModelSpec, Task
from tests.fakes.memory_cloud import MemoryCloud, MemoryServer

if TYPE_CHECKING:
    from tests.board.synced import Synced

ROOT = Path(__file__).parents[2]
GESTURES = Task("gestures", "Gestures", InputSchema((2, 3)), ("wave", "point", "fist"), ModelSpec("cnn1d"))


@dataclass
class Board:
    """home: the state folder; edgectl(): run a command line as a user would, in a process of its own."""

    folder: Path
    server: MemoryServer = field(default_factory=MemoryServer)

    @property
    def home(self) -> Home:
        return Home(self.folder / "state")

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("EDGECTL_")}
        return {**kept, "EDGECTL_STATE": str(self.home.root), "XDG_CONFIG_HOME": str(self.folder / "config")}

    def enroll(self, *tasks: str) -> enrolment.Enrolment:
        def introduce(url: str, bundle: Path, request: EnrolRequest, key: SigningKey):  # type: ignore[no-untyped-def]
            return MemoryCloud(self.server).enroll(request, key)

        file = encode(self.server.enrolment_file(*tasks))
        now = self.server.clock()
        return enrolment.enroll(
            self.home, file, name="kitchen", profile="generic", now=now, introduce=introduce
        ).enrolment

    def receive(self, task: Task) -> None:
        """What a sync would have brought, as far as these tests need it."""
        self.server.publish(task, weights=b"weights", onnx=b"onnx", directory=b"directory")
        self.home.task(task.id).mkdir(parents=True, exist_ok=True)
        self.home.manifest(task.id).write_bytes(self.server.sealed_manifest(task.id))

    def edgectl(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "edgectl", *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, env=self.environment, cwd=ROOT, check=False)


@pytest.fixture
def newcomer(tmp_path: Path) -> Board:
    """A board that belongs nowhere yet."""
    return Board(tmp_path)


@pytest.fixture
def board(newcomer: Board) -> Board:
    """A board that is enrolled and knows one task."""
    newcomer.enroll(GESTURES.id)
    newcomer.receive(GESTURES)
    return newcomer


@pytest.fixture(scope="session")
def onnx() -> bytes:
    """The base model of `tests.learn.world` as ONNX: exporting takes a second, so once."""
    from edgelearn.export import export_onnx
    from tests.learn import world

    return export_onnx(world.TASK, world.base())


@pytest.fixture
def synced(newcomer: Board, onnx: bytes) -> Synced:
    """A board that is enrolled at a cloud with a base, a directory and two packs; nothing is synced yet."""
    from tests.board.synced import BOTH, Synced

    newcomer.enroll(BOTH.id)
    made = Synced(newcomer, onnx)
    made.publish()
    return made
