"""What a board must not lose: its samples, runs, outbox and ε ledger, in one SQLite file.

Importing this is cheap: it needs no numpy, so that `edgectl status` starts fast.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Literal, final

from edgectl import store_schema
from edgectl.store_samples import SampleRecords
from edgewire.errors import ResourcesRefused

SETTLED_REPORTS_KEPT = 500
RUNS_KEPT = 1000
SCORES_KEPT = 10_000

UploadKind = Literal["report", "contribution", "withdrawal"]


@dataclass(frozen=True)
class Score:
    """How a sample was predicted before it was trained on. recording: equal numbers belong together; label: index of
    the true one; version: of the personal model that served, None: the base did; probability: given to the true label;
    base_*: the same of the base model, None where it was not at hand."""

    recording: int
    label: int
    version: int | None
    right: bool
    probability: float
    base_version: int | None
    base_right: bool | None
    base_probability: float | None
    scored_at: float


@dataclass(frozen=True)
class OutboxItem:
    """One upload that waits. params: what travels beside the payload (a contribution's consent and until)."""

    upload_id: str
    kind: UploadKind
    task: str
    params: dict[str, Any]
    payload: bytes
    queued_at: float


@dataclass(frozen=True)
class ShareRow:
    """A contribution or withdrawal. settled_at: when the cloud had it, or refused it for `refusal`; None: it waits."""

    kind: UploadKind
    params: dict[str, Any]
    queued_at: float
    settled_at: float | None
    refusal: str | None


@dataclass(frozen=True)
class Run:
    """ended_at is None while it runs, and for ever if it was interrupted."""

    id: int
    task: str
    kind: str
    started_at: float
    ended_at: float | None
    outcome: str | None
    record: dict[str, Any]

    @property
    def newest_sample(self) -> int:
        """The largest id of those that it trained on; 0 where it says nothing of them."""
        return int(self.record.get("newest_sample", 0))


@final
class Store(SampleRecords):
    """One open database. Every method is one transaction; `transaction()` joins several.

    Any of them raises DiskFull, ReadOnly, Busy or CorruptFile; what was committed before stays.
    """

    @classmethod
    def open(cls, path: Path) -> Store:
        """Open or create; an older file is migrated, after a backup beside it."""
        return cls(store_schema.connect(path), path)

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check(self) -> list[str]:
        """What SQLite finds wrong with its file; empty when it is whole."""
        with store_schema.translated(self.path):
            found = [str(row[0]) for row in self._connection.execute("PRAGMA quick_check(10)")]
        return [] if found == ["ok"] else found

    # Scores

    def has_unscored(self, task_id: str) -> bool:
        """Whether there are samples that no model has predicted yet."""
        return bool(self._one("SELECT EXISTS (SELECT 1 FROM sample WHERE task = ? AND scored_at IS NULL)", task_id)[0])

    def add_scores(self, task_id: str, scores: Mapping[int, Score | None], *, now: float) -> list[Score]:
        """Note how samples (by id) were predicted; None: nobody could predict it honestly, do not ask again.

        Each sample is scored once: one that was scored meanwhile, or deleted, is passed over. Returns what was noted.
        """
        with self.transaction():
            noted = [score for number, score in scores.items() if self._claim(number, now) and score is not None]
            self._connection.executemany(
                "INSERT INTO score (task, recording, label, version, right, probability, base_version, base_right,"
                " base_probability, scored_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [(task_id, *astuple(score)) for score in noted],
            )
            self._connection.execute(
                "DELETE FROM score WHERE task = ?1 AND id <= (SELECT id FROM score WHERE task = ?1"
                " ORDER BY id DESC LIMIT 1 OFFSET ?2)",
                (task_id, SCORES_KEPT),
            )
        return noted

    def _claim(self, sample_id: int, now: float) -> bool:
        sql = "UPDATE sample SET scored_at = ? WHERE id = ? AND scored_at IS NULL"
        return self._connection.execute(sql, (now, sample_id)).rowcount == 1

    def scores(self, task_id: str, *, limit: int = SCORES_KEPT) -> list[Score]:
        """The newest scores of a task, oldest first."""
        rows = self._all(
            "SELECT recording, label, version, right, probability, base_version, base_right, base_probability,"
            " scored_at FROM score WHERE task = ? ORDER BY id DESC LIMIT ?",
            *(task_id, limit),
        )
        return [
            Score(group, label, version, bool(right), share, base, None if hit is None else bool(hit), theirs, at)
            for group, label, version, right, share, base, hit, theirs, at in reversed(rows)
        ]

    # Outbox

    def queue(
        self, upload_id: str, kind: UploadKind, task_id: str, payload: bytes, params: dict[str, Any], now: float
    ) -> None:
        """Put an upload into the outbox; one that is there already (same id) stays as it is."""
        with self.transaction():
            self._connection.execute(
                "INSERT INTO outbox (upload_id, kind, task, params, payload, queued_at) VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (upload_id) DO NOTHING",
                (upload_id, kind, task_id, json.dumps(params, sort_keys=True), payload, now),
            )

    def withdraw(self, task_id: str, upload_id: str, now: float) -> int:
        """Take back what was shared: nothing of it that waits is sent, the cloud is told with the next sync, and no
        sample counts as shared. One that waits already is enough. Returns how many samples had been shared."""
        with self.transaction():
            self._settle("withdrawn before it was sent", now, contributions_of=task_id)
            if not self._one(
                "SELECT EXISTS (SELECT 1 FROM outbox WHERE settled_at IS NULL AND task = ? AND kind = 'withdrawal')",
                task_id,
            )[0]:
                self.queue(upload_id, "withdrawal", task_id, b"", {}, now)
            return self._connection.execute(
                "UPDATE sample SET shared_at = NULL, shared_until = NULL WHERE task = ? AND shared_at IS NOT NULL",
                (task_id,),
            ).rowcount

    def withdrawals(self, task_id: str) -> int:
        """The number that the cloud gave the last withdrawal; 0 before the first."""
        return int(self.meta_get(f"withdrawals {task_id}") or 0)

    def withdrawn(self, task_id: str, number: int) -> None:
        """The cloud has deleted what was shared before."""
        self.meta_set(f"withdrawals {task_id}", str(number))

    def outbox(self) -> Iterator[OutboxItem]:
        """What waits to be sent, in the order in which it was queued, whatever the clock said then. Each is read when
        its turn comes: all payloads would not fit into a small memory, and what was taken back meanwhile is passed
        over."""
        place = 0
        while row := self._one(
            "SELECT rowid, upload_id, kind, task, params, payload, queued_at FROM outbox"
            " WHERE rowid = (SELECT min(rowid) FROM outbox WHERE settled_at IS NULL AND rowid > ?)",
            place,
        ):
            place, upload_id, kind, task, params, payload, at = row
            yield OutboxItem(upload_id, kind, task, json.loads(params), payload, at)

    def shares(self, task_id: str) -> list[ShareRow]:
        """Everything that was consented to and taken back, oldest first."""
        rows = self._all(
            "SELECT kind, params, queued_at, settled_at, refusal FROM outbox"
            " WHERE task = ? AND kind <> 'report' ORDER BY rowid",
            task_id,
        )
        return [ShareRow(kind, json.loads(params), *times) for kind, params, *times in rows]

    def outbox_size(self) -> int:
        """How many uploads wait."""
        return int(self._one("SELECT count(*) FROM outbox WHERE settled_at IS NULL")[0])

    def sent(self, upload_id: str, now: float) -> None:
        """The cloud has it: drop the payload, keep a memory of the upload; of reports a bounded one."""
        self._settle(None, now, upload_id=upload_id)

    def refused(self, upload_id: str, reason: str, now: float) -> None:
        """The cloud will never take it: stop sending, keep the reason."""
        self._settle(reason, now, upload_id=upload_id)

    def forget_uploads(self, now: float) -> None:
        """Send nothing of what waits, and count no sample as shared: another cloud needs another consent."""
        with self.transaction():
            self._settle("the board left this cloud", now)
            self._connection.execute("UPDATE sample SET shared_at = NULL, shared_until = NULL")
            self._connection.execute("DELETE FROM meta WHERE key LIKE 'withdrawals %'")  # that cloud's count

    def _settle(
        self, refusal: str | None, now: float, *, upload_id: str | None = None, contributions_of: str | None = None
    ) -> None:
        """One upload that waits, or a task's contributions; neither named: all."""
        with self.transaction():
            self._connection.execute(
                "UPDATE outbox SET payload = NULL, settled_at = ?1, refusal = ?2 WHERE settled_at IS NULL"
                " AND (?3 IS NULL OR upload_id = ?3) AND (?4 IS NULL OR (task = ?4 AND kind = 'contribution'))",
                (now, refusal, upload_id, contributions_of),
            )
            self._connection.execute(
                "DELETE FROM outbox WHERE upload_id IN (SELECT upload_id FROM outbox WHERE settled_at IS NOT NULL"
                " AND kind = 'report' ORDER BY rowid DESC LIMIT -1 OFFSET ?)",
                (SETTLED_REPORTS_KEPT,),
            )

    # Runs

    def start_run(self, task_id: str, kind: str, now: float) -> int:
        """Note that a run began; its id. Without `finish_run` it counts as interrupted."""
        with self.transaction():
            self._connection.execute(
                "DELETE FROM run WHERE id <= (SELECT max(id) FROM run) - ? AND ended_at IS NOT NULL", (RUNS_KEPT,)
            )
            row = self._connection.execute(
                "INSERT INTO run (task, kind, started_at) VALUES (?, ?, ?)", (task_id, kind, now)
            )
            return int(row.lastrowid or 0)

    def finish_run(self, run_id: int, outcome: str, record: dict[str, Any], now: float) -> None:
        """Note how a run ended. record: anything JSON can hold."""
        text = json.dumps(record, sort_keys=True, allow_nan=False)
        with self.transaction():
            self._connection.execute(
                "UPDATE run SET ended_at = ?, outcome = ?, record = ? WHERE id = ?", (now, outcome, text, run_id)
            )

    def runs(self, task_id: str, limit: int) -> list[Run]:
        """The newest runs of a task, newest first."""
        return self._runs(
            "SELECT id, task, kind, started_at, ended_at, outcome, record FROM run"
            " WHERE task = ? ORDER BY id DESC LIMIT ?",
            *(task_id, limit),
        )

    def last_training(self, task_id: str) -> Run | None:
        """The newest training that ended by itself, whatever it ended with; one that found nothing to do is none."""
        found = self._runs(
            "SELECT id, task, kind, started_at, ended_at, outcome, record FROM run WHERE task = ? AND kind = 'train'"
            " AND outcome IS NOT NULL AND outcome != 'failed' AND json_extract(record, '$.skipped') IS NOT 1"
            " ORDER BY id DESC LIMIT 1",
            task_id,
        )
        return found[0] if found else None

    def interrupted_runs(self) -> list[Run]:
        """Runs without an end, oldest first. One that is running now is among them: its lock tells."""
        return self._runs(
            "SELECT id, task, kind, started_at, ended_at, outcome, record FROM run WHERE ended_at IS NULL ORDER BY id"
        )

    def _runs(self, sql: str, *values: object) -> list[Run]:
        return [
            Run(number, task, kind, started_at, ended_at, outcome, json.loads(record or "{}"))
            for number, task, kind, started_at, ended_at, outcome, record in self._all(sql, *values)
        ]

    # The ε ledger

    def remembered_answer(self, task_id: str, question: str) -> int | None:
        """The answer once given to a question: repeating it reveals nothing new, so it costs nothing."""
        row = self._one("SELECT answer FROM answer WHERE task = ? AND question = ?", task_id, question)
        return None if row is None else int(row[0])

    def answer_epsilon(self, task_id: str, question: str) -> float:
        """What the answer once given to a question cost."""
        return float(self._one("SELECT epsilon FROM answer WHERE task = ? AND question = ?", task_id, question)[0])

    def spend(self, task_id: str, question: str, epsilon: float, answer: int, budget: float, now: float) -> int:
        """Note a randomized answer and what it cost, before it is sent. Returns the answer to give: the one already
        remembered, if there is one (nothing is spent then).

        Raises ResourcesRefused, and notes nothing, if the task's budget does not allow it.
        """
        with self.transaction():
            known = self.remembered_answer(task_id, question)
            if known is not None:
                return known
            spent = self.epsilon_spent(task_id)
            if spent + epsilon > budget * (1 + 1e-9):  # tolerance: budgets are sums of epsilons, with rounding
                raise ResourcesRefused(
                    f"privacy budget of '{task_id}' used up: ε {spent:g} of {budget:g} spent, {epsilon:g} more asked",
                    hint="the board goes on with what it has; only the task's owner can publish a larger budget",
                )
            self._connection.execute(
                "INSERT INTO answer (task, question, answer, epsilon, answered_at) VALUES (?, ?, ?, ?, ?)",
                (task_id, question, answer, epsilon, now),
            )
            return answer

    def epsilon_spent(self, task_id: str) -> float:
        """The sum over all answers ever given for the task."""
        return float(self._one("SELECT coalesce(sum(epsilon), 0) FROM answer WHERE task = ?", task_id)[0])

    def note_update(self, task_id: str, upload_id: str, series: str, number: int, noise: float, now: float) -> None:
        """Note an update of a federated round before it is sent. noise: multiplier of the board's own, 0: none."""
        with self.transaction():
            self._connection.execute(
                "INSERT OR IGNORE INTO told_update (upload_id, task, series, number, noise, told_at)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (upload_id, task_id, series, number, noise, now),
            )

    def noise_of_updates(self) -> dict[str, list[float]]:
        """By task: the multiplier of each update's own noise, 0 where it went without."""
        found: dict[str, list[float]] = {}
        for task, noise in self._all("SELECT task, noise FROM told_update ORDER BY task, told_at, upload_id"):
            found.setdefault(task, []).append(noise)
        return found
