"""Long work, told where everybody can see it: what it does now, how far it is, how it ended.

A thread beside the work writes it down, so that the work never waits for the database, and so that work which is killed
shows: nobody says any more that it is alive.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa

from cloud_aug import db
from cloud_aug.cloud import Cloud
from edgewire.errors import EdgeError

Progress = Callable[[str, int, int], None]
State = Literal["running", "done", "failed", "lost"]

TOLD_EVERY_S = 2.0
ALIVE_EVERY_S = 15.0
LOST_AFTER_S = 60.0  # without a sign of life
KEPT = 500  # older ones are forgotten
DETAIL_LENGTH = 300

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """times: seconds since 1970. done, total: of the stage; detail: why it failed."""

    id: int
    kind: str
    task: str
    state: State
    stage: str
    done: int
    total: int
    started_at: float
    told_at: float
    ended_at: float | None
    detail: str

    @property
    def share(self) -> float:
        """How much of the stage is done, 0 to 1."""
        return min(1.0, self.done / self.total) if self.total > 0 else 0.0


@contextmanager
def told(cloud: Cloud, kind: str, task: str, on_progress: Progress) -> Iterator[Progress]:
    """A progress function that also tells the database; how the block ends is how the job ended."""
    teller = _Teller(cloud, kind, task)

    def tell_both(stage: str, done: int, total: int) -> None:
        teller.now = (stage, done, total)
        on_progress(stage, done, total)

    with teller:
        yield tell_both


class _Teller:
    """The row of one job. What cannot be written is left out: a job must not fail for being watched."""

    def __init__(self, cloud: Cloud, kind: str, task: str) -> None:
        self._database, self._kind, self._task = cloud.database, kind, task
        self.now = ("starting", 0, 0)
        self._id = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)

    def __enter__(self) -> None:
        self._begin(time.time())
        self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        self._over.set()
        self._thread.join()
        detail = (str(error) or type(error).__name__)[:DETAIL_LENGTH] if error is not None else ""
        if error is not None and not isinstance(error, EdgeError):
            detail = type(error).__name__  # the message may hold anything
        ended = {"outcome": "done" if error is None else "failed", "detail": detail, "ended_at": time.time()}
        self._write(**ended)

    def _tell(self) -> None:
        said, at = ("", 0, 0), time.monotonic()
        while not self._over.wait(TOLD_EVERY_S):
            if self.now != said or time.monotonic() - at > ALIVE_EVERY_S:
                said, at = self.now, time.monotonic()
                self._write()

    def _begin(self, now: float) -> None:
        row = {"kind": self._kind, "task": self._task, "stage": self.now[0], "done": 0, "total": 0, "detail": ""}
        column = db.jobs.c
        try:
            with self._database.writing() as connection:
                made = connection.execute(db.jobs.insert().values(**row, started_at=now, told_at=now))
                self._id = int((made.inserted_primary_key or (0,))[0])
                old = sa.select(column.id).order_by(column.id.desc()).offset(KEPT).limit(1).scalar_subquery()
                connection.execute(db.jobs.delete().where(column.id <= old))
        except (EdgeError, sa.exc.SQLAlchemyError) as error:
            _log.warning("the job is not written down: %s", type(error).__name__)

    def _write(self, **more: object) -> None:
        stage, done, total = self.now
        values = {"stage": stage[:40], "done": done, "total": total, "told_at": time.time(), **more}
        try:
            with self._database.writing(f"job {self._id}") as connection:
                connection.execute(db.jobs.update().where(db.jobs.c.id == self._id).values(values))
        except (EdgeError, sa.exc.SQLAlchemyError) as error:
            _log.warning("the job's progress is not written down: %s", type(error).__name__)


def newest(cloud: Cloud, *, limit: int, now: float) -> list[Job]:
    """The jobs that began last, the newest first."""
    query = sa.select(db.jobs).order_by(db.jobs.c.id.desc()).limit(limit)
    with cloud.database.reading() as connection:
        rows = connection.execute(query).all()
    return [
        Job(
            row.id,
            row.kind,
            row.task,
            row.outcome or ("lost" if now - row.told_at > LOST_AFTER_S else "running"),
            row.stage,
            row.done,
            row.total,
            row.started_at,
            row.told_at,
            row.ended_at,
            row.detail,
        )
        for row in rows
    ]
