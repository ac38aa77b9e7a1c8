"""Training for turn after turn in one process that stays: to start Python and torch takes longer than many a turn.

`round join` starts `edgectl round train --turns` with the first turn. A turn is a line on that process's standard
input, the task's id, and a line on its standard output, how it went. It uses no network, ends with its input, and may
be killed at any point: what it made is on disk.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any, TextIO, cast

from edgectl.agent.children import LOOK_S, STOP_S, Done, last_words, started
from edgewire.errors import EdgeError

COMMAND = ("round", "train", "--turns")


class Trainer:
    """state: the state folder it works on; stopped: whether to stop; it is called again and again meanwhile."""

    def __init__(
        self, state: Path, stopped: Callable[[], bool], *, command: Iterable[str] = COMMAND, stop_s: float = STOP_S
    ) -> None:
        self._state, self._stopped, self._command, self._stop_s = state, stopped, tuple(command), stop_s
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] = io.BytesIO()  # what it says on stderr

    def turn(self, task: str, limit_s: float, unwanted: Callable[[], bool]) -> Done:
        """Train for the round that waits: see joining.Train. Asked to stop, or past its limit, the process is ended as
        other commands are. Raises OSError if it cannot be started."""
        process = self._asked(task)
        try:
            return self._heard(process, time.monotonic() + limit_s, unwanted)
        except BaseException:  # a second signal does not wait
            process.kill()
            raise

    @property
    def running(self) -> bool:
        """Whether the process is there, with all that training loads."""
        return self._process is not None and self._process.poll() is None

    def close(self) -> None:
        """Let the process and its memory go; the next turn starts another."""
        if self._process is not None:
            self._ended(self._process)

    def _asked(self, task: str) -> subprocess.Popen[bytes]:
        """A process that has been asked for a turn: the one that is there, unless it was killed meanwhile."""
        if self._process is not None and self._process.poll() is not None:
            self._ended(self._process)
        if self._process is None:
            self._said = tempfile.TemporaryFile(dir=self._state)  # noqa: SIM115  (a pipe that nobody reads would fill)
            self._process = started(self._state, self._command, stdin=subprocess.PIPE, stderr=self._said)
        process = self._process
        self._said.seek(0)  # where the process writes, too: of the turns before, nothing is kept
        self._said.truncate()
        asks = cast("IO[bytes]", process.stdin)
        with contextlib.suppress(BrokenPipeError):  # then its output ends, too
            asks.write(f"{task}\n".encode())
            asks.flush()
        return process

    def _heard(self, process: subprocess.Popen[bytes], until: float, unwanted: Callable[[], bool]) -> Done:
        """Its answer. until: on the monotonic clock."""
        answers = cast("IO[bytes]", process.stdout)
        while not select.select([answers], [], [], LOOK_S)[0]:
            if self._stopped() or unwanted() or time.monotonic() >= until:
                process.terminate()
                return self._ended(process)
        line = answers.readline()
        return Done(**json.loads(line)) if line else self._ended(process)

    def _ended(self, process: subprocess.Popen[bytes]) -> Done:
        """Wait for its end, which the end of its input brings; how it ended."""
        self._process = None
        try:
            process.communicate(timeout=self._stop_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        self._said.seek(0)
        return Done(process.returncode, said=last_words(self._said.read().decode(errors="replace")))


def serve(turns: Iterable[str], answers: TextIO, train: Callable[[str], dict[str, Any]]) -> None:
    """The process's side: a turn for each line, until there are no more. What `train` refuses is an answer; anything
    else that it raises ends the process."""
    for line in turns:
        answers.write(json.dumps(vars(_turn(line.strip(), train))) + "\n")
        answers.flush()


def only_answers() -> TextIO:
    """What was standard output; from here on libraries that print, in C too, print to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def _turn(task: str, train: Callable[[str], dict[str, Any]]) -> Done:
    try:
        return Done(0, train(task))
    except EdgeError as error:
        return Done(error.exit_code, said=str(error), retry_s=error.retry_after_s)
