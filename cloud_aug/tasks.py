"""Tasks as published. Once samples or a base exist, what they depend on is fixed: boards train on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa

from cloud_aug import audit, db, writes
from cloud_aug.cloud import Cloud
from edgewire.decoding import decode, encode
from edgewire.errors import Conflict, InvalidMessage, NotFound
from edgewire.tasks import Task

_FIXED = ("input", "labels", "model")


@dataclass(frozen=True)
class TaskInfo:
    """One task with what exists for it; 0: none yet."""

    id: str
    title: str
    base_version: int
    publication: int
    boards: int


def read(raw: bytes) -> Task:
    """A task from a JSON file. Raises InvalidMessage, which says what does not fit."""
    task = decode(Task, raw, what="task")
    if problems := task.problems():
        raise InvalidMessage(f"task '{task.id}': {'; '.join(problems)}")
    return task


def publish(cloud: Cloud, task: Task, *, now: float) -> Literal["new", "changed", "same"]:
    """Publish a task, or change its title or privacy policy. Raises Conflict for a change of what samples depend on."""
    document = encode(task)
    with cloud.database.writing() as connection:
        old = _document(connection, task.id)
        if old == document:
            return "same"
        if old is not None and _in_use(connection, task.id):
            _refuse_changes(decode(Task, old, what="task"), task)
        writes.upsert(connection, db.tasks, {"id": task.id, "document": document, "published_at": now})
        audit.note(connection, at=now, actor=audit.SHELL, action="publish-task", subject=task.id)
    return "new" if old is None else "changed"


def get(connection: sa.Connection, task_id: str) -> Task:
    """Raises NotFound."""
    document = _document(connection, task_id)
    if document is None:
        raise NotFound(f"there is no task '{task_id}'", hint="see 'cloud-aug task list'")
    return decode(Task, document, what="task")


def load(cloud: Cloud, task_id: str) -> Task:
    """Raises NotFound."""
    with cloud.database.reading() as connection:
        return get(connection, task_id)


def ids(connection: sa.Connection) -> list[str]:
    """Every task, in order."""
    return list(connection.execute(sa.select(db.tasks.c.id).order_by(db.tasks.c.id)).scalars())


def list_all(cloud: Cloud) -> list[TaskInfo]:
    """Every task with its newest versions."""
    versions = {table: _newest_version(table) for table in (db.bases, db.publications)}
    boards = sa.select(sa.func.count()).where(db.grants.c.task == db.tasks.c.id).scalar_subquery()
    query = sa.select(db.tasks, versions[db.bases], versions[db.publications], boards).order_by(db.tasks.c.id)
    with cloud.database.reading() as connection:
        rows = connection.execute(query).all()
    return [
        TaskInfo(row[0], decode(Task, bytes(row[1]), what="task").title, row[3] or 0, row[4] or 0, row[5])
        for row in rows
    ]


def _newest_version(table: sa.Table) -> sa.ScalarSelect[int]:
    return sa.select(sa.func.max(table.c.version)).where(table.c.task == db.tasks.c.id).scalar_subquery()


def _document(connection: sa.Connection, task_id: str) -> bytes | None:
    document = connection.execute(sa.select(db.tasks.c.document).where(db.tasks.c.id == task_id)).scalar()
    return None if document is None else bytes(document)


def _in_use(connection: sa.Connection, task_id: str) -> bool:
    return any(
        connection.execute(sa.select(table.c.task).where(table.c.task == task_id).limit(1)).first() is not None
        for table in (db.contributors, db.bases)
    )


def _refuse_changes(old: Task, new: Task) -> None:
    for name in _FIXED:
        if getattr(old, name) != getattr(new, name):
            raise Conflict(
                f"task '{new.id}' has samples or a base model, so its {name} cannot change",
                hint="publish it under a new id",
            )
