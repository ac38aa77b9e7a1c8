"""Does a task suit this board? Asked when it arrives, before anything of it is fetched."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from edgectl.home import Home
from edgewire.decoding import decode, encode
from edgewire.errors import EdgeError
from edgewire.files import write_atomic
from edgewire.tasks import Needs, Task


@dataclass(frozen=True)
class Able:
    """What this board has. memory_mib: that it may use in all, None where nobody knows; trains: whether it can."""

    profile: str
    memory_mib: float | None
    free_mib: float
    trains: bool


def lacks(task: Task, able: Able) -> list[str]:
    """What the board lacks for a task, one line each."""
    needs, found = task.needs, list[str]()
    if not isinstance(needs, Needs):
        return found
    if able.memory_mib is not None and able.memory_mib < needs.memory_mib:
        found.append(f"{needs.memory_mib} MiB of memory (it has {able.memory_mib:.0f})")
    if able.free_mib < needs.disk_mib:
        found.append(f"{needs.disk_mib} MiB of free disk (it has {able.free_mib:.0f})")
    if needs.profiles and not any(fnmatchcase(able.profile, pattern) for pattern in needs.profiles):
        found.append(f"a profile of {', '.join(needs.profiles)} (it has {able.profile})")
    if needs.training and not able.trains:
        found.append("torch, to train")
    return found


def note(home: Home, task_id: str, missing: list[str]) -> None:
    """Keep for `edgectl status` what is lacking, or that nothing is any more."""
    if missing:
        write_atomic(home.lacks(task_id), encode(missing), mode=0o600)
    else:
        home.lacks(task_id).unlink(missing_ok=True)


def noted(home: Home, task_id: str) -> list[str]:
    """What the board lacked when the task came last."""
    try:
        return decode(list[str], home.lacks(task_id).read_bytes(), what="what the board lacks")
    except (OSError, EdgeError):
        return []
