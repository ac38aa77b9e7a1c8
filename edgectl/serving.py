"""Which model answers on this board: the personal one where there is one, else the base."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgectl.home import Home
from edgectl.models import Models
from edgewire.errors import UsageError
from edgewire.tasks import Task


@dataclass(frozen=True)
class Serving:
    """model: an ONNX file; version: of the personal model, None for the base. recipe: what made it."""

    task: Task
    model: Path
    version: int | None
    recipe: str


def serving(home: Home, task_id: str | None, now: float) -> Serving:
    """The model that serves. Needs neither the network nor, for a personal model, any check of signatures.

    Raises NotFound or NotEnrolled where not even a base model is there, CorruptFile, UsageError if several tasks are.
    """
    chosen = task_id or _only_task(home)
    if chosen is not None and (slot := Models(home, chosen).current()) is not None:
        return Serving(slot.lineage.task, slot.model, slot.lineage.version, slot.lineage.recipe)
    return base(home, chosen, now)


def base(home: Home, task_id: str | None, now: float) -> Serving:
    """The base model, checked against the signed manifest."""
    from edgectl import enrolment, tasks
    from edgectl.cache import Cache

    manifest = tasks.known_task(home, enrolment.load(home), task_id, now)
    cache = Cache(home, manifest.task.id)
    cache.read(manifest.base.onnx.digest)
    return Serving(manifest.task, cache.path(manifest.base.onnx.digest), None, "base")


def _only_task(home: Home) -> str | None:
    folder = home.root / "tasks"
    names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if len(names) > 1:
        raise UsageError(f"this board has several tasks: {', '.join(names)}", hint="name one with --task")
    return names[0] if names else None
