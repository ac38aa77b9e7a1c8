"""One cloud and one board on loopback with the digits, for benchmarks that need a real pair."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo import data
from demo.shell import call, free_port, output_of, server

TASK = "digits"


@dataclass(frozen=True)
class World:
    """state: the board's folder; samples: its data file; port: where the cloud really listens."""

    folder: Path
    state: Path
    samples: Path
    port: int

    def edgectl(self, *arguments: str | Path) -> dict[str, Any]:
        return call("edgectl", *arguments, env=self.env)

    @property
    def env(self) -> dict[str, str]:
        return {"EDGECTL_STATE": str(self.state), "EDGECTL_THREADS": "1"}


@contextmanager
def world(*, url_port: int | None = None) -> Iterator[World]:
    """A serving cloud and an enrolled board that has neither synced nor samples. url_port: the port that boards are
    told."""
    with tempfile.TemporaryDirectory(prefix="edgectl-bench-") as name:
        folder = Path(name)
        cloud, port = folder / "cloud", free_port()
        pool, boards = data.load("digits", boards=6, seed=0).write(folder)

        def run(*arguments: str | Path) -> None:
            call("cloud-aug", *arguments, env={"CLOUD_AUG_DATA": str(cloud)})

        run("init", "--host", "127.0.0.1", "--url", f"https://127.0.0.1:{url_port or port}")
        template = output_of("cloud-aug", "task", "template", "--from", pool, "--id", TASK)
        (folder / "task.json").write_text(template)
        run("task", "publish", folder / "task.json")
        run("pool", "ingest", pool, "--task", TASK, "--consent", "packs", "--consent-until", "2099-01-01")
        run("base", "train", "--task", TASK, "--epochs", "3", "--no-rehearse")
        run("index", "build", "--task", TASK)
        token = output_of("cloud-aug", "boards", "token", "--task", TASK, env={"CLOUD_AUG_DATA": str(cloud)})
        (folder / "enrol.json").write_text(token)
        made = World(folder, folder / "board", boards["board-1"], port)
        with server(cloud, port, folder / "server.log"):
            yield made
