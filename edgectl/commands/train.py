"""edgectl train"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgectl.commands import Invocation, JsonFlag, TaskFlag, invocation
from edgectl.output import emit, say
from edgectl.recipes import RECIPES

if TYPE_CHECKING:
    from edgectl.governor.start import Start
    from edgectl.retraining import Options, Outcome
    from edgectl.stopping import Stop
    from edgectl.store import Store
    from edgewire.messages import Manifest


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
    force: Annotated[bool, typer.Option("--force", help="Train although it would not pay; see below.")] = False,
    max_seconds: Annotated[
        int | None, typer.Option(min=1, help="Stop after that long, with the best model so far.")
    ] = None,
    max_joules: Annotated[
        int | None, typer.Option(min=1, help="Stop after that much energy of the whole board, with the best so far.")
    ] = None,
    max_temp_c: Annotated[
        int | None, typer.Option(min=30, max=120, help="Slow down or pause to stay below; default: the board's own.")
    ] = None,
    max_memory_mib: Annotated[
        int | None, typer.Option(min=1, help="Take no more memory than that; smaller ways to train are tried.")
    ] = None,
    simulate_board: Annotated[
        str | None, typer.Option(metavar="PROFILE", help="Heat, clock and energy of a made-up board of that kind.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Make a personal model from this board's samples and what sync brought. Uses no network.

    It trains only if that pays: a tenth more samples than the last time, a new label, drift, new packs or a new base,
    or samples that were deleted. Run it from a timer. The model that serves is replaced only on evidence that the new
    one is better; `edgectl model rollback` undoes it. A training that is cut off goes on the next time, with the same
    result. SIGTERM and Ctrl-C stop it after the step that it is at, with a checkpoint; a second one at once.
    """
    started = time.monotonic()
    from edgectl.stopping import Stop
    from edgewire.errors import UsageError
    from edgewire.files import exclusive

    if recipe not in RECIPES:
        raise UsageError(f"unknown recipe '{recipe}'", hint=f"there are: {', '.join(RECIPES)}")
    here = invocation(ctx)
    flags = {
        "device": device,
        "threads": threads,
        "train_seconds": max_seconds,
        "train_joules": max_joules,
        "train_temp_c": max_temp_c,
        "train_memory_mib": max_memory_mib,
        "profile": simulate_board,
    }
    here = Invocation(here.settings.override(**flags), here.places, here.clock)
    here, recipe = _by_policy(here, task, recipe)
    with exclusive(here.home.ensure().lock("train"), doing="training on this board"), Stop().listening() as stop:
        begin = _start(here, stop, simulated=simulate_board is not None, started=started)
        try:
            outcome = _train(here, task, recipe, seed, begin, stop, stage=stage, veto=veto, force=force)
        finally:
            begin.machine.close()
    emit(vars(outcome), _lines(outcome), as_json=json)


def _by_policy(here: Invocation, task: str | None, recipe: str) -> tuple[Invocation, str]:
    """What the policy of a release says, where neither a flag nor a setting of this site does."""
    from edgectl import enrolment, tasks
    from edgectl.releases import overlay

    known = enrolment.load(here.home)
    chosen = tasks.choose(known, here.task_id(task))
    policy = overlay.policy(here.home, known, chosen, epoch=tasks.stored_manifest(here.home, known, chosen).epoch)
    limits = {"train_seconds": policy.max_seconds, "train_joules": policy.max_joules}
    settings = here.settings.below("release", {name: value for name, value in limits.items() if value})
    return Invocation(settings, here.places, here.clock), policy.recipe if recipe == "auto" else recipe


def _train(
    here: Invocation,
    task: str | None,
    recipe: str,
    seed: int,
    begin: Start,
    stop: Stop,
    *,
    stage: bool,
    veto: bool,
    force: bool,
) -> Outcome:
    from edgectl import enrolment, tasks
    from edgectl.retraining import Options, seal_network

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
        budget=begin.budget,
        head_above=here.head_above,
        batch_rows=here.with_profile().whole("train_batch_rows"),
        stop=stop.check,
        on_event=say,
        on_progress=_fold_progress,
    )
    with here.store() as store:
        return _recorded(here, manifest, store, options, begin)


def _start(here: Invocation, stop: Stop, *, simulated: bool, started: float) -> Start:
    """The limits that count, and what watches them."""
    from edgectl.board import profile
    from edgectl.governor import start

    settings = here.with_profile()
    known = profile.load(here.profile_id, here.places.profiles)
    machine = (
        start.Machine.simulated(known)
        if simulated
        else start.Machine.real(started=started, sleep=stop.sleep, site=here.places.profiles)
    )
    return start.start(settings, known, machine)


def _recorded(
    here: Invocation, manifest: Manifest, store: Store, options: Options, begin: Start | None = None
) -> Outcome:
    """Train if it pays, keep a record of the run, and queue the report if both the owner and the task want one."""
    from importlib.util import find_spec

    from edgectl import reports, retraining
    from edgectl.board import memory
    from edgectl.budget import check_loadable

    if find_spec("torch") is None:  # told first: no sample that may come makes this board train
        raise ModuleNotFoundError("No module named 'torch'", name="torch")
    due = retraining.due(here.home, manifest, store, options, now=here.clock())
    if due.skipped is not None:
        return due.skipped
    check_loadable(memory.available_mib())
    from edgectl import training  # only now: it imports torch

    run = store.start_run(manifest.task.id, "train", here.clock())
    try:
        if begin is not None:
            options = replace(options, governor=begin.govern(options.decide))
        outcome = training.train(here.home, manifest, store, options, now=here.clock(), due=due.reason)
    except (Exception, KeyboardInterrupt) as error:
        store.finish_run(run, "failed", {"error": str(error), "events": options.events}, here.clock())
        raise
    # also of a run that ended with the base or the incumbent: only successes would flatter the method
    with store.transaction():
        store.finish_run(run, outcome.shipped, _record(outcome), here.clock())
        if here.settings.flag("reports") and manifest.task.privacy.reports:
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
    cut = [f"  cut short ({outcome.cut}); left out: {', '.join(outcome.omitted)}"] if outcome.cut else []
    if not outcome.changed:
        return [f"{outcome.task}: {outcome.shipped} stays; {outcome.reason}", *cut]
    gain = "" if outcome.gain is None else f", believed to gain {100 * outcome.gain:+.1f} points over the base"
    does = "is staged" if outcome.staged else "serves now"
    return [
        f"{outcome.task}: version {outcome.version} {does}: recipe {outcome.shipped}{gain}",
        f"  {outcome.local_samples} local samples; {outcome.kept} of {outcome.candidates} candidates kept"
        f" ({outcome.outside_samples} samples); {outcome.seconds:.1f} s",
        *cut,
    ]
