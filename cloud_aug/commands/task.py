"""`cloud-aug task`: draft, publish, list and show what is to be learned."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloud_aug.commands.options import Data, Json, numbers, opened
from cloud_aug.output import figures_table, progress, say, show, table
from edgewire.errors import NotFound, UsageError

if TYPE_CHECKING:
    from cloud_aug.boards import Selection
    from edgewire.samples import Samples
    from edgewire.tasks import Task

app = typer.Typer(no_args_is_help=True, help="What is to be learned.")

Name = Annotated[str | None, typer.Argument(metavar="[NAME]", help="A template; without a name they are listed.")]
From = Annotated[
    Path | None,
    typer.Option("--from", help="Instead: a data file with x and y, or a folder of images or WAV files per label."),
]
Id = Annotated[str | None, typer.Option("--id", help="The new task's id: a-z, 0-9 and -. [default: the template's]")]
Title = Annotated[str | None, typer.Option("--title", help="What people call it. [default: the id]")]
Out = Annotated[Path | None, typer.Option("-o", "--out", help="Where to write it. [default: stdout]")]


@app.command()
def template(name: Name = None, source: From = None, task_id: Id = None, title: Title = None, out: Out = None) -> None:
    """Print a task to start from, or draft one that fits your data, for you to read, edit and publish."""
    from cloud_aug import templates

    if source is not None:
        _write(_draft(name, source, task_id, title), out)
    elif name is not None:
        found = templates.find(name)
        for note in found.notes:
            say(note)
        _write(_named(found.task, task_id, title), out)
    else:
        rows: list[tuple[object, ...]] = [(known, make().about) for known, make in templates.TEMPLATES.items()]
        typer.echo(table(rows, ("template", "for")))


def _draft(name: str | None, source: Path, task_id: str | None, title: str | None) -> Task:
    from edgewire.readers import draft_task

    if name is not None or task_id is None:
        raise UsageError("a draft takes --from and --id, and no template's name")
    return _named(draft_task(source, task_id=task_id, title=task_id), task_id, title)


def _named(task: Task, task_id: str | None, title: str | None) -> Task:
    """Raises InvalidMessage for an id or a title that cannot be."""
    from edgewire.decoding import convert, plain

    changed = replace(task, id=task_id or task.id, title=title or task.title)
    return convert(type(task), plain(changed), what="task")


def _write(task: Task, out: Path | None) -> None:
    from edgewire.decoding import encode
    from edgewire.files import write_atomic

    text = json.dumps(json.loads(encode(task)), indent=2, ensure_ascii=False) + "\n"
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_atomic(out, text.encode())
        say(f"wrote {out}; next: cloud-aug task publish {out}")


@app.command()
def publish(
    file: Annotated[Path, typer.Argument(help="The task as JSON.")], data: Data = None, as_json: Json = False
) -> None:
    """Publish a task, or change its title or privacy policy."""
    from cloud_aug import tasks

    task = tasks.read(_document(file))
    outcome = tasks.publish(opened(data), task, now=time.time())
    words = {"new": "published", "changed": "changed", "same": "already published:"}[outcome]
    show({"task": task.id, "changed": outcome != "same"}, f"{words} '{task.id}'", as_json=as_json)


def _document(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise NotFound(f"there is no file {file}", hint="draft one with 'cloud-aug task template'") from None


@app.command("list")
def list_tasks(data: Data = None, as_json: Json = False) -> None:
    """List the tasks with their newest base and publication."""
    from cloud_aug import tasks

    found = tasks.list_all(opened(data))
    rows: list[tuple[object, ...]] = [
        (t.id, t.base_version or None, t.publication or None, t.boards, t.title) for t in found
    ]
    text = table(rows, ("task", "base", "publication", "boards", "title")) if rows else "no tasks yet"
    show({"tasks": found}, text, as_json=as_json)


@app.command("show")
def show_task(
    task_id: Annotated[str, typer.Argument(help="The task's id.")], data: Data = None, as_json: Json = False
) -> None:
    """Show a task as it is published."""
    from cloud_aug import tasks
    from edgewire.decoding import plain

    task = tasks.load(opened(data), task_id)
    show({"task": task}, json.dumps(plain(task), indent=2, ensure_ascii=False), as_json=as_json)


Which = Annotated[
    list[str] | None,
    typer.Option("--board", metavar="NAME", help="Boards of that id or name, with * and ?; may be given again."),
]
Profiles = Annotated[
    list[str] | None,
    typer.Option("--profile", metavar="NAME", help="Boards of that profile, with * and ?; may be given again."),
]
Known = Annotated[str, typer.Argument(metavar="TASK", help="The task's id.")]


@app.command()
def push(
    task_id: Known, board: Which = None, profile: Profiles = None, data: Data = None, as_json: Json = False
) -> None:
    """Give a task to many boards: those of these names and of these profiles. They fetch it with their next sync."""
    from cloud_aug import boards

    meant, new = boards.push(opened(data), task_id, _selection(board, profile), now=time.time())
    text = f"'{task_id}' goes to {meant} boards, {new} of them did not have it"
    show({"task": task_id, "boards": meant, "new": new, "changed": new > 0}, text, as_json=as_json)


@app.command()
def recall(
    task_id: Known, board: Which = None, profile: Profiles = None, data: Data = None, as_json: Json = False
) -> None:
    """Take a task from many boards. Their models of it go on serving; they get nothing new of it."""
    from cloud_aug import boards

    meant, had = boards.recall(opened(data), task_id, _selection(board, profile), now=time.time())
    text = f"'{task_id}' was taken from {had} of {meant} boards"
    show({"task": task_id, "boards": meant, "had": had, "changed": had > 0}, text, as_json=as_json)


def _selection(board: list[str] | None, profile: list[str] | None) -> Selection:
    from cloud_aug.boards import Selection

    if not board and not profile:
        raise UsageError("which boards?", hint="--board 'kitchen-*', --profile 'pi-*', or --board '*' for all")
    return Selection(tuple(board or ()), tuple(profile or ()))


@app.command("try")
def try_out(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The task as JSON; it need not be published.")],
    samples: Annotated[
        Path | None,
        typer.Option("--samples", help="A data file with users. [default: the pool of the published task of that id]"),
    ] = None,
    shots: Annotated[str | None, typer.Option("--shots", help="Samples per class that a board has.")] = None,
    boards: Annotated[int, typer.Option("--boards", min=2, help="At most so many users play a board.")] = 18,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Passes over the samples.")] = 30,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Who plays, with which samples.")] = 0,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Try a task before any board gets it: users play boards with every recipe. Nothing is published or kept."""
    from cloud_aug import pretrain, tasks

    task = tasks.read(_document(file))
    settings = pretrain.TrainSettings(seed, epochs, True, () if shots is None else numbers(shots), boards)
    with progress() as bar:
        found = pretrain.try_out(task, _samples_of(task, samples, data), settings, on_progress=bar)
    text = (
        f"{found.samples} samples of {found.users} users; boards fetch {found.model_bytes / 1000:.0f} kB\n"
        f"gain over the base model ({task.metric}), by users who were held out from it:\n{figures_table(found.figures)}"
    )
    show({"task": task.id, "trial": found, "changed": False}, text, as_json=as_json)


def _samples_of(task: Task, file: Path | None, data: Path | None) -> Samples:
    from cloud_aug import pool

    if file is None:
        return pool.load(opened(data), task, now=time.time()).samples
    from edgewire import readers

    return readers.read(file, task)
