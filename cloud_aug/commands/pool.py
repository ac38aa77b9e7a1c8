"""`cloud-aug pool`: take samples in, look at what is there, let some out of quarantine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from cloud_aug.commands.options import Data, Json, TaskOption, day, opened
from cloud_aug.output import progress, show

app = typer.Typer(no_args_is_help=True, help="Samples that others shared by consent.")

Consented = Annotated[str, typer.Option("--consent", help="What the contributors consented to: packs.")]
Until = Annotated[str, typer.Option("--consent-until", help="The last day on which that holds, as 2027-12-31.")]
Quarantine = Annotated[bool, typer.Option("--quarantine", help="Hold them back until 'pool accept'.")]
Contributor = Annotated[str, typer.Option("--contributor", help="Whose samples.")]


@app.command()
def ingest(
    file: Annotated[
        Path,
        typer.Argument(
            help="NPZ or CSV, column 'user' names the contributor; or one contributor's folder of images, WAV or CSV"
            " files, a sub-folder per label."
        ),
    ],
    task: TaskOption,
    consent: Consented,
    until: Until,
    quarantine: Quarantine = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Take in a data file (rows of part 'pool', if it has parts). Interrupted or repeated, it adds what is missing."""
    from cloud_aug import pool

    stated = pool.Consent(consent, day(until))
    status: pool.Status = "quarantine" if quarantine else "accepted"
    cloud = opened(data)
    with progress() as bar:
        done = pool.ingest(
            cloud, file, task, stated, status=status, now=time.time(), on_progress=lambda n, of: bar("ingest", n, of)
        )
    text = f"{done.accepted} new samples of {done.contributors} contributors, {done.duplicates} were there already"
    show(done, text, as_json=as_json)


@app.command()
def stats(task: TaskOption, data: Data = None, as_json: Json = False) -> None:
    """Count what the pool holds, and what of it may be used."""
    from cloud_aug import pool

    found = pool.stats(opened(data), task, now=time.time())
    lines = [
        f"accepted {found.accepted}, quarantine {found.quarantine}, rejected {found.rejected}",
        f"usable now: {found.usable} samples of {found.usable_contributors} (of {found.contributors}) contributors",
        *[f"  {label}: {count}" for label, count in found.labels.items()],
    ]
    show(found, "\n".join(lines), as_json=as_json)


@app.command()
def accept(task: TaskOption, contributor: Contributor, data: Data = None, as_json: Json = False) -> None:
    """Let a contributor's samples out of quarantine."""
    from cloud_aug import pool

    count = pool.accept(opened(data), task, contributor, now=time.time())
    result = {"contributor": contributor, "accepted": count, "changed": count > 0}
    show(result, f"accepted {count} samples of {contributor}", as_json=as_json)
