"""A board's samples: what it was told of the world, with label, recording and time.

Counting needs no numpy, so that `edgectl status` starts fast; arrays are made only by `add_samples` and `samples`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgectl.store_records import Records
from edgewire.errors import Conflict

if TYPE_CHECKING:
    import numpy as np

    from edgewire.samples import Samples
    from edgewire.tasks import Task

UNFIT_NAMED = 200

_FROM_SAMPLES = "FROM sample WHERE task = ?1 AND (NOT ?2 OR scored_at IS NULL)"


@dataclass(frozen=True)
class AddResult:
    """added: samples that are new; duplicates: samples (values and label) that were there already."""

    added: int
    duplicates: int


@dataclass(frozen=True)
class StoredSamples:
    """n local samples of a task, ordered by id. ids: int64 (n,); added_at: float64 (n,), seconds since 1970."""

    samples: Samples
    ids: np.ndarray
    digests: list[str]
    added_at: np.ndarray

    def __len__(self) -> int:
        return len(self.digests)


@dataclass(frozen=True)
class SampleRow:
    """A sample without its values. shared_until: consent to share ends then; None: it was never shared."""

    id: int
    digest: str
    label: str
    group: str
    time: float | None
    added_at: float
    shared_until: float | None


@dataclass(frozen=True)
class Tally:
    """Samples up to an id and after it. new_labels: names that only the new ones have."""

    old: int
    new: int
    new_labels: tuple[str, ...]


class SampleRecords(Records):
    """The samples of every task."""

    def add_samples(self, task: Task, samples: Samples, *, now: float) -> AddResult:
        """Add all or none. A sample that is there already (same values and label) is counted, not stored again."""
        with self.transaction():
            before = self._connection.total_changes
            self._connection.executemany(
                "INSERT INTO sample (task, digest, kind, x, label, label_name, group_name, time, added_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (task, digest) DO NOTHING",
                _sample_rows(task, samples, now),
            )
            added = self._connection.total_changes - before
        return AddResult(added, len(samples) - added)

    def samples(self, task: Task, *, unscored: bool = False) -> StoredSamples:
        """All local samples of a task. Labels are matched by name, so a task may append labels or reorder them.

        unscored: only those that no model has predicted yet.
        Raises Conflict if the task has changed so that a stored sample no longer fits it.
        """
        import numpy as np

        from edgewire.samples import make

        kind, index = _kind(task), {name: i for i, name in enumerate(task.labels)}
        with self.snapshot():  # for the count and the rows
            n = int(self._one(f"SELECT count(*) {_FROM_SAMPLES}", task.id, unscored)[0])
            x = np.empty((n, *task.input.shape), task.input.dtype)
            light: list[tuple[int, str, int, str, float, float]] = []
            unfit: list[tuple[int, str]] = []
            rows = self._connection.execute(
                f"SELECT id, digest, kind, x, label_name, group_name, time, added_at {_FROM_SAMPLES} ORDER BY id",
                (task.id, unscored),
            )
            for i, (number, digest, row_kind, values, label, group, time, added_at) in enumerate(rows):
                if row_kind != kind or label not in index:
                    unfit.append(
                        (number, f"is {row_kind}" if row_kind != kind else f"has label '{label}', which is gone")
                    )
                    continue
                x[i] = np.frombuffer(values, task.input.dtype).reshape(task.input.shape)
                light.append((number, digest, index[label], group, np.nan if time is None else time, added_at))
        if unfit:
            raise _unfit(task, unfit, of=n)
        columns = list(zip(*light, strict=True)) if light else [()] * 6
        made = make(
            x, np.asarray(columns[2], np.int64), group=_text(columns[3]), time=np.asarray(columns[4], np.float64)
        )
        ids = np.asarray(columns[0], np.int64)
        return StoredSamples(made, ids, [str(d) for d in columns[1]], np.asarray(columns[5], np.float64))

    def digests(self, task_id: str) -> set[str]:
        """The digest of every local sample of a task."""
        return {str(row[0]) for row in self._all("SELECT digest FROM sample WHERE task = ?", task_id)}

    def own_digests(self, task_id: str) -> set[str]:
        """The digest of every sample of a task that is or was this board's: those here, and those it ever shared."""
        return self.digests(task_id) | self.contributed(task_id)

    def contributed(self, task_id: str) -> set[str]:
        """The digest of every sample that was ever shared."""
        return {str(row[0]) for row in self._all("SELECT digest FROM contributed WHERE task = ?", task_id)}

    def recordings(self, task_id: str) -> list[tuple[int, str, str]]:
        """(id, digest, recording) of every local sample, ordered by id."""
        sql = "SELECT id, digest, group_name FROM sample WHERE task = ? ORDER BY id"
        return [(int(number), str(digest), str(name)) for number, digest, name in self._all(sql, task_id)]

    def label_counts(self, task_id: str) -> dict[str, int]:
        """Samples per label name."""
        return dict(self._all("SELECT label_name, count(*) FROM sample WHERE task = ? GROUP BY label_name", task_id))

    def tally(self, task_id: str, newest: int) -> Tally:
        """How many samples are there up to an id, and how many came after it."""
        rows = self._all(
            "SELECT label_name, sum(id <= ?2), sum(id > ?2) FROM sample WHERE task = ?1 GROUP BY label_name",
            *(task_id, newest),
        )
        new_labels = tuple(sorted(str(label) for label, old, new in rows if new and not old))
        return Tally(sum(old for _, old, _ in rows), sum(new for _, _, new in rows), new_labels)

    def sample_tasks(self) -> list[str]:
        """Tasks that have samples."""
        return [row[0] for row in self._all("SELECT DISTINCT task FROM sample ORDER BY task")]

    def list_samples(self, task_id: str, limit: int) -> list[SampleRow]:
        """The newest samples, newest first, without their values."""
        rows = self._all(
            "SELECT id, digest, label_name, group_name, time, added_at, shared_until FROM sample"
            " WHERE task = ? ORDER BY id DESC LIMIT ?",
            *(task_id, limit),
        )
        return [SampleRow(*row) for row in rows]

    def expire(self, task_id: str, *, older_than: float | None, ids: Sequence[int] | None) -> int:
        """Delete samples added before a time, or by id; both: those that fit both; none: all. How many went."""
        chosen = None if ids is None else json.dumps([int(i) for i in ids])
        with self.transaction():
            return self._connection.execute(
                "DELETE FROM sample WHERE task = ?1 AND (?2 IS NULL OR added_at < ?2)"
                " AND (?3 IS NULL OR id IN (SELECT value FROM json_each(?3)))",
                (task_id, older_than, chosen),
            ).rowcount

    def mark_shared(self, ids: Sequence[int], until: float, now: float) -> None:
        """Note that the owner consented to share these samples until a time."""
        with self.transaction():
            self._connection.executemany(
                "UPDATE sample SET shared_at = ?, shared_until = ? WHERE id = ?", [(now, until, int(i)) for i in ids]
            )
            self._connection.executemany(
                "INSERT INTO contributed SELECT task, digest FROM sample WHERE id = ? ON CONFLICT DO NOTHING",
                [(int(i),) for i in ids],
            )

    def shared_ids(self, task_id: str) -> set[int]:
        """Samples whose owner has consented to share them."""
        return {row[0] for row in self._all("SELECT id FROM sample WHERE task = ? AND shared_at IS NOT NULL", task_id)}


