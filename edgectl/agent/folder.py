"""The watched folder: what is dropped there is added once it is whole, then moved to `done/`, or to `refused/` beside
the reason. It is added first and moved afterwards: killed in between, it is added again, which changes nothing.

A file, or a folder with a sub-folder per label, counts as whole when it did not change from one look to the next. Who
writes slowly writes under a name that is passed over (`.name`, `name.part`, `name.tmp`), and renames it in the end.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection
from pathlib import Path

from edgewire.files import sync_path, write_atomic

DONE, REFUSED = "done", "refused"
_UNFINISHED = (".part", ".tmp")
_NAME_BYTES = 200  # of a name that gets longer: file systems take 255
Mark = tuple[tuple[str, int, int, int], ...]
"""(name, inode, size, time of change in ns) of each file of an entry; empty where it holds none."""


class WatchedFolder:
    """task: what the samples are for, None: the only task of the board. tasks: names of all that the board has or had:
    the folder of one of them, inside this one, is no entry."""

    def __init__(
        self, folder: Path, *, task: str | None = None, tasks: Callable[[], Collection[str]] = lambda: ()
    ) -> None:
        self.folder, self.task = folder.absolute(), task
        self._tasks = tasks
        self._seen: dict[Path, Mark] = {}

    def look(self) -> list[Path]:
        """What is whole: unchanged since the look before, in order of names. Makes the folder where it is missing.

        Raises OSError (not permitted, read-only)."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.task is not None:
            (self.folder / DONE).mkdir(mode=0o700, exist_ok=True)  # by which it is known when it is not watched
        tasks = self._tasks()
        now = {path: mark(path) for path in sorted(self.folder.iterdir()) if _is_entry(path, tasks)}
        before, self._seen = self._seen, now
        return [path for path, seen in now.items() if seen and before.get(path) == seen]

    def waits(self) -> bool:
        """Whether the last look saw anything that may be whole by the next one."""
        return any(self._seen.values())

    def unchanged(self, path: Path) -> bool:
        """Whether it still is as it was in the last look."""
        return mark(path) == self._seen.get(path)

    def done(self, path: Path) -> Path:
        """It was added; where it lies now. Raises OSError."""
        return self._move(path, self._room(DONE, path.name))

    def refuse(self, path: Path, reason: str) -> Path:
        """It can never be added: moved, beside NAME.reason.txt, which is written first. Raises OSError."""
        target = self._room(REFUSED, path.name)
        short = os.fsdecode(os.fsencode(target.name)[:_NAME_BYTES])
        write_atomic(target.with_name(short + ".reason.txt"), (reason + "\n").encode(errors="replace"))
        return self._move(path, target)

    def _room(self, where: str, name: str) -> Path:
        """A free name: what lies there already is never overwritten."""
        folder = self.folder / where
        folder.mkdir(mode=0o700, exist_ok=True)
        return _free(folder, name)

    def _move(self, path: Path, target: Path) -> Path:
        path.rename(target)
        sync_path(target.parent)
        sync_path(self.folder)
        self._seen.pop(path, None)
        return target


def _is_entry(path: Path, tasks: Collection[str]) -> bool:
    name = path.name
    if name in (DONE, REFUSED) or name.startswith(".") or name.endswith(_UNFINISHED):
        return False
    return name not in tasks or not any((path / own).is_dir() for own in (DONE, REFUSED))


def _free(folder: Path, name: str) -> Path:
    """NAME, or 2-NAME, 3-NAME and so on: found by halving, for a name that is used again and again may be there a
    million times."""

    def numbered(number: int) -> Path:
        return folder / (name if number == 1 else f"{number}-{name}")

    taken, free = 0, 1
    while os.path.lexists(numbered(free)):
        taken, free = free, 2 * free
    while free - taken > 1:
        middle = (taken + free) // 2
        taken, free = (middle, free) if os.path.lexists(numbered(middle)) else (taken, middle)
    return numbered(free)


def is_plain(path: Path) -> bool:
    """Whether it is a file or a folder: links are not followed, and a pipe would never end."""
    mode = path.lstat().st_mode
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def mark(path: Path) -> Mark:
    """What changes when an entry does. What vanishes meanwhile is left out."""
    if path.is_symlink() or not path.is_dir():
        return _of_file(path)
    found: list[tuple[str, int, int, int]] = []
    for folder, below, names in os.walk(path):
        below.sort()
        found += [one for name in sorted(names) for one in _of_file(Path(folder, name))]
    return tuple(found)


def _of_file(path: Path) -> Mark:
    try:
        state = path.lstat()
    except OSError:
        return ()
    return ((str(path), state.st_ino, state.st_size, state.st_ctime_ns),)
