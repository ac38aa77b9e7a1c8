"""A real cloud over TLS on loopback, and boards in folders of their own, driven by command lines."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.cloud import toys

ROOT = Path(__file__).parents[2]


@dataclass
class Box:
    """One board: a state folder and a way to run `edgectl` in a process of its own."""

    folder: Path
    mode: str = "directory"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("EDGECTL_")}
        own = {"EDGECTL_STATE": str(self.state), "EDGECTL_THREADS": "1", "EDGECTL_MODE": self.mode}
        return {**kept, **own, "XDG_CONFIG_HOME": str(self.folder / "config")}

    def copied(self, folder: Path) -> Box:
        """The same board as it is now, somewhere else."""
        return replace(self, folder=Path(shutil.copytree(self.folder, folder, symlinks=True)))

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "edgectl", *map(str, arguments)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=self.environment, cwd=ROOT)

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments)
        stdout, stderr = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def report(self, *arguments: str | Path) -> dict[str, Any]:
        """What a command that must succeed says with --json."""
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        value: dict[str, Any] = json.loads(done.stdout)
        return value

    def fails(self, code: int, *arguments: str | Path) -> str:
        """Run a command that must end with that exit code; what it said."""
        done = self.run(*arguments)
        assert done.returncode == code, f"{done.returncode}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stderr


@dataclass
class Place:
    """A served cloud."""

    data: Path
    server: toys.Server
    folder: Path

    def cloud(self, *arguments: str | Path) -> dict[str, Any]:
        return toys.report(*map(str, arguments), data=self.data)

    def token(self, name: str) -> Path:
        done = toys.run("boards", "token", "--task", "toy", data=self.data)
        assert done.returncode == 0, done.stderr
        path = self.folder / f"{name}.enrol.json"
        path.write_text(done.stdout)
        return path

    def board(self, name: str, *, mode: str = "directory", enrolled: bool = True) -> Box:
        box = Box(self.folder / name, mode)
        box.folder.mkdir()
        if enrolled:
            assert box.report("enroll", self.token(name), "--name", name)["changed"]
        return box


@pytest.fixture(scope="session")
def _toy_cloud(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.published(tmp_path_factory.mktemp("toy") / "cloud")


@pytest.fixture
def place(_toy_cloud: Path, tmp_path: Path) -> Iterator[Place]:
    """The toy cloud, served by a process of its own."""
    data = Path(shutil.copytree(_toy_cloud, tmp_path / "cloud"))
    with toys.serving(data) as server:
        yield Place(data, server, tmp_path)


@pytest.fixture(scope="session")
def _served_once(_toy_cloud: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("shared")
    data = Path(shutil.copytree(_toy_cloud, folder / "cloud"))
    with toys.serving(data) as server:
        yield Place(data, server, folder)


@pytest.fixture
def shared(_served_once: Place, tmp_path: Path) -> Place:
    """The toy cloud, served once for all tests that leave it as it is, but for boards of their own."""
    return replace(_served_once, folder=tmp_path)


@pytest.fixture(scope="session")
def _synced_once(_served_once: Place) -> Box:
    return synced(_served_once)


@pytest.fixture(scope="session")
def _trained_once(_synced_once: Box, tmp_path_factory: pytest.TempPathFactory) -> Box:
    made = _synced_once.copied(tmp_path_factory.mktemp("trained") / "one")
    train(made)
    return made


def synced(place: Place) -> Box:
    """A board with twelve samples of its file one.npz."""
    made = place.board("one")
    made.report("sync")
    made.report("data", "add", own_file(made.folder / "one.npz"), "--part", "local")
    return made


def train(board: Box) -> None:
    """A first model of the board's own, after it fetched what its samples want."""
    board.report("sync")
    assert board.report("train", "--recipe", "local", "--no-veto")["version"] == 1


def own_file(path: Path, *, shift: float = 1.0, per_class: int = 4, seed: int = 50, test_per_class: int = 20) -> Path:
    """A board's data file: `local` and `test` rows of one person with that shift."""
    import numpy as np

    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(3), per_class + test_per_class)
    x = rng.normal(toys.CENTRES[y] + shift * np.array([1.0, 0.5]), 0.4).astype(np.float32)
    part = np.tile(["local"] * per_class + ["test"] * test_per_class, 3)
    np.savez(path, x=x, y=np.asarray(toys.TASK.labels)[y], part=part)
    return path
