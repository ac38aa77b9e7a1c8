"""Files while they arrive: NAME.part, without a buffer, so that a kill or a cut loses nothing that came, and whoever
comes next asks for the rest."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from io import RawIOBase
from pathlib import Path

from edgewire import errors
from edgewire.decoding import JSON_LIMIT_BYTES
from edgewire.errors import DigestMismatch, InvalidMessage, Offline
from edgewire.messages import HAVE_CHARACTERS, MAX_HAVE, PARTS_LIMIT_BYTES

_DIGEST = re.compile(r"[0-9a-f]{64}")
_LISTED = re.compile(r"(\d{1,9})((?:, [0-9a-f]{64}:\d{1,9})*)")


@dataclass
class Parts:
    """Files that may come along with a manifest: into `folder`, as partial files. Who knows from the manifest what they
    should be fetches them, and finds them there. apart: digests of files in the folder that no manifest names."""

    folder: Path
    apart: frozenset[str] = frozenset()
    received_bytes: int = field(default=0, init=False)

    def have(self) -> str:
        """What need not come, for the header: whole files, and those of which a part is there already."""
        names = {path.name.removesuffix(".part") for path in self.folder.iterdir()} - self.apart
        told = sorted(name for name in names if _DIGEST.fullmatch(name))[:MAX_HAVE]
        return ",".join(name[:HAVE_CHARACTERS] for name in told)

    def receive(self, listed: str, pieces: Iterable[bytes]) -> bytes:
        """Store what follows a manifest; returns the manifest's bytes. listed: `Edge-Parts`.

        Raises InvalidMessage for sizes that cannot be, Offline if it ends early.
        """
        size, files = _sizes(listed)
        arriving = _Arriving(pieces)
        manifest = b"".join(arriving.next(size))
        if len(manifest) < size:
            raise _cut(size - len(manifest))
        for name, size in files.items():
            append(arriving.next(size), self.folder / f"{name}.part", have=0, size=size, on_bytes=self._count)
        return manifest

    def _count(self, length: int) -> None:
        self.received_bytes += length


class _Arriving:
    """A body, taken in lengths that its pieces know nothing of."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces, self._left = iter(pieces), b""

    def next(self, size: int) -> Iterator[bytes]:
        """The next bytes, piece by piece; fewer where the body ends before."""
        while size and (piece := self._left or next(self._pieces, b"")):
            mine, self._left = piece[:size], piece[size:]
            size -= len(mine)
            yield mine


def _sizes(listed: str) -> tuple[int, dict[str, int]]:
    found = _LISTED.fullmatch(listed)
    pairs = (item.split(":") for item in found[2].split(", ")[1:]) if found else ()
    sizes = {name: int(size) for name, size in pairs}
    if found is None or int(found[1]) > JSON_LIMIT_BYTES or sum(sizes.values()) > PARTS_LIMIT_BYTES:
        raise InvalidMessage("what the cloud sends with the manifest cannot be")
    return int(found[1]), sizes


def append(pieces: Iterable[bytes], part: Path, *, have: int, size: int, on_bytes: Callable[[int], None]) -> None:
    """Add what arrives to the `have` bytes that are there. Raises Offline if it ends before `size`, DigestMismatch, and
    leaves nothing, if more comes."""
    with writing(part), part.open("ab" if have else "wb", buffering=0) as file:
        for piece in pieces:
            have += len(piece)
            if have > size:
                part.unlink()
                raise DigestMismatch(
                    f"the cloud sends more than the {size} bytes it signed for", hint="sync again later"
                )
            _write_whole(file, piece)
            on_bytes(len(piece))
    if have < size:
        raise _cut(size - have)


def _write_whole(file: RawIOBase, piece: bytes) -> None:
    """Without a buffer, a disk that becomes full takes a part of a piece and says nothing until the next one."""
    left = memoryview(piece)
    while left:
        left = left[file.write(left) :]


def _cut(missing: int) -> Offline:
    return Offline(f"the connection ended {missing} bytes early", hint="run the same command again: it goes on")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """A full or read-only disk must not look like a broken connection."""
    try:
        yield
    except OSError as error:
        raise errors.from_os_error(error, f"writing {path.name}") from error
