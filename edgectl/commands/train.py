"""edgectl train"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgectl.commands import Invocation, JsonFlag, TaskFlag, invocation
from edgectl.output import emit, say

if TYPE_CHECKING:
    from edgectl.store import Store
    from edgectl.training import Options, Outcome
    from edgewire.messages import Manifest

RECIPES = ("auto", "base", "local", "random", "matched", "mpda")


def register(app: typer.Typer) -> None:
    app.command("train")(train)


def train(
    ctx: typer.Context,
    task: TaskFlag = None,
    recipe: Annotated[
        str, typer.Option(metavar="|".join(RECIPES), help="How to train; auto lets evidence choose.")
    ] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="The same seed and data give the same model.")] = 0,
    device: Annotated[str | None, typer.Option(metavar="cpu|cuda|auto", help="Where to train.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: all cores.")] = None,
    stage: Annotated[
        bool, typer.Option("--stage", help="Install it, but let `edgectl model commit` make it serve.")
    ] = False,
    veto: Annotated[bool, typer.Option("--veto/--no-veto", help="May evidence overrule --recipe?")] = True,
    force: Annotated[bool, typer.Option("--force", help="Train although nothing changed since the last time.")] = False,
    json: JsonFlag = False,
) -> None:
    """Make a personal model from this board's samples and what sync brought. Uses no network.

    The model that serves is replaced only on evidence that the new one is better; `edgectl model rollback` undoes it.
    """
    from edgewire.errors import UsageError
    from edgewire.files import exclusive

    if recipe not in RECIPES:
        raise UsageError(f"unknown recipe '{recipe}'", hint=f"there are: {', '.join(RECIPES)}")
    here = invocation(ctx)
    here = Invocation(here.settings.override(device=device, threads=threads), here.places, here.clock)
    with exclusive(here.home.ensure().lock("train"), doing="training on this board"):
        outcome = _train(here, task, recipe, seed, stage=stage, veto=veto, force=force)
    emit(vars(outcome), _lines(outcome), as_json=json)


def _train(
    here: Invocation, task: str | None, recipe: str, seed: int, *, stage: bool, veto: bool, force: bool
) -> Outcome:
    from edgectl import enrolment, tasks
    from edgectl.training import Options, seal_network

    seal_network()
    manifest = tasks.known_task(here.home, enrolment.load(here.home), here.task_id(task), here.clock())
    options = Options(
        recipe=recipe,
        seed=seed,
        device=here.settings.text("device") or "auto",
        threads=here.threads,
        stage=stage,
        veto=veto,
        force=force,
        on_event=say,
        on_progress=_fold_progress,
    )
    with here.store() as store:
        return _recorded(here, manifest, store, options)


def _recorded(here: Invocation, manifest: Manifest, store: Store, options: Options) -> Outcome:
    """Run, keep a record of the run, and queue the report if both the owner and the task want one."""
    from edgectl import reports, training

    run = store.start_run(manifest.task.id, "train", here.clock())
    try:
        outcome = training.train(here.home, manifest, store, options, now=here.clock())
    except Exception as error:
        store.finish_run(run, "failed", {"error": str(error)}, here.clock())
        raise
    # also of a run that ended with the base or the incumbent: only successes would flatter the method
    wanted = here.settings.flag("reports") and manifest.task.privacy.reports and not outcome.skipped
    with store.transaction():
        store.finish_run(run, outcome.shipped, _record(outcome), here.clock())
        if wanted:
            reports.queue(store, manifest, outcome, now=here.clock())
    return outcome


def _record(outcome: Outcome) -> dict[str, Any]:
    return dict(vars(outcome))


def _fold_progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        sys.stderr.write(f"\revidence: fold {done} of {total}{end}")
        sys.stderr.flush()


def _lines(outcome: Outcome) -> list[str]:
    if not outcome.changed:
        return [f"{outcome.task}: {outcome.shipped} stays; {outcome.reason}"]
    gain = "" if outcome.gain is None else f", believed to gain {100 * outcome.gain:+.1f} points over the base"
    does = "is staged" if outcome.staged else "serves now"
    return [
        f"{outcome.task}: version {outcome.version} {does}: recipe {outcome.shipped}{gain}",
        f"  {outcome.local_samples} local samples; {outcome.kept} of {outcome.candidates} candidates kept"
        f" ({outcome.outside_samples} samples); {outcome.seconds:.1f} s",
    ]
