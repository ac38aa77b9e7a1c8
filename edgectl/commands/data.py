"""edgectl data add | list | expire | share | shared | withdraw"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgectl.commands import Invocation, JsonFlag, TaskFlag, invocation
from edgectl.output import emit, plural, say, table

if TYPE_CHECKING:
    from edgectl.scoring import Scored
    from edgectl.store import ShareRow, Store
    from edgewire.messages import Manifest

group = typer.Typer(no_args_is_help=True, help="Labelled samples of this board.", rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    app.add_typer(group, name="data")


def _manifest(here: Invocation, flag: str | None) -> Manifest:
    from edgectl import enrolment, tasks

    known = enrolment.load(here.home)
    return tasks.known_task(here.home, known, here.task_id(flag), here.clock())


def _task_of_samples(here: Invocation, flag: str | None) -> str:
    """A task whose samples are looked at or deleted. The owner may do so even if the cloud grants it no longer."""
    from edgectl import enrolment, tasks

    known, kept = enrolment.load(here.home), list[str]()
    if here.home.database.exists():
        with here.store() as store:
            kept = store.sample_tasks()
    return tasks.choose_kept(known, here.task_id(flag), kept)


@group.command()
def add(
    ctx: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE|FOLDER|-",
            help="NPZ, or CSV with a header; or a folder with a sub-folder of images, WAV or CSV files per label.",
        ),
    ],
    task: TaskFlag = None,
    part: Annotated[str | None, typer.Option(help="Only rows of that part: pool, local or test.")] = None,
    json: JsonFlag = False,
) -> None:
    """Add labelled samples. They stay on this board unless you share them.

    The model that serves predicts each new one first, so that `edgectl status` can tell how well it does.
    """
    from edgewire import readers

    here = invocation(ctx)
    manifest = _manifest(here, task)
    about = manifest.task
    path = None if str(file) == "-" else file
    samples = readers.read(path, about, stdin=sys.stdin.buffer, part=part)
    with here.store() as store:
        result = store.add_samples(about, samples, now=here.clock())
        scored = _score(here, manifest, store)  # before any goes: the running score is about all that came
        gone = here.keep(store, about.id)
        total = sum(store.label_counts(about.id).values())
    emit(
        {
            "changed": result.added > 0,
            "task": about.id,
            "added": result.added,
            "duplicates": result.duplicates,
            "expired": gone,
            "total": total,
            "scored": scored.samples,
            "right": scored.right,
        },
        [
            f"{plural(result.added, 'sample')} added to '{about.id}', {result.duplicates} were there already;"
            f" it now has {total}",
            *([f"{plural(gone, 'sample')} went: settings samples_most, samples_days"] if gone else []),
            *([f"the model that serves was right about {scored.right} of {scored.samples}"] if scored.samples else []),
        ],
        as_json=json,
    )


def _score(here: Invocation, manifest: Manifest, store: Store) -> Scored:
    """Score what was added. The samples are safe whatever happens here: what is not scored now is before a training."""
    from edgectl import scoring
    from edgewire.errors import EdgeError

    try:
        return scoring.score_new(here.home, manifest, store, now=here.clock(), threads=here.threads)
    except EdgeError as error:
        say(f"the new samples are not scored yet: {error.message}")
        return scoring.Scored()


@group.command("list")
def list_samples(
    ctx: typer.Context,
    task: TaskFlag = None,
    limit: Annotated[int, typer.Option(min=0, help="How many of the newest.")] = 20,
    json: JsonFlag = False,
) -> None:
    """Print how many samples there are per label, and the newest ones."""
    from dataclasses import asdict

    here = invocation(ctx)
    about = _task_of_samples(here, task)
    with here.store() as store:
        counts, rows = store.label_counts(about), store.list_samples(about, limit)
    lines = [f"{sum(counts.values())} samples of '{about}'", *(f"  {label}: {n}" for label, n in counts.items())]
    if rows:
        cells = [(row.id, row.label, row.group or "-", row.digest[:12], _day(row.shared_until)) for row in rows]
        lines += table(("id", "label", "group", "digest", "shared until"), cells)
    emit({"task": about, "labels": counts, "samples": [asdict(row) for row in rows]}, lines, as_json=json)


@group.command()
def expire(
    ctx: typer.Context,
    task: TaskFlag = None,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="AGE", help="Added longer ago than 90d, 12h or 30m.")
    ] = None,
    number: Annotated[list[int] | None, typer.Option("--id", help="This sample; may be given again.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every sample of the task.")] = False,
    json: JsonFlag = False,
) -> None:
    """Delete samples from this board. What was shared, sent or not, is not taken back by this: `data withdraw` does."""
    from edgectl import periods, retention
    from edgewire.errors import UsageError

    if everything == bool(older_than or number):
        raise UsageError("say what to delete", hint="give --older-than AGE, --id N or --all")
    here = invocation(ctx)
    about = _task_of_samples(here, task)
    before = here.clock() - periods.seconds(older_than) if older_than else None
    with here.store() as store:
        deleted = store.expire(about, older_than=before, ids=number or None)
    if deleted:
        retention.forget_learnt(here.home, about)
    report = {"changed": deleted > 0, "task": about, "deleted": deleted}
    emit(report, [f"{plural(deleted, 'sample')} of '{about}' deleted"], as_json=json)


@group.command()
def share(
    ctx: typer.Context,
    until: Annotated[str, typer.Option(metavar="DATE|AGE", help="When your consent ends: 2031-01-31, or 365d.")],
    task: TaskFlag = None,
    name: Annotated[str | None, typer.Option("--group", help="Only samples of that recording or session.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Consent without being asked.")] = False,
    json: JsonFlag = False,
) -> None:
    """Consent that samples go to the cloud's pool, and queue them for the next sync.

    Values and labels travel, under a pseudonym; recordings' names and times do not.
    """
    from edgectl import periods, sharing

    here = invocation(ctx)
    about, now = _manifest(here, task).task, here.clock()
    ends_at = periods.moment(until, now=now)
    with here.store() as store:
        offer = sharing.offer(store, about, group=name)
        if len(offer):
            _consent(f"{plural(len(offer), 'sample')} of '{about.id}' until {periods.day(ends_at)}", yes=yes)
            sharing.queue(store, about, offer, until=ends_at, now=now)
    lines = [f"{plural(len(offer), 'sample')} of '{about.id}' queued; they leave with the next `edgectl sync`"]
    report = {"changed": len(offer) > 0, "task": about.id, "shared": len(offer), "until": ends_at}
    emit(report, lines if len(offer) else ["nothing new to share"], as_json=json)


@group.command()
def shared(ctx: typer.Context, task: TaskFlag = None, json: JsonFlag = False) -> None:
    """Print what was shared and taken back, and when: your consents, and whether the cloud has them."""
    from dataclasses import asdict

    here = invocation(ctx)
    about = _task_of_samples(here, task)
    with here.store() as store:
        rows = store.shares(about)
    cells = [(_day(row.queued_at), *_what(row), row.refusal or _day(row.settled_at)) for row in rows]
    lines = (
        table(("consented", "what", "samples", "until", "sent"), cells)
        if rows
        else [f"nothing of '{about}' was shared"]
    )
    emit({"task": about, "shared": [asdict(row) for row in rows]}, lines, as_json=json)


def _what(row: ShareRow) -> tuple[str, object, str]:
    if row.kind == "withdrawal":
        return "taken back", "all", "-"
    return "shared", row.params.get("samples", "?"), _day(float(row.params["until"]))


@group.command()
def withdraw(
    ctx: typer.Context,
    task: TaskFlag = None,
    json: JsonFlag = False,
) -> None:
    """Take back all that was shared for a task: the cloud deletes it with the next sync. Local samples stay.

    Other boards drop it when they sync next; copies that dishonest boards keep cannot be recalled.
    """
    import secrets

    here = invocation(ctx)
    about = _task_of_samples(here, task)
    with here.store() as store:
        count = store.withdraw(about, secrets.token_hex(16), here.clock())
    report = {"changed": True, "task": about, "withdrawn": count}
    lines = [f"{plural(count, 'shared sample')} of '{about}' will be deleted in the cloud with the next `edgectl sync`"]
    emit(report, lines, as_json=json)


def _consent(what: str, *, yes: bool) -> None:
    """Consent must be given by a person or by --yes; silence is none."""
    from edgewire.errors import UsageError

    if yes:
        return
    say(
        f"You are about to share {what}.\nOther boards of this task will receive these raw values and labels."
        "\nYou can withdraw later, but copies that dishonest boards keep cannot be recalled."
    )
    sys.stderr.write("Share them? [y/N] ")
    sys.stderr.flush()
    if not sys.stdin.isatty() or sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("not shared: there was no consent", hint="answer y, or give --yes")


def _day(at: float | None) -> str:
    from edgectl import periods

    return "-" if at is None else periods.day(at)
