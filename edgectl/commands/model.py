"""edgectl model list | show | commit | rollback"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from edgectl.commands import Invocation, JsonFlag, TaskFlag, invocation
from edgectl.output import emit, table

if TYPE_CHECKING:
    from edgectl.models import Models, Slot

group = typer.Typer(no_args_is_help=True, help="Personal models of this board.", rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    app.add_typer(group, name="model")


def _models(here: Invocation, flag: str | None) -> tuple[str, Models]:
    from edgectl import enrolment, tasks
    from edgectl.models import Models

    known, named = enrolment.load(here.home), here.task_id(flag)
    kept = [named] if named and Models(here.home, named).slots() else []
    task_id = tasks.choose_kept(known, named, kept)
    return task_id, Models(here.home, task_id)


def _brief(slot: Slot) -> dict[str, Any]:
    lineage = slot.lineage
    return {
        "version": lineage.version,
        "state": slot.state,
        "recipe": lineage.recipe,
        "gain": lineage.gain,
        "samples": len(lineage.samples),
        "kept": len(lineage.kept),
        "base_version": lineage.base_version,
        "created_at": lineage.created_at,
    }


@group.command("list")
def list_models(ctx: typer.Context, task: TaskFlag = None, json: JsonFlag = False) -> None:
    """Print the installed models: which serves, which is staged, which is the previous one."""
    from edgectl import periods

    task_id, models = _models(invocation(ctx), task)
    rows = [_brief(slot) for slot in models.slots()]
    base_serves = all(row["state"] != "current" for row in rows)
    cells = [
        (row["version"], row["state"], row["recipe"], row["samples"], row["kept"], periods.day(row["created_at"]))
        for row in rows
    ]
    lines = table(("version", "state", "recipe", "samples", "kept", "made"), cells) if cells else []
    if base_serves:
        lines.append("the base model serves")
    emit({"task": task_id, "base_serves": base_serves, "models": rows}, lines, as_json=json)


@group.command()
def show(ctx: typer.Context, task: TaskFlag = None, json: JsonFlag = False) -> None:
    """Tell where the model that serves comes from: base, samples, packs, recipe, and why it was chosen."""
    from edgewire.decoding import plain

    here = invocation(ctx)
    task_id, models = _models(here, task)
    slot = models.current()
    if slot is None:
        emit({"task": task_id, "base_serves": True}, ["the base model serves"], as_json=json)
        return
    lineage, signed = slot.lineage, models.signed_by_this_board(slot)
    lines = [
        f"version {lineage.version} of '{task_id}': recipe {lineage.recipe} (asked for: {lineage.requested}),"
        f" seed {lineage.seed}",
        f"  chosen because: {lineage.reason}",
        f"  base: version {lineage.base_version}, {lineage.base[:16]}",
        f"  trained on: {len(lineage.samples)} local samples and {len(lineage.kept)} contributors out of"
        f" {len(lineage.packs)} packs",
        f"  lineage signed by this board: {'yes' if signed else 'NO'}; files as installed: yes",
    ]
    emit({"task": task_id, "base_serves": False, "signed": signed, **plain(lineage)}, lines, as_json=json)


@group.command()
def commit(ctx: typer.Context, task: TaskFlag = None, json: JsonFlag = False) -> None:
    """Let the staged model serve from now on."""
    from edgectl.serving import check_golden
    from edgewire.files import exclusive

    here = invocation(ctx)
    task_id, models = _models(here, task)
    with exclusive(here.home.lock("train"), doing="training on this board"):
        slot = models.commit_staged(check=check_golden)
    report = {"changed": True, "task": task_id, "version": slot.lineage.version}
    emit(report, [f"version {slot.lineage.version} of '{task_id}' serves now"], as_json=json)


@group.command()
def rollback(ctx: typer.Context, task: TaskFlag = None, json: JsonFlag = False) -> None:
    """Go back to the previous model, or to the base model where there is none."""
    from edgewire.files import exclusive

    here = invocation(ctx)
    task_id, models = _models(here, task)
    with exclusive(here.home.lock("train"), doing="training on this board"):
        slot = models.rollback()
    what = f"version {slot.lineage.version}" if slot else "the base model"
    report = {"changed": True, "task": task_id, "version": slot.lineage.version if slot else None}
    emit(report, [f"{what} of '{task_id}' serves again"], as_json=json)
