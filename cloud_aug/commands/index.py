"""`cloud-aug index`: publish what boards match against."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloud_aug.commands.options import Address, Data, EngineName, EngineOption, Json, TaskOption, engine, moment, opened
from cloud_aug.output import progress, show, table

if TYPE_CHECKING:
    from cloud_aug.bench import Engine

app = typer.Typer(no_args_is_help=True, help="Directory, packs and search index.")

Seed = Annotated[int, typer.Option("--seed", min=0, help="The same pool, base and seed give the same bytes.")]

Hold = Annotated[
    bool, typer.Option("--hold", help="Keep a new base for a release; boards go on with the one they have.")
]
Folder = Annotated[Path, typer.Argument(help="The folder of the snapshot.", show_default=False)]


@app.callback()
def main() -> None:
    """Directory, packs and search index."""


@app.command()
def build(
    task: TaskOption,
    seed: Seed = 0,
    hold: Hold = False,
    engine_name: EngineOption = EngineName.plain,
    address: Address = "",
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Build, verify and publish. A running server takes it over by itself; interrupted, the old one goes on serving."""
    from cloud_aug import jobs, publications
    from cloud_aug.index import build as run

    cloud = opened(data)
    with engine(engine_name, address) as on_ray, progress() as bar, jobs.told(cloud, "index build", task, bar) as tell:
        done = run(cloud, task, seed=seed, hold=hold, now=time.time(), on_progress=tell, engine=_engine(on_ray))
    made = done.publication
    with cloud.database.reading() as connection:
        held = publications.is_held(connection, task, made.base.version)
    size = made.directory.size + sum(pack.size for pack in made.packs)
    text = (
        f"publication {made.version} of '{task}': {made.samples} samples of {made.contributors} contributors in "
        f"{made.cohorts} cohorts, {len(made.packs)} packs, {size / 1024:.0f} KiB"
        f"{'' if done.changed else ' (nothing new, kept)'}"
        f"\nthe first consent ends {moment(done.good_until)} UTC: build again then, or boards are refused its packs"
    )
    if held:
        step = f"cloud-aug release create --task {task} --base {made.base.version}"
        text += f"\nboards go on with the base that they have; to let this one reach them: {step}"
    report = {"publication": made, "changed": done.changed, "held": held, "good_until": done.good_until}
    show(report, text, as_json=as_json)


def _engine(on_ray: bool) -> Engine | None:
    if not on_ray:
        return None
    from cloud_aug.on_ray import OnRay

    return OnRay()


@app.command("show")
def show_index(task: TaskOption, data: Data = None, as_json: Json = False) -> None:
    """Show what is published: the kind of index per class, its size and recall, and recall on boards' own queries."""
    from cloud_aug import publications, replays, searchable

    cloud = opened(data)
    publication = publications.require(cloud, task)
    document, _ = searchable.read(cloud, publication.search.digest)
    live = replays.recall(cloud, publication)
    rows: list[tuple[object, ...]] = [
        (label, one.kind, one.vectors, one.probes or None, f"{one.recall:.3f}", f"{one.memory_bytes / 2**20:.1f}")
        for label, one in enumerate(document.classes)
    ]
    shown = "none yet" if live.recall_at_100 is None else f"{live.recall_at_100:.3f} on {live.queries} queries"
    lines = [
        f"publication {publication.version} of '{task}', base {publication.base.version}: {publication.samples} samples"
        f" of {publication.contributors} contributors in {publication.cohorts} cohorts, {len(publication.packs)} packs",
        f"index within {document.budget_bytes >> 20} MiB; recall of 100 on held-out queries; live recall: {shown}",
        table(rows, ("class", "kind", "vectors", "probes", "recall", "MiB")),
    ]
    report = {"publication": publication, "index": document, "live": live}
    show(report, "\n".join(lines), as_json=as_json)


@app.command()
def snapshot(task: TaskOption, folder: Folder, data: Data = None, as_json: Json = False) -> None:
    """Copy the current publication into a folder, to come back to it should a later build turn out worse.

    It holds embeddings, contributors' names and the secrets of packs: keep it like the data folder.
    """
    from cloud_aug.snapshots import take

    cloud = opened(data)
    with progress() as bar:
        made = take(cloud, task, folder, now=time.time(), on_progress=bar)
    size = sum(blob.size for blob in made.blobs)
    text = (
        f"{folder}: publication {made.publication.version} of '{task}', {len(made.blobs)} files, {size / 1024:.0f} KiB"
    )
    report = {"folder": str(folder), "publication": made.publication, "blobs": len(made.blobs), "bytes": size}
    show(report, text, as_json=as_json)


@app.command()
def restore(folder: Folder, data: Data = None, as_json: Json = False) -> None:
    """Publish what 'snapshot' put into a folder; the pool stays as it is. What was withdrawn since stays withdrawn."""
    from cloud_aug.snapshots import restore as run

    cloud = opened(data)
    with progress() as bar:
        done = run(cloud, folder, now=time.time(), on_progress=bar)
    made = done.publication
    text = f"publication {made.version} of '{made.task}' is as of {folder}{'' if done.changed else ' (it was already)'}"
    show({"publication": made, "changed": done.changed}, text, as_json=as_json)
