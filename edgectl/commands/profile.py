"""edgectl profile detect | list | show | check"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgectl.commands import Invocation, JsonFlag, invocation
from edgectl.output import emit, table

group = typer.Typer(no_args_is_help=True, help="What is known of each kind of board.", rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    app.add_typer(group, name="profile")


@group.command()
def detect(ctx: typer.Context, json: JsonFlag = False) -> None:
    """Print which profile fits this board."""
    from edgectl.board import profile

    here = invocation(ctx)
    found, chosen = here.profile_id, here.settings.text("profile")
    report = {"profile": found, "origin": "setting" if chosen else "detected", "model": profile.model() or None}
    emit(report, [found], as_json=json)


@group.command("list")
def list_profiles(ctx: typer.Context, json: JsonFlag = False) -> None:
    """Print the names of all profiles, a site's own too."""
    from edgectl.board import profile

    names = profile.ids(invocation(ctx).places.profiles)
    emit({"profiles": names}, names, as_json=json)


@group.command()
def show(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="PROFILE", help="Else the one that fits this board.")] = None,
    sources: Annotated[bool, typer.Option("--sources", help="Say where each value comes from.")] = False,
    json: JsonFlag = False,
) -> None:
    """Print a profile."""
    from edgectl.board import profile

    here = invocation(ctx)
    fields = profile.load(name or here.profile_id, here.places.profiles)
    if sources and profile.site_file(fields["id"], here.places.profiles) is None:
        import firmware_profiles

        fields = firmware_profiles.load(fields["id"])
    emit({"profile": fields}, _lines(fields), as_json=json)


@group.command()
def check(
    ctx: typer.Context,
    what: Annotated[
        str | None, typer.Argument(metavar="PROFILE|FILE.toml", help="Else the one that fits this board.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Say whether a profile is valid, and what of it this machine contradicts.

    Exit code 2 if it is invalid, 7 if this is another kind of machine.
    """
    from edgectl.board import fit
    from edgewire.errors import UnsupportedBoard

    here = invocation(ctx)
    known, origin = _named(here, what)
    findings = fit.compare(known)
    differing = [finding.field for finding in findings if finding.outcome == "differs"]
    report = {
        "profile": known["id"],
        "origin": origin,
        "fits": not differing,
        "findings": [finding.as_dict() for finding in findings],
    }
    rows = [(one.field, one.outcome, one.expected, one.found or "-") for one in findings]
    lines = [f"{known['id']} ({origin}) is valid", *table(["field", "outcome", "expected", "found"], rows)]
    emit(report, lines, as_json=json)
    if differing:
        raise UnsupportedBoard(
            f"this machine is not what profile '{known['id']}' says: {', '.join(differing)}",
            hint="choose another: edgectl config set profile NAME, or write one of your own: docs/boards.md",
        )


def _named(here: Invocation, what: str | None) -> tuple[dict[str, Any], str]:
    """The profile by its name, or from a file, and where it is from. Raises UsageError, NotFound, CorruptFile."""
    from edgectl.board import profile

    if what is not None and (what.endswith(".toml") or "/" in what):
        return profile.read(Path(what)), what
    name = what or here.profile_id
    own = profile.site_file(name, here.places.profiles)
    return profile.load(name, here.places.profiles), str(own) if own else "of this program"


def _lines(fields: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for key, value in fields.items():
        if isinstance(value, dict):
            lines += [f"{indent}{key}:", *_lines(value, indent + "  ")]
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            lines.append(f"{indent}{key}: {shown}")
    return lines
