"""Run a small command that prints a little: with a time limit that holds even where the command cannot be killed."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence

from edgectl.telemetry.files import Unreadable

TIMEOUT_S = 2.0
REST_S = 30.0
HUNG_REST_S = 60.0
_LIMIT_BYTES = 64 << 10

Run = Callable[[Sequence[str]], str]
"""Arguments -> what the command printed on stdout and stderr. Raises Unreadable, or Hung, a kind of it."""


class Hung(Unreadable):
    """The command did not end in time: not worth asking again soon."""


class Asking:
    """Asks commands again and again, but leaves alone for a while those that failed: each try costs a process, and a
    hanging one its whole time limit."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._resting: dict[tuple[str, ...], tuple[float, Unreadable]] = {}

    def ask(self, *arguments: str, now: float, rest_s: float = REST_S) -> str:
        """What the command says. rest_s: how long not to ask it again after a failure. Raises Unreadable."""
        for key in (arguments, arguments[:1]):
            until, failure = self._resting.get(key, (now, None))
            if failure is not None and now < until:
                raise failure
        try:
            return self._run(arguments)
        except Hung as hung:  # then it hangs whatever it is asked
            self._resting[arguments[:1]] = (now + HUNG_REST_S, hung)
            raise
        except Unreadable as failure:
            self._resting[arguments] = (now + rest_s, failure)
            raise


def run(arguments: Sequence[str], *, timeout_s: float = TIMEOUT_S) -> str:
    """Run without a shell; less than 64 KiB of output are taken. Raises Unreadable, Hung."""
    import subprocess

    name = arguments[0]
    try:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError:
        raise Unreadable(f"{name} is not installed") from None
    except PermissionError:
        raise Unreadable(f"{name} may not be run by this user") from None
    except OSError as error:
        raise Unreadable(f"{name} cannot be run: {os.strerror(error.errno or 0)}") from None
    deadline = time.monotonic() + timeout_s
    with contextlib.ExitStack() as stack:
        assert process.stdout is not None  # noqa: S101  (asked for above)
        stack.callback(process.stdout.close)
        stack.callback(_end, process)
        text = _drain(process.stdout.fileno(), deadline, name)
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise Hung(f"{name} did not end in time") from None
    if process.returncode != 0:
        raise Unreadable(f"{name} failed: {text.strip()[:120] or f'exit code {process.returncode}'}")
    return text


def _drain(handle: int, deadline: float, name: str) -> str:
    import select

    pieces, size = [], 0
    while True:
        if size >= _LIMIT_BYTES:
            raise Unreadable(f"{name} prints too much")
        ready, _, _ = select.select([handle], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise Hung(f"{name} did not answer in time")
        piece = os.read(handle, _LIMIT_BYTES - size)
        if not piece:
            break
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces).decode(errors="replace")


def _end(process: object) -> None:
    """Kill it, and wait only a moment: what waits for hardware inside the kernel does not die."""
    import subprocess

    assert isinstance(process, subprocess.Popen)  # noqa: S101
    if process.poll() is None:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
