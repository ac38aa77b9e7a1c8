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
    """Tell the story of the model that serves: its base and the release that brought it, the packs, the recipe, the
    samples by digest, and why it was chosen."""
    from edgewire.decoding import plain

    here = invocation(ctx)
    task_id, models = _models(here, task)
    base, slot = _base(here, task_id), models.current()
    if slot is None:
        lines = ["the base model serves", *([_base_line(base)] if base else [])]
        emit({"task": task_id, "base_serves": True, "base_in_force": base}, lines, as_json=json)
        return
    lineage, signed = slot.lineage, models.signed_by_this_board(slot)
    made_on = {"version": lineage.base_version, "digest": lineage.base, "release": lineage.release}
    lines = [
        f"version {lineage.version} of '{task_id}': recipe {lineage.recipe} (asked for: {lineage.requested}),"
        f" seed {lineage.seed}",
        f"  chosen because: {lineage.reason}",
        _base_line(made_on),
        f"  trained on: {len(lineage.samples)} local samples and {len(lineage.kept)} contributors out of"
        f" {len(lineage.packs)} packs",
        f"  packs: {_digests(lineage.packs)}",
        f"  samples: {_digests(lineage.samples)}",
        f"  lineage signed by this board: {'yes' if signed else 'NO'}; files as installed: yes",
    ]
    if base and base["digest"] != lineage.base:
        lines.append(f"  since then base version {base['version']} came; edgectl train makes a model on it")
    told = {"task": task_id, "base_serves": False, "base_in_force": base, "signed": signed, **plain(lineage)}
    emit(told, lines, as_json=json)


def _base(here: Invocation, task_id: str) -> dict[str, Any] | None:
    """The base that is in force, None where none is known (any more)."""
    from edgectl import enrolment, tasks
    from edgectl.releases import overlay
    from edgewire.errors import EdgeError

    try:
        base = tasks.known_task(here.home, enrolment.load(here.home), task_id, here.clock()).base
    except EdgeError:
        return None
    release = overlay.release_of(here.home, task_id, base.onnx.digest)
    return {"version": base.version, "digest": base.onnx.digest, "release": release}


def _base_line(base: dict[str, Any]) -> str:
    brought = f"brought by release {base['release']}" if base["release"] else "named by the manifest"
    return f"  base: version {base['version']}, {base['digest'][:16]}, {brought}"


def _digests(names: tuple[str, ...]) -> str:
    shown = " ".join(name[:12] for name in names[:4])
    return f"{shown or 'none'}{f' and {len(names) - 4} more (--json has all)' if len(names) > 4 else ''}"


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
