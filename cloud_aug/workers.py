"""Several processes on one port: each takes connections from the same socket, and shares nothing else with the others.

A worker is `cloud-aug serve --worker`, so that it starts with a clean memory (faiss and torch do not survive a fork)
and may be killed alone: it is started again. When the parent dies, by whatever, the workers end by themselves.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from cloud_aug.metrics import FOLDER_VARIABLE
from edgewire.errors import Busy
from edgewire.files import exclusive

TICK_S = 0.1
START_AGAIN_S = 1.0  # at least, between two starts of a worker that ends by itself
READY = b"r"
_METRICS, _LOCK = "cloud-aug-metrics-", "lock"
_YOUNG_S = 60.0  # a folder that its service may not have locked yet

_log = logging.getLogger(__name__)


class Workers:
    """Keeps a number of worker processes alive until a signal comes. command: starts one, but for its descriptors."""

    def __init__(self, command: Sequence[str], listener: socket.socket, *, count: int, shutdown_s: float) -> None:
        self._command, self._listener, self._shutdown_s = list(command), listener, shutdown_s
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * count
        self._started = [float("-inf")] * count
        self._ready, self._tell_ready = os.pipe()
        self._alive, self._keep_alive = os.pipe()  # nobody writes: its end tells workers that the parent is gone
        self._stop = threading.Event()

    def run(self, address: str) -> None:
        """Serve until SIGTERM or SIGINT; then let every worker finish its requests."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        threading.Thread(target=self._announce, args=(address,), daemon=True).start()
        with _metrics_folder() as folder:
            while not self._stop.is_set():
                self._start_missing(folder)
                self._stop.wait(TICK_S)
            self._end()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stop.set()

    def _announce(self, address: str) -> None:
        """Say the address once as many workers as there are were ready."""
        waiting = len(self._processes)
        while waiting > 0:
            waiting -= len(os.read(self._ready, waiting))
        _log.info("serving %s with %d workers", address, len(self._processes))

    def _start_missing(self, folder: str) -> None:
        for i, process in enumerate(self._processes):
            if process is not None and process.poll() is None:
                continue
            if process is not None:
                _log.warning("worker %d ended with %d, starting another", process.pid, process.returncode)
                _forget_metrics(process.pid, folder)
                self._processes[i] = None
            if time.monotonic() - self._started[i] >= START_AGAIN_S:
                self._processes[i], self._started[i] = self._start(folder), time.monotonic()

    def _start(self, folder: str) -> subprocess.Popen[bytes]:
        given = (self._listener.fileno(), self._tell_ready, self._alive)
        command = [*self._command, "--worker", ",".join(map(str, given))]
        return subprocess.Popen(command, pass_fds=given, env={**os.environ, FOLDER_VARIABLE: folder})

    def _end(self) -> None:
        running = [process for process in self._processes if process is not None]
        for process in running:
            process.terminate()
        self._listener.close()  # with the workers' copies closed, who comes now is refused and not left waiting
        deadline = time.monotonic() + self._shutdown_s + 5.0
        for process in running:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Worker:
    """A worker's side: its socket, whom to tell that it is ready, and how it learns that the parent is gone."""

    def __init__(self, given: str) -> None:
        listener, self._tell_ready, self._alive = (int(part) for part in given.split(","))
        self.listener = socket.socket(fileno=listener)

    def ready(self) -> None:
        """Tell the parent that this worker answers, and watch it from now on."""
        with contextlib.suppress(OSError):
            os.write(self._tell_ready, READY)
        threading.Thread(target=self._end_with_parent, daemon=True).start()

    def _end_with_parent(self) -> None:
        os.read(self._alive, 1)
        os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def _metrics_folder() -> Iterator[str]:
    """Where workers keep their counters: in memory where there is such a place, gone when the service ends, or, if it
    was killed, when the next one starts."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()  # noqa: S108  (see mkdtemp)
    forget_abandoned(Path(memory))
    folder = tempfile.mkdtemp(prefix=_METRICS, dir=memory)
    try:
        with exclusive(Path(folder, _LOCK), doing="serving"):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def forget_abandoned(memory: Path) -> None:
    """Remove counters of services of this user that are no more."""
    for folder in memory.glob(f"{_METRICS}*"):
        with contextlib.suppress(OSError, Busy):
            found = folder.lstat()
            ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
            if ours and time.time() - found.st_mtime > _YOUNG_S:
                with exclusive(folder / _LOCK, doing="serving"):
                    shutil.rmtree(folder)


def _forget_metrics(pid: int, folder: str) -> None:
    """A dead worker is inside no request."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]


def command_line() -> list[str]:
    """How to start this program once more."""
    return [sys.executable, "-m", "cloud_aug"]
