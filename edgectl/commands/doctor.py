"""edgectl doctor"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from edgectl.commands import Invocation, JsonFlag, invocation
from edgectl.output import clean, emit, say

if TYPE_CHECKING:
    from edgectl.doctor import Check

_MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


def register(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(
    ctx: typer.Context,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the cloud.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Do not try torch and onnxruntime.")] = False,
    json: JsonFlag = False,
) -> None:
    """Try what this board needs, and say what to do about what fails. The exit code is that of the first failure."""
    here = invocation(ctx)
    found: list[Check] = []
    for check in _examine(here, offline=offline, quick=quick):
        found.append(check)
        if not json:
            typer.echo(clean(f"{_MARKS[check.outcome]}  {check.name}: {check.detail}"))
            if check.hint:
                typer.echo(clean(f"      -> {check.hint}"))
    failed = [check for check in found if check.outcome == "fail"]
    if json:
        emit({"healthy": not failed, "checks": [check.as_dict() for check in found]}, [], as_json=True)
    if failed:
        say(f"edgectl: {len(failed)} of {len(found)} checks failed")
        raise typer.Exit(failed[0].exit_code)


def _examine(here: Invocation, *, offline: bool, quick: bool) -> Iterator[Check]:
    from edgectl.doctor import examine

    site = here.places.profiles
    return examine(here.home, here.settings, now=here.clock(), site=site, offline=offline, quick=quick)
