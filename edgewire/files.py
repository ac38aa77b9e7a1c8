"""Files that survive a power cut: written aside, flushed, renamed; and locks that die with their process."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgewire.errors import Busy


def digest(data: bytes | memoryview) -> str:
    """sha256 as 64 hex characters: the name of published bytes."""
    return hashlib.sha256(data).hexdigest()


def digest_of_file(path: Path) -> str:
    """sha256 of a file of any size, read in pieces."""
    running = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            running.update(piece)
    return running.hexdigest()


def write_atomic(path: Path, data: bytes | memoryview, *, mode: int = 0o644) -> None:
    """Write a whole file or leave the old one; when this returns, the bytes and the name are on disk.

    mode: permission bits, set before the first byte is written. Raises OSError (full disk, read-only).
    """
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
    sync_path(path.parent)


def move_into_place(source: Path, target: Path) -> None:
    """Rename a finished file (same file system) to its final name, durably."""
    with source.open("rb") as file:
        os.fsync(file.fileno())
    source.replace(target)
    sync_path(target.parent)


def point_symlink(link: Path, target: str) -> None:
    """Make `link` point to `target` (a name relative to its folder), atomically and durably."""
    temporary = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    temporary.symlink_to(target)
    temporary.replace(link)
    sync_path(link.parent)


def sync_path(path: Path) -> None:
    """fsync a file, or a folder: a power cut may otherwise lose the rename inside it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def exclusive(path: Path, *, doing: str) -> Iterator[None]:
    """Hold a lock file while the block runs. The kernel drops it when the process dies, also by kill -9.

    Raises Busy if another process holds it.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"another process is {doing}", hint="wait for it to end, then run this again") from None
        yield
    finally:
        os.close(handle)
