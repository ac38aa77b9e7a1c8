"""Calling the console scripts as a user would, and showing what happens."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_START = time.monotonic()
SCRIPTS = Path(sys.executable).parent


def tell(text: str) -> None:
    """One line with the seconds since the start."""
    print(f"[{time.monotonic() - _START:5.1f} s] {text}", flush=True)


def call(script: str, *arguments: str | Path, env: dict[str, str] | None = None) -> dict[str, Any]:
    """Run `edgectl` or `cloud-aug` with --json; what it reported. Raises SystemExit with its message if it failed."""
    command = [str(SCRIPTS / script), *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(env or {})}, check=False)
    if done.returncode != 0:
        shown = " ".join([script, *map(str, arguments)])
        raise SystemExit(f"\n`{shown}` ended with exit code {done.returncode}:\n{done.stderr.strip()}")
    report: dict[str, Any] = json.loads(done.stdout)
    report["_stderr"] = done.stderr
    return report


def free_port() -> int:
    """A TCP port on loopback that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(data: Path, port: int, log: Path) -> Iterator[None]:
    """The real service over TLS while the block runs; stopped by its own pid."""
    command = [str(SCRIPTS / "cloud-aug"), "--data", str(data), "serve", "--bind", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            _wait_until_ready(process, port, data, log)
            yield
        finally:
            process.terminate()
            process.wait(timeout=30)


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, data: Path, log: Path) -> None:
    context = ssl.create_default_context(cafile=str(data / "ca.pem"))
    for _ in range(300):
        if process.poll() is not None:
            raise SystemExit(f"the cloud service ended at once:\n{log.read_text()}")
        try:
            with urllib.request.urlopen(f"https://127.0.0.1:{port}/healthz", context=context, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"the cloud service did not become ready:\n{log.read_text()}")
