"""edgectl round join | train"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from edgectl.commands import Invocation, JsonFlag, TaskFlag, invocation
from edgectl.output import emit, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgectl.enrolment import Enrolment
    from edgectl.governor.governor import Governor
    from edgectl.rounds.joining import Outcome
    from edgectl.rounds.training import Trained
    from edgectl.stopping import Stop
    from edgewire.messages import Manifest

group = typer.Typer(no_args_is_help=True, help="Federated rounds, where you want them.", rich_markup_mode=None)

For = Annotated[
    int, typer.Option("--for", min=0, metavar="SECONDS", help="Go on asking for that long; 0: once, one turn.")
]
Turns = Annotated[
    bool, typer.Option("--turns", hidden=True, help="Train for each task named on standard input, a line each.")
]
KEPT_S = 60.0  # a pause for longer than that is worth the time that starting to train takes


def register(app: typer.Typer) -> None:
    app.add_typer(group, name="round")


@group.command()
def join(ctx: typer.Context, task: TaskFlag = None, seconds: For = 0, json: JsonFlag = False) -> None:
    """Take part in federated rounds now, if this board is invited, cool and idle.

    Only after `edgectl config set rounds true`, and only for tasks that allow it. What training changed in the weights
    leaves the board, never a sample; docs/privacy.md says what that reveals. Cut off anywhere, the next one goes on.
    `edgectl sync` and `edgectl agent` do this by themselves. What goes wrong in one task, or while the cloud cannot be
    reached, does not end it; the exit code is that of the first task whose last turn failed.
    """
    from edgectl.rounds.now import take_part_now, until_stopped
    from edgectl.rounds.staying import stay
    from edgewire.errors import NothingToDo

    here = invocation(ctx)
    settings = here.with_profile()
    if not settings.flag("rounds"):
        raise NothingToDo("this board takes no part in federated rounds", hint="edgectl config set rounds true")
    with until_stopped(here.home, settings, here.places) as (world, stop):

        def pause(for_s: float) -> bool:
            if for_s > KEPT_S:
                world.let_go()
            return stop.wait(for_s)

        stayed = stay(
            lambda due: take_part_now(
                here.home, settings, world, task=here.task_id(task), due=due, anyway=seconds == 0
            ),
            until=time.monotonic() + seconds,
            clock=time.monotonic,
            pause=pause,
            tell=lambda one: say(_line(one)),
        )
    wait_s = stayed.wait_s(time.monotonic()) if stayed.next_at else 0.0  # no task, or none any more
    changed = any(one.state == "sent" or one.earlier for one in stayed.turns)
    report = {"changed": changed, "wait_s": wait_s, "turns": [vars(one) for one in stayed.turns]}
    emit(report, _lines(list(stayed.last.values())), as_json=json)
    if (failed := stayed.failed) is not None:
        say(f"edgectl: {failed.task}: {failed.note}")
        raise typer.Exit(failed.code)


@group.command()
def train(ctx: typer.Context, task: TaskFlag = None, turns: Turns = False, json: JsonFlag = False) -> None:
    """Train for the round that waits here, within this board's budget, and keep the update. Uses no network.

    `edgectl round join` runs it.
    """
    started = time.monotonic()
    from edgectl.retraining import seal_network
    from edgectl.rounds.trainer import only_answers, serve
    from edgectl.stopping import Stop

    here = invocation(ctx)
    seal_network()
    with Stop().listening() as stop:
        if turns:
            serve(sys.stdin, only_answers(), lambda name: vars(_train(here, name, stop, time.monotonic())))
            return
        done = _train(here, task, stop, started)
    if not done.series:
        emit(vars(done), [f"{done.task}: found which rows of its tables {done.samples} samples touch"], as_json=json)
        return
    line = f"{done.task}: update for round {done.number} of series {done.series}: {done.samples} samples"
    emit(vars(done), [line], as_json=json)


def _train(here: Invocation, task: str | None, stop: Stop, started: float) -> Trained:
    from edgectl import enrolment, tasks
    from edgectl.board import memory, profile
    from edgectl.budget import check_loadable
    from edgectl.governor import start
    from edgewire.files import exclusive

    with exclusive(here.home.ensure().lock("train"), doing="training on this board"):
        known = enrolment.load(here.home)
        manifest = tasks.known_task(here.home, known, here.task_id(task), here.clock())
        machine = start.Machine.real(started=started, sleep=stop.sleep, site=here.places.profiles)
        begin = start.start(here.with_profile(), profile.load(here.profile_id, here.places.profiles), machine)
        if "torch" not in sys.modules:
            check_loadable(memory.available_mib())
        try:
            governor = begin.govern(lambda kind, line, **told: say(line))
            # the sensors were opened with this turn, so what they counted is its own
            shares = here.settings.flag("telemetry_share")
            energy_j = (lambda: machine.read().energy_j) if shares else lambda: None
            return _governed(here, known, manifest, governor, stop, energy_j)
        finally:
            machine.close()


def _governed(
    here: Invocation,
    known: Enrolment,
    manifest: Manifest,
    governor: Governor,
    stop: Stop,
    energy_j: Callable[[], float | None],
) -> Trained:
    """The training as a run in the board's record."""
    from edgectl.rounds import training  # only now: it imports torch

    def on_step() -> None:
        stop.check()
        governor.step()

    with here.store() as store:
        run = store.start_run(manifest.task.id, "round", here.clock())
        try:
            done = training.train(
                here.home, known, manifest, store, threads=here.threads, on_step=on_step, energy_j=energy_j
            )
        except (Exception, KeyboardInterrupt) as error:
            store.finish_run(run, "failed", {"error": str(error)}, here.clock())
            raise
        store.finish_run(run, "update made" if done.series else "rows found", dict(vars(done)), here.clock())
    return done


def _lines(made: list[Outcome]) -> list[str]:
    if not made:
        return ["no task of this board has samples here and allows federated rounds (edgectl sync; edgectl data add)"]
    return [_line(one) for one in made]


def _line(one: Outcome) -> str:
    earlier = "an update made earlier was sent; " if one.earlier else ""
    if one.state == "waiting":
        return f"{one.task}: {earlier}{one.note}; ask again in {one.wait_s:.0f} s"
    if one.state == "failed":
        return f"{one.task}: failed: {one.note}"
    words = {"sent": "update sent", "late": "too late", "refused": "update refused", "given-up": "given up"}[one.state]
    note = f" ({one.note})" if one.note and one.state != "sent" else ""
    return f"{one.task}: {earlier}round {one.number} of series {one.series}: {words}{note}"
