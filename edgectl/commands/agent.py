"""edgectl agent"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgectl import config
from edgectl.commands import Invocation, invocation

if TYPE_CHECKING:
    from edgectl.agent.events import Events
    from edgectl.agent.loop import Rules, World
    from edgectl.stopping import Stop
    from edgectl.telemetry.reading import Reading, Sensors


def register(app: typer.Typer) -> None:
    app.command("agent")(agent)


def agent(
    ctx: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="One round of everything, then end: for cron.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print a line of JSON per event, instead of talk.")] = False,
) -> None:
    """Look after this board: add what is dropped into the watched folder, sync, train when it pays, mind its health.

    Files go to done/ when they are added, to refused/ beside a reason when they never can be. It trains while the board
    is cool and idle. What fails is tried again later; it ends only at SIGTERM or Ctrl-C, or where nothing heals: wrong
    settings (2), an unsupported board (7), not enrolled (10), refused by the cloud (11). One agent at a time (9).
    With --once the exit code is that of the first thing that failed.
    """
    from edgectl.agent.events import Events
    from edgectl.agent.loop import Agent
    from edgectl.agent.notify import to_manager
    from edgectl.stopping import Stop
    from edgectl.telemetry.reading import Sensors
    from edgewire.errors import EdgeError
    from edgewire.files import exclusive

    here = invocation(ctx)
    notify = to_manager(os.environ)
    events = Events(notify, here.clock, as_json=json)
    code = 0
    with (
        exclusive(here.home.ensure().lock("agent"), doing="running the agent of this board"),
        Stop().listening() as stop,
        Sensors(site=here.places.profiles) as sensors,
        Sensors(site=here.places.profiles) as of_health,
    ):
        looking_after = Agent(_rules(here), _world(here, stop, sensors, of_health, events))
        try:
            _tasks(here)
            notify("READY=1")
            code = looking_after.once() if once else looking_after.forever()
        except EdgeError as error:
            events.tell("end", f"the agent ends: {error.message}", code=error.exit_code)
            raise
        finally:
            notify("STOPPING=1")
    if code:
        raise typer.Exit(code)


def _rules(here: Invocation) -> Rules:
    from edgectl.agent.loop import Rules

    settings = here.with_profile()
    folder = settings.text("agent_watch_folder")
    return Rules(
        watch=here.home.inbox if folder is None else Path(folder).expanduser(),
        watch_s=settings.whole("agent_watch_seconds"),
        sync_s=settings.whole("agent_sync_seconds"),
        sync_limit_s=settings.whole("sync_seconds"),
        train_s=0 if settings.text("train_scope") == "none" else settings.whole("agent_train_seconds"),
        rounds_s=settings.whole("agent_rounds_seconds") if settings.flag("rounds") else 0,
        idle_load=settings.whole("agent_idle_percent") / 100,
        health_s=settings.whole("agent_health_seconds"),
    )


def _tasks(here: Invocation) -> Sequence[str]:
    """The tasks of this board. Raises UsageError if the settings are wrong by now, NotEnrolled, CorruptFile."""
    from edgectl.glance import glance
    from edgewire.errors import NotEnrolled

    chosen = config.load(here.places).text("task")
    known = glance(here.home)
    if known is None:
        raise NotEnrolled("this board is not enrolled", hint="edgectl enroll FILE")
    granted: list[str] = known["granted"]
    return [chosen] if chosen is not None else granted


def _all_tasks(here: Invocation) -> set[str]:
    """Also those that this board was granted once, or that the setting `task` leaves out."""
    from edgectl.glance import glance

    synced = here.home.task("any").parent
    return {*(glance(here.home) or {"granted": []})["granted"], *(path.name for path in synced.glob("*"))}


def _world(here: Invocation, stop: Stop, sensors: Sensors, of_health: Sensors, events: Events) -> World:
    """of_health: sensors of their own, so that a look before a training takes no event away from the next look at the
    board's health."""
    import time
    from random import Random

    from edgectl.agent.children import Children
    from edgectl.agent.loop import World
    from edgectl.governor.start import heat_limit
    from edgectl.telemetry.watching import settled, since_the_last

    settings = here.with_profile()

    def nap(seconds: float) -> None:
        stop.wait(seconds)

    return World(
        tasks=lambda: _tasks(here),
        all_tasks=lambda: _all_tasks(here),
        run=Children(here.home.root.absolute(), lambda: stop.asked).run,
        read=lambda: settled(sensors, sleep=nap),
        health=since_the_last(of_health),
        heat_limit_c=lambda reading: heat_limit(settings, reading).limit_c,
        keep=lambda reading: _keep(here, reading),
        free_mib=lambda: shutil.disk_usage(here.home.root).free / (1 << 20),
        clock=time.monotonic,
        wait=stop.wait,
        tell=events.tell,
        rng=Random(),  # noqa: S311 -- for jitter
    )


def _keep(here: Invocation, reading: Reading) -> str | None:
    """Put a reading into the ring, unless `edgectl telemetry log` does so already; why it could not be, or None."""
    from edgectl.telemetry.ring import Ring
    from edgewire.errors import Busy
    from edgewire.files import exclusive

    try:
        with exclusive(here.home.lock("telemetry"), doing="logging telemetry"):
            ring = Ring(here.home.telemetry, limit_bytes=here.settings.whole("telemetry_log_mib") << 20)
            return ring.append(reading.plain())
    except Busy:
        return None
    except OSError as error:  # not even the lock can be opened: read-only, or of another user
        return f"readings are not kept: {os.strerror(error.errno or 0)} ({error.filename})"
