"""`cloud-aug boards`: let boards in, see them, shut them out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from cloud_aug.commands.options import Data, Json, TaskOption, moment, opened, span_s
from cloud_aug.output import show, table

app = typer.Typer(no_args_is_help=True, help="Boards and what they may use.")

Tasks = Annotated[list[str], typer.Option("--task", help="A task that the board may use; again for more.")]
Out = Annotated[Path | None, typer.Option("--out", help="Write the enrolment file here, mode 0600. [default: stdout]")]
ValidFor = Annotated[str, typer.Option("--valid-for", help="How long the token may be used.")]
Board = Annotated[str, typer.Argument(help="The board's id, or its name.")]


@app.command()
def token(task: Tasks, out: Out = None, valid_for: ValidFor = "24h", data: Data = None) -> None:
    """Make an enrolment file for one board: a one-time secret, and what the board shall trust."""
    from cloud_aug import auth, tasks
    from edgewire.decoding import encode
    from edgewire.files import write_atomic
    from edgewire.messages import EnrolmentFile

    cloud, valid_for_s = opened(data), span_s(valid_for)
    wanted = sorted({tasks.load(cloud, name).id for name in task})
    trust = cloud.trust()
    secret = auth.make_enrolment_token(cloud, wanted, now=time.time(), valid_for_s=valid_for_s)
    content = encode(EnrolmentFile(cloud.settings.url, secret, trust.authorities, trust.roots)) + b"\n"
    if out is None:
        typer.echo(content.decode(), nl=False)
    else:
        write_atomic(out, content, mode=0o600)
        typer.echo(f"wrote {out}; on the board: edgectl enroll {out.name}", err=True)


@app.command("list")
def list_boards(data: Data = None, as_json: Json = False) -> None:
    """List every board."""
    from cloud_aug import boards

    found = boards.list_all(opened(data))
    rows: list[tuple[object, ...]] = [
        (b.board, b.name, b.profile, " ".join(b.tasks), moment(b.last_seen_at), moment(b.revoked_at)) for b in found
    ]
    text = table(rows, ("board", "name", "profile", "tasks", "last seen", "revoked")) if rows else "no boards yet"
    show({"boards": found}, text, as_json=as_json)


@app.command()
def grant(board: Board, task: TaskOption, data: Data = None, as_json: Json = False) -> None:
    """Let a board use one more task."""
    from cloud_aug import boards

    changed = boards.grant(opened(data), board, task, now=time.time())
    text = f"{board} {'may use' if changed else 'could already use'} '{task}'"
    show({"board": board, "task": task, "changed": changed}, text, as_json=as_json)


@app.command()
def group(
    board: Board,
    groups: Annotated[list[str] | None, typer.Argument(help="Its groups from now on; none: it leaves all.")] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Put a board into groups, by which releases select boards."""
    from cloud_aug import boards

    named = sorted(set(groups or ()))
    identity, changed = boards.set_groups(opened(data), board, named, now=time.time())
    text = f"{identity} {'is' if changed else 'was already'} in: {', '.join(named) or 'no group'}"
    show({"board": identity, "groups": named, "changed": changed}, text, as_json=as_json)


@app.command()
def telemetry(board: Board, data: Data = None, as_json: Json = False) -> None:
    """Show the last that a board told about its own state. Boards tell only if their owner set telemetry_share."""
    from cloud_aug import telemetry as kept

    found = kept.last(opened(data), board)
    rows: list[tuple[object, ...]] = [
        (moment(told.received_at), moment(point.wall_s), *(_known(value) for value in (
            point.temperature_c, point.throttled, point.power_w, point.cpu_load, point.available_mib
        )))
        for told in found
        for point in told.points
    ]  # fmt: skip
    header = ("received", "board's clock", "°C", "throttled", "W", "load", "MiB free")
    text = table(rows, header) if rows else f"{board} has told nothing"
    show({"board": board, "telemetry": found}, text, as_json=as_json)


def _known(value: object) -> object:
    return "unknown" if value is None else value


@app.command()
def revoke(board: Board, data: Data = None, as_json: Json = False) -> None:
    """Shut a lost board out at once."""
    from cloud_aug import boards

    changed = boards.revoke(opened(data), board, now=time.time())
    text = f"{board} {'is' if changed else 'was already'} revoked"
    show({"board": board, "changed": changed}, text, as_json=as_json)
