"""edgectl config get | set | unset | list"""

from __future__ import annotations

from typing import Annotated

import typer

from edgectl import config
from edgectl.commands import JsonFlag, invocation
from edgectl.output import emit, table

KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help=f"One of {', '.join(config.KEYS)}.")]

group = typer.Typer(no_args_is_help=True, help="Read and write settings.", rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    app.add_typer(group, name="config")


@group.command()
def get(ctx: typer.Context, key: KeyArgument, json: JsonFlag = False) -> None:
    """Print one setting as it counts now."""
    setting = invocation(ctx).with_profile().settings[config.known(key).name]
    report = {"key": key, "value": setting.value, "origin": setting.origin}
    emit(report, [_shown(setting.value)], as_json=json)


@group.command("set")
def set_key(ctx: typer.Context, key: KeyArgument, value: str, json: JsonFlag = False) -> None:
    """Write one setting to the user's file."""
    path = invocation(ctx).places.user_file
    changed = config.set_in_file(path, key, value)
    emit({"changed": changed, "file": str(path)}, [_change(changed, path)], as_json=json)


@group.command()
def unset(ctx: typer.Context, key: KeyArgument, json: JsonFlag = False) -> None:
    """Remove one setting from the user's file."""
    path = invocation(ctx).places.user_file
    changed = config.unset_in_file(path, key)
    emit({"changed": changed, "file": str(path)}, [_change(changed, path)], as_json=json)


@group.command("list")
def list_keys(
    ctx: typer.Context,
    show_origin: Annotated[bool, typer.Option("--show-origin", help="Say where each value comes from.")] = False,
    json: JsonFlag = False,
) -> None:
    """Print all settings as they count now."""
    settings = invocation(ctx).with_profile().settings
    report = {"settings": [{"key": k, "value": s.value, "origin": s.origin} for k, s in settings.items()]}
    rows = [
        (k, _shown(s.value), *([s.origin] if show_origin else []), config.KEYS[k].help) for k, s in settings.items()
    ]
    header = ["key", "value", *(["origin"] if show_origin else []), "meaning"]
    emit(report, table(header, rows), as_json=json)


def _shown(value: config.Value | None) -> str:
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _change(changed: bool, path: object) -> str:
    return f"{path} {'written' if changed else 'already says so'}"
