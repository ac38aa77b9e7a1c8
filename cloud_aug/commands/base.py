"""`cloud-aug base`: train the model that boards start from."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from cloud_aug.commands.options import Data, Json, TaskOption, numbers, opened
from cloud_aug.output import figures_table, progress, show

app = typer.Typer(no_args_is_help=True, help="The model that boards start from.")

Epochs = Annotated[int, typer.Option("--epochs", min=1, help="Passes over the pool.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="The same pool and seed give the same base.")]
Rehearse = Annotated[
    bool, typer.Option("--rehearse/--no-rehearse", help="Play the board with every recipe beforehand.")
]
Shots = Annotated[
    str | None,
    typer.Option("--shots", show_default="1,3,10; clicks: 10,30,100", help="Samples per class to rehearse at."),
]
Threads = Annotated[int, typer.Option("--threads", min=1, help="Of torch. The result depends on it.")]
Boards = Annotated[
    int | None, typer.Option("--boards", min=2, show_default="18; clicks: 90", help="Contributors that play the board.")
]

Without = Annotated[
    list[str] | None,
    typer.Option("--without", metavar="NAME", help="Leave this contributor out; may be given again."),
]
Augment = Annotated[
    bool,
    typer.Option(
        "--augment/--no-augment",
        help="Train on shifted, scaled or noisy copies, too. Not where a label depends on such things.",
    ),
]

File = Annotated[Path, typer.Argument(help="The file of weights.", exists=True, dir_okay=False, show_default=False)]


@app.command()
def train(
    task: TaskOption,
    epochs: Epochs = 30,
    seed: Seed = 0,
    rehearse: Rehearse = True,
    shots: Shots = None,
    boards: Boards = None,
    threads: Threads = 1,
    augment: Augment = True,
    without: Without = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Train the base model on all usable samples, and rehearse the recipes on contributors held out from it."""
    from cloud_aug import jobs
    from cloud_aug.pretrain import TrainSettings
    from cloud_aug.pretrain import train as run

    chosen = () if shots is None else numbers(shots)
    left_out = tuple(sorted(set(without or ())))
    settings = TrainSettings(seed, epochs, rehearse, chosen, boards or 0, threads, augment, left_out)
    cloud = opened(data)
    with progress() as bar, jobs.told(cloud, "base train", task, bar) as tell:
        done = run(cloud, task, settings, now=time.time(), on_progress=tell)
    record = done.record
    text = (
        f"base {record.base.version} of '{task}': {record.samples} samples of {record.contributors} contributors"
        f"{'' if done.changed else ' (nothing new, kept)'}"
    )
    if record.figures:
        text += "\n" + figures_table(record.figures)
    show({"base": record, "changed": done.changed}, text, as_json=as_json)
