"""edgectl bundle make"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgectl.commands import JsonFlag
from edgectl.output import emit

group = typer.Typer(no_args_is_help=True, help="Install boards that have no internet.", rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    app.add_typer(group, name="bundle")


@group.callback()
def bundle() -> None:
    """Install boards that have no internet."""


@group.command()
def make(
    profile: Annotated[str, typer.Option(metavar="PROFILE", help="Which board: see edgectl profile list.")],
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Else edgectl-PROFILE-pyVERSION.")] = None,
    python: Annotated[
        str | None, typer.Option(metavar="3.X", help="The board's Python; else the oldest of its system images.")
    ] = None,
    train: Annotated[
        bool | None, typer.Option("--train/--no-train", help="With torch; else as the profile has it.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Collect wheels, installer and checksums for a board in one folder. Needs a checkout and the package index.

    Bring the folder to the board and run its install.sh there.
    """
    from edgectl import bundle as bundles
    from edgectl.board import profile as profiles

    known = profiles.load(profile)
    version = python or known["python"][0]
    training = known["train"]["allow"] == "all" if train is None else train
    folder = out or Path(f"edgectl-{profile}-py{version.replace('.', '')}")
    made = bundles.make(bundles.checkout(), folder, profile=profile, python=version, training=training)
    emit(
        {**vars(made), "folder": str(made.folder)},
        [
            f"{made.folder}: {made.wheels} wheels for {made.profile}, Python {made.python},"
            f" {'with' if made.training else 'without'} torch; {made.size_bytes >> 20} MiB",
            f"on the board: sudo {made.folder.name}/install.sh",
        ],
        as_json=json,
    )
