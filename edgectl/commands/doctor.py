"""edgectl doctor"""

from __future__ import annotations

from typing import Annotated

import typer

from edgectl.commands import JsonFlag, invocation
from edgectl.output import clean, emit, say

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
    from edgectl import doctor as checks

    here = invocation(ctx)
    found = []
    for check in checks.examine(here.home, here.settings, now=here.clock(), offline=offline, quick=quick):
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
