"""edgectl sync"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from edgectl.commands import Invocation, JsonFlag, invocation
from edgectl.output import emit, plural, say

if TYPE_CHECKING:
    from edgectl.cloud import Cloud, HttpCloud
    from edgectl.enrolment import Enrolment
    from edgectl.rounds.joining import Outcome as Turn
    from edgectl.store import Store
    from edgectl.suits import Able
    from edgectl.sync import Outcome, TaskOutcome
    from edgectl.telemetry.reading import Sensors


def register(app: typer.Typer) -> None:
    app.command("sync")(sync)


def sync(
    ctx: typer.Context,
    pull_only: Annotated[bool, typer.Option("--pull-only", help="Only fetch; leave the outbox.")] = False,
    push_only: Annotated[bool, typer.Option("--push-only", help="Only send what waits in the outbox.")] = False,
    mode: Annotated[
        str | None,
        typer.Option(metavar="directory|bits|embedding", help="How to search the pool, if the task allows it."),
    ] = None,
    max_seconds: Annotated[
        int | None,
        typer.Option(min=1, help="Stop after that long; the next sync goes on. A federated round takes its own time."),
    ] = None,
    rounds: Annotated[
        bool,
        typer.Option("--rounds/--no-rounds", help="Take part in a federated round, if the setting rounds is on."),
    ] = True,
    json: JsonFlag = False,
) -> None:
    """Talk to the cloud: send what waits, fetch task, base model and samples that resemble yours.

    The only command, besides enroll, doctor and round join, that uses the network. Run it as often as you like: what
    is there already is not fetched again, and what was cut off goes on where it stopped.
    """
    from edgewire.errors import UsageError
    from edgewire.files import exclusive

    if pull_only and push_only:
        raise UsageError("--pull-only and --push-only exclude each other")
    here = invocation(ctx)
    here = Invocation(here.settings.override(mode=mode, sync_seconds=max_seconds), here.places, here.clock)
    with exclusive(here.home.ensure().lock("sync"), doing="syncing"):
        outcome = _sync(here, pull=not push_only, push=not pull_only)

    wanted = rounds and not (pull_only or push_only) and here.settings.flag("rounds")
    turns = _take_part(here) if wanted else []
    report = {**_report(outcome), **({"rounds": [vars(turn) for turn in turns]} if wanted else {})}
    emit(report, [*_lines(outcome), *map(_turn_line, turns)], as_json=json)
    if (failed := _failed(turns)) is not None:
        say(f"edgectl: {failed.task}: {failed.note}")
        raise typer.Exit(failed.code)


def _take_part(here: Invocation) -> list[Turn]:
    """In a federated round, after all else: it may take long."""
    from edgectl.rounds.now import take_part_now, until_stopped

    settings = here.with_profile()
    with until_stopped(here.home, settings, here.places) as (world, _):
        return take_part_now(here.home, settings, world)


def _failed(turns: list[Turn]) -> Turn | None:
    """The first turn that failed; what may go well later is no failure of the sync."""
    from edgectl.rounds.now import MAY_PASS

    return next((one for one in turns if one.code and one.code not in MAY_PASS), None)


def _sync(here: Invocation, *, pull: bool, push: bool) -> Outcome:
    import numpy as np

    from edgectl import enrolment, suits
    from edgectl.sync import Options, sync
    from edgectl.telemetry.reading import Sensors
    from edgewire.tasks import Mode

    known = enrolment.load(here.home)
    cloud, sensors = _cloud(here, known), Sensors(site=here.places.profiles)
    options = Options(
        mode=cast("Mode | None", here.settings.text("mode")),
        pull=pull,
        push=push,
        threads=here.threads,
        tell_state=_teller(here, sensors),
        profile=here.profile_id,
        read_state=sensors.read,
        reports=here.settings.flag("reports"),
        lacks=lambda task: suits.lacks(task, _able(here)),
        on_blob=_progress,
    )
    try:
        with here.store() as store:
            for task in store.sample_tasks():
                here.keep(store, task)
            return sync(here.home, known, store, cloud, options, clock=here.clock, rng=np.random.default_rng())
    finally:
        cloud.close()


def _able(here: Invocation) -> Able:
    import shutil
    from importlib.util import find_spec

    from edgectl.board import memory
    from edgectl.suits import Able

    free_mib = shutil.disk_usage(here.home.root).free / (1 << 20)
    return Able(here.profile_id, memory.usable_mib(), free_mib, find_spec("torch") is not None)


def _teller(here: Invocation, sensors: Sensors) -> Callable[[Store, Cloud], int] | None:
    """None unless the site's settings want this board's state told."""
    if not here.settings.flag("telemetry_share"):
        return None
    from edgectl.telemetry import share
    from edgectl.telemetry.ring import Ring

    return lambda store, cloud: share.tell(store, cloud, Ring(here.home.telemetry), sensors.read)


def _cloud(here: Invocation, known: Enrolment) -> HttpCloud:
    from edgectl.connecting import connect

    deadline = time.monotonic() + here.settings.whole("sync_seconds")
    return connect(here.home, known, here.settings, deadline=deadline)


def _progress(what: str, size: int) -> Callable[[int], None]:
    """A bar on a terminal for what is large enough to wait for; elsewhere nothing."""
    if not sys.stderr.isatty() or size < 1 << 20:
        return lambda received: None
    bar: Any = typer.progressbar(length=size, label=what, file=sys.stderr)
    bar.render_progress()
    return cast("Callable[[int], None]", bar.update)


def _report(outcome: Outcome) -> dict[str, Any]:
    """The outcome as JSON."""
    return {
        "changed": outcome.changed,
        "sent": outcome.sent,
        "refused": outcome.refused,
        "readings": outcome.readings,
        "bytes_up": outcome.bytes_up,
        "bytes_down": outcome.bytes_down,
        "tasks": [vars(task) for task in outcome.tasks],
    }


def _lines(outcome: Outcome) -> list[str]:
    lines = []
    if outcome.sent or outcome.refused:
        refused = f", {outcome.refused} refused by the cloud" if outcome.refused else ""
        lines.append(f"{plural(outcome.sent, 'upload')} sent{refused}")
    if outcome.readings:
        lines.append(f"{plural(outcome.readings, 'reading')} of this board's state told")
    for task in outcome.tasks:
        lines += _task_lines(task)
    return [*lines, f"{outcome.bytes_down} bytes received, {outcome.bytes_up} sent"]


def _turn_line(turn: Turn) -> str:
    where = f"round {turn.number}: " if turn.number else ""
    return f"{turn.task}: {where}{turn.state}{': ' if turn.note else ''}{turn.note}"


def _task_lines(task: TaskOutcome) -> list[str]:
    state = "updated" if task.changed else "nothing new"
    lines = [f"{task.task}: {state}; base version {task.base_version}"]
    if task.packs:
        lines.append(f"  {plural(task.packs, 'sample file')} at hand by {task.mode}; revealed: {task.revealed}")
    if task.note:
        lines.append(f"  {task.note}")
    return [*lines, *(f"  {line}" for line in task.releases)]
