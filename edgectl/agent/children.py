"""Run an `edgectl` command in a process of its own, and ask it to stop when the agent is asked to."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

STOP_S = 60.0  # for a training to write its checkpoint; the service manager waits longer
LOOK_S = 0.2  # from one question whether to stop to the next

Run = Callable[[Sequence[str], float | None], "Done"]
"""(arguments, time limit in s or None) -> how it ended."""


@dataclass(frozen=True)
class Done:
    """code: the exit code, minus the signal's number if one ended it; report: what it printed with --json; said: its
    last words on stderr, on one line; retry_s: when it may work again, as far as it said."""

    code: int
    report: dict[str, Any] = field(default_factory=dict)
    said: str = ""
    retry_s: float | None = None

    @property
    def illegal(self) -> bool:
        """Whether a library holds instructions that this processor does not have."""
        return self.code == -signal.SIGILL


class Children:
    """state: the state folder they work on; asked: whether to stop; it is called again and again meanwhile."""

    def __init__(self, state: Path, asked: Callable[[], bool], *, stop_s: float = STOP_S) -> None:
        self._state, self._asked, self._stop_s = state, asked, stop_s

    def run(self, arguments: Sequence[str], limit_s: float | None) -> Done:
        """Run it to its end. Asked to stop, or past its limit, it gets SIGTERM, and a minute later SIGKILL: every
        command survives that. Raises OSError if it cannot be started."""
        process = started(self._state, arguments, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            out, err = self._wait(process, None if limit_s is None else time.monotonic() + limit_s)
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()
        return Done(process.returncode, _report(out), last_words(err.decode(errors="replace")))

    def _wait(self, process: subprocess.Popen[bytes], deadline: float | None) -> tuple[bytes, bytes]:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.communicate(timeout=LOOK_S)
            if self._asked() or (deadline is not None and time.monotonic() >= deadline):
                process.terminate()
                try:
                    return process.communicate(timeout=self._stop_s)
                except subprocess.TimeoutExpired:
                    process.kill()
                    return process.communicate()


def started(state: Path, arguments: Sequence[str], *, stdin: int, stderr: int | IO[bytes]) -> subprocess.Popen[bytes]:
    """The command in a process of its own, which sees the packages that this one sees; its stdout is a pipe. Raises
    OSError."""
    isolated = ["-I"] if sys.flags.isolated else []
    # a group of its own: Ctrl-C in a terminal is for the agent, which passes it on once
    return subprocess.Popen(
        [sys.executable, *isolated, "-m", "edgectl", "--state", str(state), *arguments],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env={name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"},
        start_new_session=True,
        cwd=Path("/"),  # nothing of the folder where somebody stands may be imported
    )


def _report(out: bytes) -> dict[str, Any]:
    try:
        value = json.loads(out)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def last_words(text: str) -> str:
    """The error that a command ended with, with its advice; else its last line."""
    found = text.rfind("edgectl: ")
    words = text[found + len("edgectl: ") :] if found >= 0 else (text.strip().splitlines() or [""])[-1]
    return " ".join(words.split())[:1000]
