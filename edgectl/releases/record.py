"""How far a release came on this board: one file per task and kind, replaced whole at each step.

So there is no half of a step: whatever is cut off, by kill -9, a power cut or a full disk, the file says what the last
whole step was, and the next sync goes on from there. `order` and `before` are the two slots: what is being tried or
runs, and what ran before it; each names files that never change, by digest.

    ready -> trial -> committed        switched; then, once it answered again from where it serves, committed
    ready -> failed, trial -> failed   `before` serves
    committed -> reverted              told to go back: `before` serves
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgectl.home import Home
from edgewire.decoding import decode, encode
from edgewire.errors import EdgeError
from edgewire.files import write_atomic
from edgewire.releases import Check, Kind, Outcome

LIMIT_BYTES = 1 << 20
Stage = Literal["none", "ready", "trial", "committed", "failed", "reverted"]
KINDS: tuple[Kind, ...] = ("base", "policy")


@dataclass(frozen=True)
class Record:
    """order: the sealed order of the newest release; before: that of what serves when this one does not, '' for the
    manifest's base. epoch, floor: of the newest order that was believed: none below is. attempts: how often this stage
    was begun and not ended. etag: of the orders that were carried out. outcomes: what the cloud is still to be told."""

    order: str = ""
    before: str = ""
    stage: Stage = "none"
    epoch: int = 0
    floor: int = 0
    attempts: int = 0
    reason: str = ""
    checks: tuple[Check, ...] = ()
    outcomes: tuple[Outcome, ...] = ()

    @property
    def in_force(self) -> str:
        """The sealed order that counts, '' if the manifest alone does."""
        return self.order if self.stage in ("trial", "committed") else self.before


def path(home: Home, task_id: str, kind: Kind) -> Path:
    """Where it is kept."""
    return home.task(task_id) / f"release-{kind}.json"


def read(home: Home, task_id: str, kind: Kind) -> Record:
    """What is known; nothing where there is nothing, or something unreadable: the cloud orders it again."""
    try:
        raw = path(home, task_id, kind).read_bytes()
        return decode(Record, raw, what=path(home, task_id, kind).name, limit_bytes=LIMIT_BYTES)
    except (FileNotFoundError, EdgeError):
        return Record()


def write(home: Home, task_id: str, kind: Kind, record: Record) -> Record:
    """Keep it, on disk when this returns."""
    write_atomic(path(home, task_id, kind), encode(record), mode=0o600)
    return record
