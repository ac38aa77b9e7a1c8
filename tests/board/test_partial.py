"""Files while they arrive, on a disk that becomes full."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgectl import partial
from edgewire.errors import EdgeError

ROOM = 1000


@pytest.fixture
def little_room() -> Iterator[None]:
    """No file grows beyond so many bytes; like a full disk, the kernel takes the part of a piece that fits."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("little_room")
@pytest.mark.parametrize("pieces", [[bytes(1500)], [bytes(600), bytes(900)]])
def test_a_last_piece_of_which_only_a_part_fits_is_told_and_what_came_stays(
    tmp_path: Path, pieces: list[bytes]
) -> None:
    part = tmp_path / "blob.part"
    with pytest.raises(EdgeError, match="writing"):
        partial.append(pieces, part, have=0, size=1500, on_bytes=lambda length: None)
    assert part.stat().st_size == ROOM
