"""Write docs/cli-reference.md from the commands themselves, so that it cannot say anything else than `--help` does.

`python -m scripts.cli_reference` writes it; with `--check` it only says whether the file is what would be written.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

PAGE = Path(__file__).parent.parent / "docs" / "cli-reference.md"
_OPENING = """\
# Command line

Made from the commands' own help by `make docs`; do not edit.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the file is out of date")
    check = parser.parse_args().check
    text = reference(programs())
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text:
        return 0
    if check:
        print(f"{PAGE.name} is out of date: run `make docs`", file=sys.stderr)
        return 1
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(text, encoding="utf-8")
    print(f"wrote {PAGE.relative_to(Path.cwd()) if PAGE.is_relative_to(Path.cwd()) else PAGE}")
    return 0


def programs() -> dict[str, typer.Typer]:
    """The console scripts and their typer apps."""
    import cloud_aug.cli
    import edgectl.cli

    return {"edgectl": edgectl.cli.assemble(), "cloud-aug": cloud_aug.cli.app}


def reference(apps: dict[str, typer.Typer]) -> str:
    """The whole page."""
    sections = [_OPENING]
    for name, app in apps.items():
        commands = list(_walk(name, typer.main.get_command(app)))
        links = [f"- [`{path}`](#{_anchor(path)})" for path, _ in commands[1:]]
        root, *rest = (_section(path, command) for path, command in commands)
        sections += [root, "\n".join(links) + "\n", *rest]
    return "\n".join(sections)


def _walk(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    """A command and all below it, in the order of `--help`. Any: typer brings its own copy of click's classes."""
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        if not child.hidden:
            yield from _walk(f"{path} {name}", child)


def _section(path: str, command: Any) -> str:
    context = command.context_class(command, info_name=path)
    level = "##" if " " not in path else "###"
    parts = [f"{level} {path}\n", f"    {' '.join([path, *command.collect_usage_pieces(context)])}\n"]
    parts += [f"{text}\n" for text in (_prose(command.help), _prose(command.epilog)) if text]
    records = [parameter.get_help_record(context) for parameter in command.params]
    rows = [f"| `{_cell(name)}` | {_cell(about)} |" for name, about in filter(None, records)]
    if rows:
        parts.append("\n".join(["| | |", "|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def _cell(text: str) -> str:
    # A default below the home folder would differ between machines.
    return " ".join(text.split()).replace("|", "\\|").replace(str(Path.home()), "~")


def _prose(text: str | None) -> str:
    """Help without what only terminals understand: click's marks for a form feed and for text not to be rewrapped."""
    text = inspect.cleandoc(text or "").split("\f", 1)[0]
    return "\n".join(line for line in text.splitlines() if line.strip() != "\b").strip()


def _anchor(path: str) -> str:
    return path.replace(" ", "-")


if __name__ == "__main__":
    sys.exit(main())
