"""What a board keeps of its own samples: no longer and no more than its owner wants.

Beyond the number, the oldest sample of whichever label has most goes first, so that no class dies out. What goes for
its age or number is no reason to train again, as a deletion by hand is; what was shared and sent stays shared.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass

from edgectl import checkpoints
from edgectl.home import Home
from edgectl.store import Store
from edgectl.store_samples import SampleRow

DAY_S = 86400.0
_ALL = 1 << 60


@dataclass(frozen=True)
class Limits:
    """most: samples of a task; days: since they were added. 0: any."""

    most: int = 0
    days: int = 0


def apply(home: Home, store: Store, task_id: str, limits: Limits, *, now: float) -> int:
    """Delete what is too old or too many; how many went."""
    rows = store.list_samples(task_id, _ALL) if limits.most or limits.days else []
    old = [row for row in rows if limits.days and row.added_at < now - limits.days * DAY_S]
    gone = {row.id for row in old}
    gone |= _surplus([row for row in rows if row.id not in gone], limits.most)
    if gone:
        with store.transaction():
            _note(store, task_id, gone)
            store.expire(task_id, older_than=None, ids=sorted(gone))
        forget_learnt(home, task_id)
    return len(gone)


def forget_learnt(home: Home, task_id: str) -> None:
    """What was learnt from samples must not go on after them: no training, and no update to the cloud."""
    checkpoints.forget(home, task_id)
    home.round_update(task_id).unlink(missing_ok=True)


def dropped(store: Store, task_id: str, newest: int) -> int:
    """How many of the samples up to that id, the newest of the last training, went for their age or number since."""
    noted = json.loads(store.meta_get(_key(task_id)) or "{}")
    return int(noted.get("count", 0)) if noted.get("newest") == newest else 0


def _surplus(rows: list[SampleRow], most: int) -> set[int]:
    """rows: the newest first."""
    left, gone = defaultdict[str, list[int]](list), set[int]()
    for row in rows:
        left[row.label].append(row.id)
    for _ in range(len(rows) - most if most else 0):
        largest = max(left.values(), key=lambda ids: (len(ids), -ids[-1]))
        gone.add(largest.pop())
    return gone


def _note(store: Store, task_id: str, gone: set[int]) -> None:
    last = store.last_training(task_id)
    if last is None:
        return
    newest = last.newest_sample
    count = dropped(store, task_id, newest) + sum(number <= newest for number in gone)
    store.meta_set(_key(task_id), json.dumps({"newest": newest, "count": count}))


def _key(task_id: str) -> str:
    return f"dropped {task_id}"
