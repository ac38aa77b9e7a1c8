"""What a training has done so far, kept on disk: cut off by a budget, by heat, by `kill -9` or by a power cut, the next
one goes on from there, and ends with the same bits.

    checkpoints/<task>/<name>.fit       sha256 of the rest (32 bytes), then arrays as `edgewire.tensors` writes them

A file is one fit: finished, or as far as it came. Its name follows from all that decides its result (samples, start,
settings, seed, versions), so a checkpoint of anything else is never found. Each file is whole or absent; what is lost
is done again, and what cannot be written costs time later and no training now.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgectl.home import Home
from edgewire import tensors
from edgewire.errors import EdgeError, from_os_error
from edgewire.files import digest, write_atomic

if TYPE_CHECKING:
    import numpy as np

    from edgelearn.fit import Step

EVERY_S = 30.0  # what a power cut may cost; each write wears the SD card
WORTH_S = 0.2  # a fit that is done again sooner is not written down
LIMIT_BYTES = 64 << 20  # of all of a task's; the oldest go first
_FILE_LIMIT_BYTES = 1 << 30
_DIGEST_BYTES = 32


class Checkpoints:
    """The fits of one task's training, as an `edgelearn.kept.Keeper`. The caller holds the lock of training.

    computed_by: what bits depend on besides the fit itself. tell(kind, line): told what was found and what failed.
    """

    def __init__(
        self,
        home: Home,
        task_id: str,
        *,
        computed_by: str,
        tell: Callable[[str, str], None] = lambda kind, line: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._home, self._task_id = home, task_id
        self._computed_by, self._tell, self._clock = computed_by, tell, clock
        self._begun = self._written = clock()
        self._writes = True
        self.recalled = 0
        for leftover in self.folder.glob(".*.tmp"):  # of a process that was killed while it wrote
            with contextlib.suppress(OSError):  # a read-only disk will be told of when it matters
                leftover.unlink()

    @property
    def folder(self) -> Path:
        return self._home.checkpoints(self._task_id)

    def recall(self, name: str) -> Mapping[str, np.ndarray] | None:
        """What was kept of a fit; None where nothing was, or it is damaged."""
        self._begun = self._written = self._clock()
        path = self._path(name)
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._tell("checkpoint", f"checkpoint: {from_os_error(error, 'reading it')}; that part is done again")
            return None
        try:
            if bytes.fromhex(digest(raw[_DIGEST_BYTES:])) != raw[:_DIGEST_BYTES]:
                raise EdgeError("its digest is another")
            arrays, _ = tensors.unpack(raw[_DIGEST_BYTES:], what=path.name, limit_bytes=_FILE_LIMIT_BYTES)
        except EdgeError as error:
            self._tell("checkpoint", f"checkpoint: one is damaged ({error.message}); that part is done again")
            return None
        self._told_of(int(arrays["step"][0]))
        return arrays

    def passed(self, name: str, step: Step) -> None:
        """After a step: write the fit down, if that was long ago."""
        if not 0 <= self._clock() - self._written < EVERY_S:
            self._write(name, step.state())

    def cut(self, name: str, step: Step) -> None:
        """The training stops here: write the fit down."""
        self._write(name, step.state())

    def finished(self, name: str, state: Mapping[str, np.ndarray]) -> None:
        """A fit is done: write its result down, if it took long enough."""
        if not 0 <= self._clock() - self._begun < WORTH_S:
            self._write(name, state)

    def clear(self) -> None:
        """The training ended: nothing is left to go on with."""
        forget(self._home, self._task_id)

    def _told_of(self, step: int) -> None:
        self.recalled += 1
        if self.recalled == 1:
            self._tell(
                "resume", f"checkpoint: an earlier training was cut off; this one goes on (step {step} of a fit)"
            )

    def _path(self, name: str) -> Path:
        return self.folder / f"{digest(f'{name} {self._computed_by}'.encode())}.fit"

    def _write(self, name: str, state: Mapping[str, np.ndarray]) -> None:
        self._written = self._clock()
        if not self._writes:
            return
        body = tensors.pack(state)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._make_room(len(body))
            write_atomic(self._path(name), bytes.fromhex(digest(body)) + body, mode=0o600)
        except OSError as error:
            self._writes = False  # once is enough to be told
            reason = from_os_error(error, "writing a checkpoint")
            self._tell("checkpoint", f"checkpoint: {reason.message}; training goes on without")

    def _make_room(self, size: int) -> None:
        """Delete the oldest until there is room for one more of that size."""
        files = sorted(((path.stat(), path) for path in self.folder.glob("*.fit")), key=lambda one: one[0].st_mtime_ns)
        total = size + sum(stat.st_size for stat, _ in files)
        for stat, path in files:
            if total <= LIMIT_BYTES:
                return
            path.unlink()
            total -= stat.st_size


def waiting(home: Home, task_id: str) -> bool:
    """Whether there is anything to go on with."""
    return any(home.checkpoints(task_id).glob("*.fit"))


def forget(home: Home, task_id: str) -> None:
    """Remove all: they hold what was learnt from samples, which must not outlive the samples."""
    shutil.rmtree(home.checkpoints(task_id), ignore_errors=True)
