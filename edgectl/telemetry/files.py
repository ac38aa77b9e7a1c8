"""Small files of /sys and /proc under a root that tests replace by recordings. They may be missing, hold garbage, or
vanish between two looks; every failure is one exception whose text is fit to be shown as a reason."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_LIMIT_BYTES = 64 << 10


class Unreadable(Exception):
    """The text says which file or command, and why."""


@dataclass(frozen=True)
class Files:
    """root: what stands for '/'. Names are relative to it, and appear in reasons with a leading '/'."""

    root: Path

    def text(self, name: str) -> str:
        """The file's text without surrounding blanks; at most 64 KiB are read. Raises Unreadable."""
        try:
            with (self.root / name).open("rb", buffering=0) as file:
                raw = file.read(_LIMIT_BYTES)
        except FileNotFoundError:
            raise Unreadable(f"/{name} is missing") from None
        except PermissionError:
            raise Unreadable(f"/{name} may not be read by this user") from None
        except OSError as error:  # a sensor that is switched off answers EAGAIN, EIO or ENODEV
            raise Unreadable(f"/{name} cannot be read: {os.strerror(error.errno or 0)}") from None
        return (raw or b"").split(b"\0")[0].decode(errors="replace").strip()

    def whole(self, name: str) -> int:
        """A file that holds one whole number. Raises Unreadable."""
        text = self.text(name)
        try:
            return int(text)
        except ValueError:
            raise Unreadable(f"/{name} holds no number but '{text[:20]}'") from None

    def glob(self, pattern: str) -> list[str]:
        """Names that fit, sorted; none where a folder cannot be listed."""
        try:
            return sorted(str(path.relative_to(self.root)) for path in self.root.glob(pattern))
        except OSError:
            return []
