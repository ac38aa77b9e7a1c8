"""Folders that are there whole or not at all: filled beside their place, and on disk before they have their name."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from edgewire.errors import Conflict
from edgewire.files import sync_path


@contextlib.contextmanager
def made_whole(target: Path) -> Iterator[Path]:
    """A folder for its owner alone, to be filled; with the end of the block it is `target`, also after a power cut. One
    that fails leaves nothing: what lies in it may be other people's samples. Raises Conflict if `target` is there."""
    if target.exists():
        raise Conflict(f"{target} is there already", hint="name a folder that is not")
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of one that was killed
    part.mkdir(mode=0o700, parents=True)
    try:
        yield part
        for path in (*part.rglob("*"), part):
            sync_path(path)
        part.rename(target)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    sync_path(target.parent)
