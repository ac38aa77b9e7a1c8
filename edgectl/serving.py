"""Which model answers on this board: the personal one where there is one, else the base."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgectl.home import Home
from edgectl.models import GOLDEN, Models, Slot
from edgewire.errors import IntegrityError, UsageError
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


def check_golden(slot: Slot) -> None:
    """Raise IntegrityError unless this onnxruntime answers the golden inputs as it did when the model was made: the
    library may have been replaced since."""
    from edgectl.inference import Predictor
    from edgewire import golden

    x, expected = golden.from_bytes((slot.folder / GOLDEN).read_bytes())
    found, _ = Predictor(slot.model).run(x)
    if not golden.agree(found, expected):
        raise IntegrityError(
            f"version {slot.lineage.version} no longer answers as when it was made", hint="edgectl train --force"
        )


def _only_task(home: Home) -> str | None:
    found = [*(home.root / "tasks").glob("*/manifest.json"), *(home.root / "models").glob("*/current")]
    names = sorted({path.parent.name for path in found})
    if len(names) > 1:
        raise UsageError(f"this board has several tasks: {', '.join(names)}", hint="name one with --task")
    return names[0] if names else None
