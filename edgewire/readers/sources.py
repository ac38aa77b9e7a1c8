"""Where samples come from: a file, standard input, or a folder with a sub-folder per label; what kind of file it is."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from edgewire.errors import InvalidSamples, NotFound

Kind = Literal["table", "image", "wave"]

FILES_LIMIT = 100_000
_SUFFIXES: dict[str, Kind] = {".png": "image", ".jpg": "image", ".jpeg": "image", ".wav": "wave", ".csv": "table"}
_NAME_LIMIT = 200


@dataclass(frozen=True)
class Source:
    """One file. name: what people call it, at most 200 characters; label: its folder's name, None where there is none.
    Exactly one of path and data (what standard input held) is given."""

    name: str
    label: str | None = None
    path: Path | None = None
    data: bytes = b""

    def open(self, limit_bytes: int) -> BinaryIO:
        """The file's bytes. Raises InvalidSamples beyond limit_bytes, NotFound."""
        if self.path is None:
            return io.BytesIO(self.data)
        try:
            size = self.path.stat().st_size
            if size > limit_bytes:
                raise InvalidSamples(
                    f"{self.name} has {_size(size)}, the limit is {_size(limit_bytes)}",
                    hint="split it into smaller files and add them one by one",
                )
            return self.path.open("rb")
        except (FileNotFoundError, IsADirectoryError):
            raise NotFound(f"there is no file {self.path}", hint="give a data file or a folder of them") from None


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 1 << 30 else f"{count} bytes"


def of_input(stdin: BinaryIO | None, limit_bytes: int) -> Source:
    """All of standard input. Raises InvalidSamples beyond limit_bytes."""
    if stdin is None:
        raise InvalidSamples("no file was given")
    data = stdin.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise InvalidSamples(f"standard input has more than {limit_bytes} bytes", hint="send it in smaller pieces")
    return Source("standard input", data=data)


def kind_of(source: Source, limit_bytes: int) -> Kind:
    """By its first bytes."""
    with source.open(limit_bytes) as file:
        head = file.read(12)
    if head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")):
        return "image"
    return "wave" if head[:4] == b"RIFF" and head[8:] == b"WAVE" else "table"


def of_folder(folder: Path, *, labelled: bool) -> tuple[Kind, list[Source]]:
    """The files of a folder and their one kind, in order of their names.

    labelled: each lies in a sub-folder named after its label; otherwise they may also lie in the folder itself, and
    names of sub-folders mean nothing. Hidden files and files of other kinds are passed over; links are not followed.
    Raises InvalidSamples.
    """
    top = folder.resolve().name
    found = _files(folder, top, label=None)
    if labelled and found:
        raise InvalidSamples(
            f"{found[0].name} lies in no label's folder", hint=f"put it into {folder}/LABEL/, a sub-folder per label"
        )
    for below in _entries(folder):
        if below.is_dir() and not below.is_symlink():
            found += _files(below, f"{top}/{below.name}", label=below.name if labelled else None, deepest=True)
        if len(found) > FILES_LIMIT:
            raise InvalidSamples(f"{folder} has more than {FILES_LIMIT} files", hint="add it in smaller pieces")
    if not found:
        raise InvalidSamples(
            f"{folder} holds no data", hint="expected a sub-folder per label with PNG, JPEG, WAV or CSV files"
        )
    kinds = {_kind_by_suffix(source.path) for source in found if source.path is not None}
    if len(kinds) > 1:
        raise InvalidSamples(f"{folder} holds files of different kinds", hint="only images, only WAV, or only CSV")
    kind = kinds.pop()
    assert kind is not None  # noqa: S101 -- _files lists only files of a known kind
    return kind, found


def _files(folder: Path, name: str, *, label: str | None, deepest: bool = False) -> list[Source]:
    found = []
    for entry in _entries(folder):
        shown = f"{name}/{entry.name}"
        if deepest and entry.is_dir():
            raise InvalidSamples(f"{shown} is a folder inside a label's folder", hint="files only, one level deep")
        if _kind_by_suffix(entry) is None or entry.is_dir():
            continue
        if entry.is_symlink() or not entry.is_file():
            raise InvalidSamples(f"{shown} is not a plain file", hint="links are not followed: copy the file there")
        found.append(Source(plain(shown)[-_NAME_LIMIT:], label, entry))
    return found


def plain(name: str) -> str:
    """A file's name may hold line breaks, and bytes that are no text at all."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except NotADirectoryError:
        raise NotFound(f"there is no folder {folder}") from None


def _kind_by_suffix(path: Path) -> Kind | None:
    return _SUFFIXES.get(path.suffix.lower())
