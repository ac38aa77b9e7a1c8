"""SIGTERM and SIGINT as a wish that is looked at where it is safe to stop, not as an end in the middle of something.

The second signal does not wait: it raises KeyboardInterrupt, as Ctrl-C always did.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """asked: whether a signal came (or `ask` was called)."""

    def __init__(self) -> None:
        self.asked = False
        # a pipe wakes `select` even if the signal comes just before it; an Event may deadlock in a handler
        self._heard, self._speak = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def ask(self) -> None:
        """Ask to stop. Safe in a signal handler. Raises KeyboardInterrupt if it was asked before."""
        if self.asked:
            raise KeyboardInterrupt("asked twice to stop")
        self.asked = True
        os.write(self._speak, b"x")

    def wait(self, seconds: float) -> bool:
        """Sleep that long, less if a stop is asked; whether it is."""
        if not self.asked:
            select.select([self._heard], [], [], max(0.0, seconds))
        return self.asked

    def check(self) -> None:
        """Raises KeyboardInterrupt if a stop is asked."""
        if self.asked:
            raise KeyboardInterrupt("asked to stop")

    def sleep(self, seconds: float) -> None:
        """Sleep that long. Raises KeyboardInterrupt as soon as a stop is asked."""
        self.wait(seconds)
        self.check()

    @contextlib.contextmanager
    def listening(self) -> Iterator[Stop]:
        """Inside the block both signals ask. Only in the main thread."""

        def ask(number: int, frame: FrameType | None) -> None:
            self.ask()

        before = {number: signal.signal(number, ask) for number in SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(self._heard)
            os.close(self._speak)
