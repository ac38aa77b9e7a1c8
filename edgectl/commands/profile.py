"""edgectl profile detect | list | show"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from edgectl.commands import JsonFlag, invocation
from edgectl.output import emit

group = typer.Typer(no_args_is_help=True, help="What is known of each kind of board.", rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    app.add_typer(group, name="profile")


@group.command()
def detect(ctx: typer.Context, json: JsonFlag = False) -> None:
    """Print which profile fits this board."""
    from edgectl.board import profile

    chosen = invocation(ctx).settings.text("profile")
    found = chosen or profile.detect()
    report = {"profile": found, "origin": "setting" if chosen else "detected", "model": profile.model() or None}
    emit(report, [found], as_json=json)


@group.command("list")
def list_profiles(ctx: typer.Context, json: JsonFlag = False) -> None:
    """Print the names of all profiles."""
    from edgectl.board import profile

    emit({"profiles": list(profile.ids())}, profile.ids(), as_json=json)


@group.command()
def show(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="PROFILE", help="Else the one that fits this board.")] = None,
    json: JsonFlag = False,
) -> None:
    """Print a profile."""
    from edgectl.board import profile

    chosen = name or invocation(ctx).settings.text("profile") or profile.detect()
    fields = profile.load(chosen)
    emit({"profile": fields}, _lines(fields), as_json=json)


def _lines(fields: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for key, value in fields.items():
        if isinstance(value, dict):
            lines += [f"{indent}{key}:", *_lines(value, indent + "  ")]
        else:
            lines.append(f"{indent}{key}: {'unknown' if value is None else value}")
    return lines
