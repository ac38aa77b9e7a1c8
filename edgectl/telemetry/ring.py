"""Readings on disk in a bounded ring: the newest few MiB, in a few files of lines, the oldest file dropped as a whole.

Each reading is one write, so kill -9 loses nothing that was written; torn lines, which a power cut leaves, are skipped.
Lines are not flushed one by one, which would wear an SD card: a power cut may lose the last half minute. A disk
that is full or read-only is a reason to be told, never an error: watching a board must not stop because of it.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SEGMENTS = 8
DEFAULT_LIMIT_BYTES = 8 << 20
_LINE_LIMIT_BYTES = 64 << 10


@dataclass(frozen=True)
class Place:
    """Where a reading stands in the ring: for whoever wants only those after it."""

    segment: int
    offset: int

    def __lt__(self, other: Place) -> bool:
        return (self.segment, self.offset) < (other.segment, other.offset)


class Ring:
    """folder: its own. One writer at a time (the caller holds a lock); readers need none."""

    def __init__(self, folder: Path, *, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self.folder = folder
        self._segment_bytes = max(1, limit_bytes // SEGMENTS)
        self._torn: bool | None = None  # whether the newest file ends in half a line; None: not looked yet

    def append(self, reading: dict[str, Any]) -> str | None:
        """Keep a reading; why it could not be kept, or None. Where the disk is full, the oldest ones make room."""
        line = (json.dumps(reading, separators=(",", ":"), allow_nan=False) + "\n").encode()
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                self._write(line)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not self._drop_oldest():
                    raise
                self._write(line)
        except OSError as error:
            return f"readings are not kept: {os.strerror(error.errno or 0)} ({self.folder})"
        return None

    def _write(self, line: bytes) -> None:
        path = self._current(len(line))
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._torn = True
            written = os.write(handle, line)
            if written < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._torn = False
        finally:
            os.close(handle)

    def _current(self, more: int) -> Path:
        """The file to append to: a new one when the last is full or may end in half a line."""
        numbers = self._numbers()
        last = numbers[-1] if numbers else 0
        path = self._path(last)
        if self._torn is None:
            self._torn = bool(numbers) and not _ends_whole(path)
        if not numbers or self._torn or path.stat().st_size + more > self._segment_bytes:
            path = self._path(last + 1)
            for number in numbers[: max(0, len(numbers) + 1 - SEGMENTS)]:
                self._path(number).unlink(missing_ok=True)
        return path

    def _drop_oldest(self) -> bool:
        """Whether there was one to drop besides the newest."""
        numbers = self._numbers()
        if len(numbers) < 2:
            return False
        self._path(numbers[0]).unlink(missing_ok=True)
        return True

    def read(self, after: Place | None = None) -> Iterator[tuple[Place, dict[str, Any]]]:
        """Readings, oldest first, each with its place. What is torn or no reading is skipped."""
        first = Place(0, 0) if after is None else after
        for number in self._numbers():
            if number < first.segment:
                continue
            try:
                file = self._path(number).open("rb")
            except OSError:  # dropped meanwhile
                continue
            with file:
                offset = 0
                while line := file.readline(_LINE_LIMIT_BYTES):
                    offset += len(line)
                    place = Place(number, offset)
                    if first < place and (value := _parsed(line)) is not None:
                        yield place, value

    def ends_before(self, place: Place) -> bool:
        """Whether the ring was begun anew since that place was noted: then it means nothing any more."""
        numbers = self._numbers()
        return not numbers or numbers[-1] < place.segment

    def _numbers(self) -> list[int]:
        try:
            names = [path.name for path in self.folder.iterdir()]
        except OSError:
            return []
        return sorted(int(name[:-7]) for name in names if name.endswith(".ndjson") and name[:-7].isdigit())

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}.ndjson"


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        return file.read(1) in (b"", b"\n")


def _parsed(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
