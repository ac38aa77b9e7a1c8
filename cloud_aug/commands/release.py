"""`cloud-aug release`: let a base or a policy reach boards wave by wave, watch it, stop it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from cloud_aug.commands.options import Data, Json, TaskOption, moment, opened, span_s
from cloud_aug.output import show, table
from edgewire.errors import UsageError

if TYPE_CHECKING:
    from cloud_aug.cloud import Cloud
    from cloud_aug.releases.plan import Wave
    from cloud_aug.releases.status import ReleaseStatus

app = typer.Typer(no_args_is_help=True, help="Releases of bases and policies to boards, in waves.")

Release = Annotated[str, typer.Argument(help="The release's id.")]
Revision = Annotated[
    int | None,
    typer.Option("--revision", help="Refuse if it has changed since this revision, which 'release status' tells."),
]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is kept and shown.")]


@app.command()
def create(
    task: TaskOption,
    base: Annotated[int | None, typer.Option("--base", help="Version of a published base that is held back.")] = None,
    recipe: Annotated[str | None, typer.Option("--recipe", help="A policy: how boards train.")] = None,
    max_seconds: Annotated[
        int, typer.Option("--max-seconds", min=0, help="A policy: time that a training may take; 0: any.")
    ] = 0,
    max_joules: Annotated[
        int, typer.Option("--max-joules", min=0, help="A policy: energy that a training may take; 0: any.")
    ] = 0,
    profile: Annotated[
        list[str] | None, typer.Option("--profile", help="Only boards of this profile; again for more.")
    ] = None,
    group: Annotated[
        list[str] | None, typer.Option("--group", help="Only boards of this group; again for more.")
    ] = None,
    canary: Annotated[
        list[str] | None, typer.Option("--canary", help="A board of the first wave (id or name); again for more.")
    ] = None,
    minimum: Annotated[str, typer.Option("--min-edgectl", help="The oldest edgectl that may take it.")] = "0",
    waves: Annotated[
        str, typer.Option("--waves", help="Shares of the boards that have been asked after each wave.")
    ] = "1%,10%,100%",
    soak: Annotated[str, typer.Option("--soak", help="How long each wave is watched at least.")] = "1h",
    most_failures: Annotated[
        float, typer.Option("--max-failures", min=0, max=100, help="Per cent of a wave's boards that may fail.")
    ] = 5.0,
    least_told: Annotated[
        float,
        typer.Option(
            "--quorum", min=0.001, max=100, help="Per cent of a wave's boards that must have told how it went."
        ),
    ] = 50.0,
    max_memory_mib: Annotated[
        int, typer.Option("--max-memory-mib", min=1, help="What the model may take on a board.")
    ] = 512,
    max_slowdown: Annotated[
        float,
        typer.Option("--max-slowdown", min=1, help="How many times as long as what serves it may take to answer."),
    ] = 1.5,
    valid_for: Annotated[str, typer.Option("--valid-for", help="How long a signed order may be carried out.")] = "7d",
    note: Annotated[str, typer.Option("--note", help="What it is for; it is kept and shown.")] = "",
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Prepare a release; no board hears of it before `release start`."""
    from cloud_aug.releases import steering
    from cloud_aug.releases.plan import Selection
    from edgewire.releases import Limits, Policy

    cloud = opened(data)
    wanted = recipe is not None or max_seconds or max_joules
    selection = Selection(tuple(profile or ()), tuple(group or ()), minimum, _board_ids(cloud, canary or []))
    draft = steering.Draft(
        base=base,
        policy=Policy(recipe or "auto", max_seconds, max_joules) if wanted else None,
        selection=selection,
        waves=_waves(waves, soak, most_failures, least_told),
        limits=Limits(latency_ratio=max_slowdown, memory_mib=max_memory_mib),
        order_s=span_s(valid_for),
        note=note,
    )
    _show(steering.create(cloud, task, draft, now=time.time()), as_json=as_json)


@app.command()
def start(release: Release, revision: Revision = None, data: Data = None, as_json: Json = False) -> None:
    """Offer it to the first wave. The next ones follow by themselves, unless one fails."""
    from cloud_aug.releases import steering

    _show(steering.start(opened(data), release, now=time.time(), revision=revision), as_json=as_json)


@app.command()
def pause(
    release: Release, reason: Reason = "", revision: Revision = None, data: Data = None, as_json: Json = False
) -> None:
    """Offer it to nobody for now; who runs it goes on running it."""
    from cloud_aug.releases import steering

    _show(steering.pause(opened(data), release, now=time.time(), revision=revision, reason=reason), as_json=as_json)


