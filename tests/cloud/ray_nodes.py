"""A real Ray cluster of two nodes on this machine, one processor each, started by the tests and stopped by its pids."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

from tests.cloud import toys
from tests.cloud.backends import CREDENTIALS

OBJECT_STORE_BYTES = 100 << 20
START_S = 300.0  # a crowded machine takes a minute

TOKEN = secrets.token_hex(32)  # one for all clusters of these tests: a process that joined one keeps its token


class RayNodes:
    """A head and a worker. environment: what whoever joins them must have set."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # its sockets' paths must be short
        token = self.folder / "token"
        token.touch(mode=0o600)
        token.write_text(TOKEN)
        self.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        port = self.address.rpartition(":")[2]
        head = ("--head", "--port", port, "--include-dashboard=false", "--temp-dir", str(self.folder / "t"))
        self.processes = [self._start(*head)]
        self._wait_for_head()
        self.processes.append(self._start("--address", self.address))

    @property
    def logs(self) -> bytes:
        """All that Ray has written down so far."""
        files = (path for path in (self.folder / "t").glob("session_2*/logs/**/*") if path.is_file())
        return b"".join(path.read_bytes() for path in files)

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        line = [sys.executable, "-m", "ray.scripts.scripts", "start", *arguments, "--block", "--disable-usage-stats"]
        line += ["--num-cpus=1", "--node-ip-address=127.0.0.1", f"--object-store-memory={OBJECT_STORE_BYTES}"]
        # Ray makes its workers give way to everybody else, which on a crowded machine is for ever
        ray = {"RAY_worker_niceness": "0", "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0", "RAY_USAGE_STATS_ENABLED": "0"}
        environment = {**toys.environment(), **self.environment, **CREDENTIALS, **ray}
        log = (self.folder / "log").open("ab")
        return subprocess.Popen(line, env=environment, stdout=log, stderr=log, start_new_session=True)

    def _wait_for_head(self) -> None:
        deadline = time.monotonic() + START_S
        host, _, port = self.address.partition(":")
        while True:
            try:
                return socket.create_connection((host, int(port)), timeout=1).close()
            except OSError:
                assert time.monotonic() < deadline, (self.folder / "log").read_text()
                time.sleep(0.1)

    def wait(self) -> None:
        """Until both nodes are there; asked from within."""
        import ray

        deadline = time.monotonic() + START_S
        while sum(node["Alive"] for node in ray.nodes()) < 2:
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.2)

    def __enter__(self) -> RayNodes:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for process in reversed(self.processes):
            process.terminate()  # `ray start --block` takes its node along
            process.wait(60)
        shutil.rmtree(self.folder, ignore_errors=True)


def installed() -> bool:
    """Whether the extra `scale` is there; Ray itself is imported by whoever has its environment."""
    import importlib.util

    return importlib.util.find_spec("ray") is not None


def environment_of(nodes: RayNodes) -> dict[str, str]:
    """For a command that joins the cluster."""
    return {**os.environ, **nodes.environment}
