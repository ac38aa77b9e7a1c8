"""Flower's half of `transport_vs_flower`: SuperLink and SuperNodes in processes of their own, TLS between them.

As Flower's documentation shows it: its default isolation, in which each SuperNode has a SuperExec that starts the
ClientApp for each message, and the SuperLink one that starts the ServerApp. Boards reach the SuperLink through the
relay; the ServerApp, which stands beside it, does not.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.relay import Relay, relaying
from benchmarks.running import below
from benchmarks.transported import SETTINGS, Played, Shares, bytes_of, score, until, watched
from cloud_aug import certificates

START_S, ROUND_LIMIT_S = 120.0, 300.0
QUIET = dict.fromkeys(("FLWR_DISABLE_UPDATE_CHECK", "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"), "1")
LAYERS = {"first": "hidden", "norm": "norm", "second": "embedding", "head": "head"}  # in Flower's half, and ours
OURS = {f"{theirs}.{kind}": f"{ours}.{kind}" for theirs, ours in LAYERS.items() for kind in ("weight", "bias")}
APP = """\
[project]
name = "beside"
version = "1.0.0"
dependencies = []
[tool.flwr.app]
publisher = "nobody"
[tool.flwr.app.components]
serverapp = "flower_server:server"
clientapp = "flower_side:client"
"""


@dataclass(frozen=True)
class Flower:
    """folder: for all that it writes; python: of its environment."""

    folder: Path
    python: Path

    def play(self, shares: Shares, *, rounds: int) -> Played:
        """Raises RuntimeError or TimeoutError with what its processes said."""
        self._write(shares, rounds)
        with relaying() as relay, self._link() as (link, port), self._nodes(relay, port, len(shares.parts)):
            with watched(lambda: [link.pid, *_server_apps(link.pid)]) as seen:
                self._run("flwr", "run", str(self.folder / "app"), "beside")
                last = self.folder / "ended.json"
                until(last.exists, limit_s=START_S + rounds * ROUND_LIMIT_S, what="Flower")
            ended = json.loads(last.read_text())
            return Played(ended, *bytes_of(relay, ended), seen.worked_s(ended), seen.mib, self._score(shares))

    def _score(self, shares: Shares) -> float:
        with np.load(self.folder / "result.npz") as data:
            return score(shares.weights | {OURS[name]: data[name] for name in data.files}, shares)

    # What it reads

    def _write(self, shares: Shares, rounds: int) -> None:
        app = self.folder / "app"
        app.mkdir(parents=True)
        (app / "pyproject.toml").write_text(APP)
        for name in ("flower_side.py", "flower_server.py"):
            shutil.copy(Path(__file__).with_name(name), app)
        for number, rows in enumerate(shares.parts):
            np.savez(self.folder / f"board-{number}.npz", x=shares.x[rows], y=shares.y[rows])
        np.savez(self.folder / "weights.npz", **{theirs: shares.weights[ours] for theirs, ours in OURS.items()})
        settings = {**vars(SETTINGS), "rounds": rounds, "boards": len(shares.parts), "norm": True}
        (self.folder / "settings.json").write_text(json.dumps(settings))
        self._write_certificates()

    def _write_certificates(self) -> None:
        now, key, server = time.time(), certificates.new_key(), certificates.new_key()
        authority = certificates.new_authority(key, name="beside", now=now)
        hosts = ("localhost", "127.0.0.1")
        (self.folder / "ca.pem").write_text(authority)
        (self.folder / "key.pem").write_bytes(certificates.key_pem(server))
        own = certificates.server_certificate(server, hosts, authority, key, now=now)
        (self.folder / "server.pem").write_text(own)

    # Its processes

    @contextlib.contextmanager
    def _link(self) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
        port, at = _free_port(), self.folder
        tls = ["--ssl-certfile", at / "server.pem", "--ssl-keyfile", at / "key.pem", "--ssl-ca-certfile", at / "ca.pem"]
        with self._process("link", "flower-superlink", "--port", port, *tls) as link:
            until(lambda: _listens(port), limit_s=START_S, what="the start of the SuperLink")
            home = self.folder / "home"
            home.mkdir(exist_ok=True)
            where = f'[superlink.beside]\naddress = "127.0.0.1:{port}"\nroot-certificates = "{at / "ca.pem"}"\n'
            (home / "config.toml").write_text(where)
            yield link, port

    @contextlib.contextmanager
    def _nodes(self, relay: Relay, port: int, count: int) -> Iterator[None]:
        relay.target = port
        to = ["--superlink", f"127.0.0.1:{relay.port}", "--root-certificates", self.folder / "ca.pem"]
        with contextlib.ExitStack() as stack:
            for number in range(count):
                own = ["--port", _free_port(), "--node-config", f"partition-id={number} num-partitions={count}"]
                stack.enter_context(self._process(f"node-{number}", "flower-supernode", *to, *own))
            yield

    @contextlib.contextmanager
    def _process(self, name: str, *command: object) -> Iterator[subprocess.Popen[bytes]]:
        """Ended by its pid; what it started sees that it is gone, and ends, too."""
        with (self.folder / f"{name}.log").open("wb") as said:
            words = [str(self.python.parent / str(command[0])), *map(str, command[1:])]
            process = subprocess.Popen(words, env=self._environment, stdout=said, stderr=said, cwd=self.folder)
            try:
                yield process
            finally:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait(20)

    def _run(self, *command: str) -> None:
        words = [str(self.python.parent / command[0]), *command[1:]]
        done = subprocess.run(
            words, env=self._environment, capture_output=True, text=True, cwd=self.folder, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} ended with {done.returncode}:\n{done.stdout}{done.stderr}")

    @property
    def _environment(self) -> dict[str, str]:
        path = f"{self.python.parent}:{os.environ['PATH']}"
        own = {"FLOWER_FOLDER": str(self.folder), "FLWR_HOME": str(self.folder / "home"), "PATH": path}
        own |= {"FLWR_TELEMETRY_ENABLED": "0"}
        return {**os.environ, **QUIET, **own, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def _server_apps(link: int) -> list[int]:
    """Processes of the ServerApp: below the SuperLink, started by its SuperExec."""
    found = []
    for child in below(link):
        with contextlib.suppress(OSError):
            if "flwr-serverapp" in Path(f"/proc/{child}/cmdline").read_text():
                found.append(child)
    return found


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as made:
        return int(made.getsockname()[1])


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