@app.command()
def resume(release: Release, revision: Revision = None, data: Data = None, as_json: Json = False) -> None:
    """Go on where it was paused."""
    from cloud_aug.releases import steering

    _show(steering.resume(opened(data), release, now=time.time(), revision=revision), as_json=as_json)


@app.command()
def abort(
    release: Release, reason: Reason = "", revision: Revision = None, data: Data = None, as_json: Json = False
) -> None:
    """End it and call it back from the boards that run it."""
    from cloud_aug.releases import steering

    _show(steering.abort(opened(data), release, now=time.time(), revision=revision, reason=reason), as_json=as_json)


@app.command("status")
def status_of(
    release: Release,
    boards: Annotated[bool, typer.Option("--boards", help="Also the boards that refused it or went back.")] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Show how far it came, wave by wave."""
    from cloud_aug.releases import status, waves

    cloud = opened(data)
    waves.advance_all(cloud, now=time.time())
    found = status.find(cloud, release)
    trouble = status.boards(cloud, release, states=("failed", "reverted")) if boards else []
    rows: list[tuple[object, ...]] = [
        (one.board, one.name, one.wave + 1, one.state, " ".join(check.name for check in one.checks if not check.passed))
        for one in trouble
    ]
    lines = [_text(found), *([table(rows, ("board", "name", "wave", "state", "failed checks"))] if rows else [])]
    show({"release": found, "boards": trouble}, "\n".join(lines), as_json=as_json)


@app.command("list")
def list_releases(
    task: Annotated[str | None, typer.Option("--task", help="Only this task's.")] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """List every release, newest first."""
    from cloud_aug.releases import status, waves

    cloud = opened(data)
    waves.advance_all(cloud, now=time.time())
    found = status.list_all(cloud, task=task)
    rows: list[tuple[object, ...]] = [
        (
            one.id,
            one.task,
            one.what,
            one.state,
            f"{one.wave + 1} of {one.waves}",
            one.counts.committed,
            one.counts.failed,
            one.counts.boards,
            moment(one.created_at),
        )
        for one in found
    ]
    header = ("release", "task", "what", "state", "wave", "run it", "refused", "boards", "created")
    show({"releases": found}, table(rows, header) if rows else "no releases yet", as_json=as_json)


def _show(found: ReleaseStatus, *, as_json: bool) -> None:
    show({"release": found}, _text(found), as_json=as_json)


def _text(found: ReleaseStatus) -> str:
    info = found.info
    why = f": {info.reason}" if info.reason else ""
    head = f"release {info.id} of '{info.task}' ({info.what}) is {info.state}{why}; revision {info.revision}"
    rows: list[tuple[object, ...]] = [
        (
            f"{wave.number + 1}{' canaries' if wave.canaries else ''}",
            *(
                getattr(wave.counts, name)
                for name in ("boards", "waiting", "offered", "committed", "failed", "reverted")
            ),
            f"{100 * wave.rules.most_failures:g} %",
        )
        for wave in found.waves
    ]
    lines = [head]
    if rows:
        header = ("wave", "boards", "waiting", "offered", "run it", "refused", "went back", "may fail")
        lines.append(table(rows, header))
    if info.state == "draft":
        lines.append(f"start it with: cloud-aug release start {info.id}")
    elif found.soaked_at is not None:
        lines.append(f"wave {info.wave + 1} is watched until {moment(found.soaked_at)} UTC at least")
    return "\n".join(lines)


def _waves(shares: str, soak: str, most_failures: float, least_told: float) -> tuple[Wave, ...]:
    from cloud_aug.releases.plan import Wave

    try:
        numbers = [float(part.strip().removesuffix("%")) / 100 for part in shares.split(",")]
    except ValueError:
        raise UsageError(f"'{shares}' is no list of shares", hint="write for example --waves 1%,10%,100%") from None
    if not all(0 < share <= 1 for share in numbers):
        raise UsageError("a wave's share lies above 0 % and up to 100 %", hint="write for example --waves 1%,10%,100%")
    return tuple(Wave(share, span_s(soak), most_failures / 100, least_told / 100) for share in numbers)


def _board_ids(cloud: Cloud, names: list[str]) -> tuple[str, ...]:
    from cloud_aug import boards

    with cloud.database.reading() as connection:
        return tuple(sorted({boards.find(connection, name) for name in names}))