def _kind(task: Task) -> str:
    return f"{task.input.dtype}{list(task.input.shape)}"


def _unfit(task: Task, unfit: Sequence[tuple[int, str]], *, of: int) -> Conflict:
    """unfit: id of each stored sample that no longer fits, and why. The hint names them, so that one command does."""
    number, why = unfit[0]
    which = "--all" if len(unfit) == of else " ".join(f"--id {i}" for i, _ in unfit[:UNFIT_NAMED])
    return Conflict(
        f"task '{task.id}' has changed and takes {_kind(task)}: {len(unfit)} of {of} stored samples no longer fit;"
        f" sample {number} {why}",
        hint=f"expire them: edgectl data expire --task {task.id} {which}",
    )


def _text(values: Sequence[Any]) -> np.ndarray:
    import numpy as np

    return np.asarray(values, np.str_) if values else np.full(0, "", np.str_)


def _sample_rows(task: Task, samples: Samples, now: float) -> Iterator[tuple[Any, ...]]:
    import numpy as np

    from edgewire.samples import sample_digests

    kind = _kind(task)
    for i, digest in enumerate(sample_digests(samples)):
        label, time = int(samples.y[i]), float(samples.time[i])
        values = np.ascontiguousarray(samples.x[i]).astype(samples.x.dtype.newbyteorder("<"), copy=False).tobytes()
        known_time = None if np.isnan(time) else time
        yield (task.id, digest, kind, values, label, task.labels[label], str(samples.group[i]), known_time, now)
