"""Published bytes, named by their digest. What is written once never changes, so any cache may keep it.

A store is a folder (`Blobs`, the default) or a bucket (`s3.S3Blobs`); both keep the promises of `BlobStore`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgewire.errors import CorruptFile, NotFound
from edgewire.files import digest as digest_of
from edgewire.files import digest_of_file, move_into_place, write_atomic
from edgewire.messages import BlobRef

LEFTOVER_AGE_S = 3600.0
PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Stored:
    """A blob in a store. at: when it was written, in seconds since 1970."""

    digest: str
    size: int
    at: float


class BlobStore(Protocol):
    """Where blobs are. Every method may raise RetryLater where the store is elsewhere."""

    def put(self, data: bytes) -> BlobRef:
        """Store bytes under their digest; a whole copy that is there is left alone. Raises OSError (full disk)."""
        ...

    def put_file(self, path: Path) -> BlobRef:
        """The same for a file of any size."""
        ...

    def path(self, digest: str) -> Path:
        """A file with the blob's bytes, for the next minutes at least. Raises NotFound."""
        ...

    def read(self, digest: str, *, verify: bool = True) -> bytes:
        """The bytes of a blob. Raises NotFound, or CorruptFile if they are no longer what their name says."""
        ...

    def check(self, digest: str) -> None:
        """Read a blob in pieces and raise CorruptFile unless it matches its name."""
        ...

    def sweep(self, *, now: float | None = None) -> int:
        """Remove what writers that were killed left behind, and copies here of what the store has no more; returns how
        many files."""
        ...

    def stored(self) -> Iterator[Stored]:
        """Every blob, in no particular order."""
        ...

    def remove(self, digest: str) -> None:
        """Forget a blob; one that is not there is no error."""
        ...

    def clear(self) -> None:
        """Forget every blob."""
        ...

    def internal_address(self, digest: str) -> str:
        """Where a web server in front finds the blob, below its location for blobs (docs/operations.md)."""
        ...


class Blobs:
    """A folder of blobs, in 256 subfolders so that none grows long."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(self, data: bytes) -> BlobRef:
        """See BlobStore."""
        digest = digest_of(data)
        if not self._whole(digest):
            write_atomic(self._place(digest), data, mode=0o600)
        return BlobRef(digest, len(data))

    def put_file(self, path: Path) -> BlobRef:
        """See BlobStore."""
        digest = digest_of_file(path)
        if not self._whole(digest):
            with path.open("rb") as file:
                self.receive(digest, iter(lambda: file.read(PIECE_BYTES), b""))
        return BlobRef(digest, path.stat().st_size)

    def receive(self, digest: str, pieces: Iterable[bytes]) -> Path:
        """Store bytes as they arrive; returns their file. Raises CorruptFile, storing nothing, if they do not match."""
        target, running = self._place(digest), hashlib.sha256()
        handle, temporary = tempfile.mkstemp(prefix=f".{digest}.", suffix=".tmp", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                for piece in pieces:
                    running.update(piece)
                    file.write(piece)
            if running.hexdigest() != digest:
                raise _corrupt(digest)
            move_into_place(Path(temporary), target)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
            raise
        return target

    def path(self, digest: str) -> Path:
        """See BlobStore."""
        path = self._path(digest)
        if not path.is_file():
            raise NotFound(f"there is no blob {digest[:12]}…")
        return path

    def read(self, digest: str, *, verify: bool = True) -> bytes:
        """See BlobStore."""
        data = self.path(digest).read_bytes()
        if verify and digest_of(data) != digest:
            raise _corrupt(digest)
        return data

    def check(self, digest: str) -> None:
        """See BlobStore."""
        if digest_of_file(self.path(digest)) != digest:
            raise _corrupt(digest)

    def remove(self, digest: str) -> None:
        """See BlobStore. Who has its file open reads on."""
        self._path(digest).unlink(missing_ok=True)

    def sweep(self, *, now: float | None = None) -> int:
        """See BlobStore."""
        limit = (time.time() if now is None else now) - LEFTOVER_AGE_S
        removed = 0
        for path in self._folder.glob("??/.*.tmp"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < limit:
                    path.unlink()
                    removed += 1
        return removed

    def stored(self) -> Iterator[Stored]:
        """See BlobStore."""
        for path in self._folder.glob("??/[0-9a-f]*"):
            with contextlib.suppress(FileNotFoundError):
                found = path.stat()
                yield Stored(path.name, found.st_size, found.st_mtime)

    def clear(self) -> None:
        """See BlobStore."""
        for folder in self._folder.iterdir():
            shutil.rmtree(folder)

    def internal_address(self, digest: str) -> str:
        """See BlobStore."""
        return f"{digest[:2]}/{digest}"

    def _whole(self, digest: str) -> bool:
        """Whether an undamaged copy is there; a damaged one is mended by storing it again."""
        path = self._path(digest)
        return path.is_file() and digest_of_file(path) == digest

    def _place(self, digest: str) -> Path:
        """The file a blob gets, in a folder that is there."""
        path = self._path(digest)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        return path

    def _path(self, digest: str) -> Path:
        return self._folder / digest[:2] / digest


def _corrupt(digest: str) -> CorruptFile:
    return CorruptFile(f"blob {digest[:12]}… does not match its name", hint="restore it, or build again")
