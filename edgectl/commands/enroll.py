"""edgectl enroll"""

from __future__ import annotations

import re
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from edgectl.commands import JsonFlag, invocation
from edgectl.output import emit


def register(app: typer.Typer) -> None:
    app.command()(enroll)


def enroll(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE|-", help="What `cloud-aug boards token` wrote.")],
    name: Annotated[str | None, typer.Option(help="How the cloud calls this board; else its host name.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Leave the cloud this board belongs to.")] = False,
    json: JsonFlag = False,
) -> None:
    """Make this board's key and introduce it to a cloud, with a one-time token."""
    from edgectl import enrolment

    here = invocation(ctx)
    result = enrolment.enroll(
        here.home,
        _read(file, enrolment.FILE_LIMIT_BYTES),
        name=name or here.settings.text("name") or _host_name(),
        profile=here.profile_id,
        now=here.clock(),
        force=force,
    )
    known = result.enrolment
    emit(
        {"changed": result.changed, "url": known.url, "board": known.board, "tasks": list(known.tasks)},
        [
            f"{'enrolled' if result.changed else 'already enrolled'} at {known.url} as {known.board}",
            f"tasks: {', '.join(known.tasks) or 'none yet'}",
        ],
        as_json=json,
    )


def _read(file: Path, limit_bytes: int) -> bytes:
    from edgewire.errors import NotFound

    if str(file) == "-":
        return sys.stdin.buffer.read(limit_bytes + 1)
    try:
        with file.open("rb") as opened:
            return opened.read(limit_bytes + 1)
    except (FileNotFoundError, IsADirectoryError):
        raise NotFound(f"there is no file {file}", hint="make one with: cloud-aug boards token") from None


def _host_name() -> str:
    """The host name with only what a board's name may have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", socket.gethostname()).strip("-._")[:63] or "board"
