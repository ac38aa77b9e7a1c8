"""Calling the console scripts as a user would, and showing what happens."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

_START = time.monotonic()
SCRIPTS = Path(sys.executable).parent


def tell(text: str) -> None:
    """One line with the seconds since the start."""
    print(f"[{time.monotonic() - _START:5.1f} s] {text}", flush=True)


def call(script: str, *arguments: str | Path, env: dict[str, str] | None = None) -> dict[str, Any]:
    """Run `edgectl` or `cloud-aug` with --json; what it reported. Raises SystemExit with its message if it failed."""
    report: dict[str, Any] = json.loads(output_of(script, *arguments, "--json", env=env))
    return report


def output_of(script: str, *arguments: str | Path, env: dict[str, str] | None = None) -> str:
    """Run a console script; what it wrote to stdout."""
    command = [str(SCRIPTS / script), *map(str, arguments)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})}
    )
    said: list[str] = []
    listener = threading.Thread(target=_listen, args=(process.stderr, said, script == "cloud-aug"))
    listener.start()
    stdout = process.stdout.read() if process.stdout else ""
    process.wait()
    listener.join()
    if process.returncode != 0:
        shown = " ".join([script, *map(str, arguments)])
        raise SystemExit(f"\n`{shown}` ended with exit code {process.returncode}:\n{''.join(said).strip()}")
    return stdout


def _listen(stream: IO[str], said: list[str], aloud: bool) -> None:
    """Collect what a command says, and show it as progress if wanted."""
    for line in stream:
        said.append(line)
        if aloud and line.strip():
            tell(f"    {line.strip()}")


def free_port() -> int:
    """A TCP port on loopback that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(data: Path, port: int, log: Path) -> Iterator[None]:
    """The real service over TLS while the block runs; stopped by its own pid."""
    command = [str(SCRIPTS / "cloud-aug"), "serve", "--bind", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={**os.environ, "CLOUD_AUG_DATA": str(data)}
        )
        try:
            _wait_until_ready(process, f"https://127.0.0.1:{port}", log)
            yield
        finally:
            process.terminate()
            process.wait(timeout=30)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """The service says its address once it answers."""
    for _ in range(600):
        if process.poll() is not None:
            raise SystemExit(f"the cloud service ended at once:\n{log.read_text()}")
        if url in log.read_text():
            return
        time.sleep(0.05)
    raise SystemExit(f"the cloud service did not become ready:\n{log.read_text()}")
