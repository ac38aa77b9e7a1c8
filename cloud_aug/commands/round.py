"""`cloud-aug round`: federated rounds: make a series, start and stop it, watch it, fetch and publish what it made."""

from __future__ import annotations

import enum
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloud_aug.commands.options import (
    Batch,
    Clip,
    Compression,
    Data,
    Down,
    Epochs,
    Json,
    Noise,
    Rate,
    Sets,
    TaskOption,
    moment,
    opened,
    option_of,
    span_s,
)
from cloud_aug.output import show, table
from edgewire.errors import Conflict, UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from cloud_aug.cloud import Cloud
    from cloud_aug.rounds.plan import Plan, Rule
    from cloud_aug.rounds.results import Model
    from cloud_aug.rounds.status import RoundStatus, SeriesStatus
    from cloud_aug.rounds.turns import Turn

app = typer.Typer(no_args_is_help=True, help="Federated rounds: boards improve the base without sending samples.")

SHOWN_ROUNDS, ALL_ROUNDS = 15, 1_000_000
WATCH_S = 2.0


class AdaptTo(str, enum.Enum):
    """What may follow boards' pace; all: whatever the algorithm bears."""

    deadline = "deadline"
    steps = "steps"
    frequency = "frequency"
    switch = "switch"
    all = "all"


Series = Annotated[str, typer.Argument(metavar="SERIES", help="Its id, see 'round status'.")]
Name = Annotated[str, typer.Option("--algorithm", help="One of docs/algorithms.md.")]
Rounds = Annotated[int, typer.Option("--rounds", min=1, help="How many have to close.")]
Cohort = Annotated[int, typer.Option("--cohort", min=1, help="Boards in a round at most.")]
Quorum = Annotated[int, typer.Option("--quorum", min=1, help="Updates without which a round has failed.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of cohorts and of boards' training.")]
Selection = Annotated[str, typer.Option(help="random or absent (longest away first). [default: the algorithm's]")]
Profiles = Annotated[list[str] | None, typer.Option("--profile", help="Ask boards of this profile only; repeatable.")]
Networks = Annotated[
    list[str] | None, typer.Option("--network", help="Ask boards on ethernet, wifi, mobile or unknown; repeatable.")
]
Hot = Annotated[
    float | None, typer.Option("--max-temp-c", help="Ask no board that says it is hotter (telemetry_share).")
]
Samples = Annotated[int, typer.Option("--min-samples", min=1, help="Ask no board that has less.")]
Gather = Annotated[str, typer.Option("--gather", help="How long boards may come before the cohort is drawn.")]
Deadline = Annotated[str, typer.Option("--deadline", help="Of a round, from then on.")]
Silence = Annotated[str, typer.Option("--silence", help="Who gave no sign for so long is not waited for.")]
Failures = Annotated[int, typer.Option("--failures", min=1, help="Rounds in a row that may fail before it stops.")]
Staleness = Annotated[int, typer.Option("--staleness", min=0, help="Rounds by which fedbuff's updates may be late.")]
Norm = Annotated[float, typer.Option("--max-norm", help="Of one update; longer ones are refused.")]
Most = Annotated[int, typer.Option("--max-samples", min=1, help="That one board may claim to have.")]
Adapt = Annotated[
    list[AdaptTo] | None,
    typer.Option("--adapt", help="Let this follow the pace that boards were seen to have; repeatable."),
]
Kept = Annotated[int, typer.Option("--keep-updates", min=0, help="Rounds whose single updates stay on disk.")]
Peer = Annotated[str, typer.Option("--peer", metavar="TASK", help="Whose base learns with this one, by `mutual`.")]
OfPeer = Annotated[bool, typer.Option("--peer", help="The model that learned with it, instead.")]
Start = Annotated[bool, typer.Option("--start", help="Start it at once.")]
Which = Annotated[str, typer.Option("--round", help="Its number, last, or best by the boards' own score.")]
Out = Annotated[Path, typer.Option("-o", "--out", help="Where to write the weights (safetensors).")]
Board = Annotated[str | None, typer.Option("--board", help="The model of this board in that round, instead.")]
Turns = Annotated[
    str | None, typer.Option("--boards", metavar="ROUND", help="With each board of this round: a number, last or best.")
]
Watch = Annotated[bool, typer.Option("--watch", help="Show it again and again, until it ends or Ctrl-C.")]


@app.command()
def create(
    task: TaskOption,
    algorithm: Name = "fedavg",
    options: Sets = None,
    rounds: Rounds = 10,
    cohort: Cohort = 10,
    quorum: Quorum = 2,
    epochs: Epochs = 5,
    batch_size: Batch = 10,
    learning_rate: Rate = 0.04,
    seed: Seed = 0,
    compression: Compression = "none",
    down: Down = "none",
    noise: Noise = 0.0,
    clip: Clip = 1.0,
    selection: Selection = "",
    profiles: Profiles = None,
    networks: Networks = None,
    max_temp_c: Hot = None,
    min_samples: Samples = 1,
    gather: Gather = "10m",
    deadline: Deadline = "1h",
    silence: Silence = "2m",
    failures: Failures = 3,
    staleness: Staleness = 4,
    max_norm: Norm = 1000.0,
    max_samples: Most = 1_000_000,
    kept_updates: Kept = 3,
    adapt: Adapt = None,
    peer: Peer = "",
    start: Start = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Make a series of rounds that starts from the task's published base. The task's policy has to allow it."""
    from cloud_aug.rounds import series as all_series

    plan = _plan(
        algorithm=algorithm,
        options=dict(map(option_of, options or [])),
        rounds=rounds,
        cohort=cohort,
        quorum=quorum,
        local={"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate},
        seed=seed,
        compression=compression,
        down=down,
        noise=noise,
        clip=clip,
        selection=selection,
        profiles=profiles or [],
        networks=networks or [],
        max_temperature_c=max_temp_c,
        min_samples=min_samples,
        gather_s=span_s(gather),
        deadline_s=span_s(deadline),
        silence_s=span_s(silence),
        failures=failures,
        staleness=staleness,
        max_norm=max_norm,
        max_samples=max_samples,
        kept_updates=kept_updates,
        adapt=_rules(algorithm, adapt or []),
        peer=peer or None,
    )
    cloud = opened(data)
    made = all_series.create(cloud, task, plan, now=time.time())
    if start:
        _start(cloud, made.id)
    text = f"series {made.id} of '{task}': {plan.rounds} rounds of {plan.algorithm} from base {made.base.version}, "
    text += f"{made.boards} boards may take part"
    text += "; it runs" if start else f"\nnext: cloud-aug round start {made.id}"
    show({"series": made.id, "plan": plan, "boards": made.boards, "started": start}, text, as_json=as_json)


def _start(cloud: Cloud, series: str) -> None:
    """Raises Conflict, which says that the series is there, and how to go on."""
    from cloud_aug.rounds import series as all_series

    try:
        all_series.start(cloud, series, now=time.time())
    except Conflict as error:
        hint = f"{error.hint}; then cloud-aug round start {series}"
        raise Conflict(f"series {series} is made, but does not run: {error.message}", hint=hint) from None


def _rules(algorithm: str, wanted: list[AdaptTo]) -> tuple[Rule, ...]:
    from cloud_aug.rounds.plan import RULES, rules_of

    if AdaptTo.all in wanted:
        return rules_of(algorithm)
    return tuple(rule for rule in RULES if rule in {one.value for one in wanted})


def _plan(**values: object) -> Plan:
    """Raises InvalidMessage for a value that cannot be."""
    from cloud_aug.rounds.plan import Plan
    from edgewire.decoding import convert

    return convert(Plan, values, what="the plan")


@app.command()
def start(series: Series, data: Data = None, as_json: Json = False) -> None:
    """Let a series invite boards."""
    from cloud_aug.rounds import series as all_series

    changed = all_series.start(opened(data), series, now=time.time())
    show({"series": series, "changed": changed}, f"series {series} runs", as_json=as_json)


@app.command()
def stop(series: Series, data: Data = None, as_json: Json = False) -> None:
    """Invite nobody and close no round until 'resume'. What boards still send is kept, and counts."""
    from cloud_aug.rounds import series as all_series

    changed = all_series.stop(opened(data), series, now=time.time())
    show({"series": series, "changed": changed}, f"series {series} is stopped", as_json=as_json)


@app.command()
def resume(series: Series, data: Data = None, as_json: Json = False) -> None:
    """Go on with a series that was stopped, or that stopped because too many rounds failed."""
    from cloud_aug.rounds import series as all_series

    changed = all_series.resume(opened(data), series, now=time.time())
    show({"series": series, "changed": changed}, f"series {series} runs", as_json=as_json)


@app.command()
def status(
    series: Annotated[str | None, typer.Argument(metavar="[SERIES]", help="Without it all are listed.")] = None,
    watch: Watch = False,
    boards: Turns = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Show a series with its rounds, or list all series."""
    from cloud_aug.rounds import status as told

    cloud = opened(data)
    if boards is not None and (series is None or watch):
        raise UsageError("--boards is for one series, and once", hint="cloud-aug round status SERIES --boards last")
    if series is None:
        found = told.list_all(cloud, now=time.time())
        show({"series": found}, _listed(found), as_json=as_json)
    elif watch:
        _watch(cloud, series, as_json=as_json)
    else:
        one = told.status(cloud, series, now=time.time(), history=_shown(as_json))
        report, text = ({}, "") if boards is None else _boards(cloud, series, boards)
        show({"series": one, **report}, _lines(one) + text, as_json=as_json)


def _boards(cloud: Cloud, series: str, which: str) -> tuple[dict[str, object], str]:
    from cloud_aug.rounds import turns

    number, found = turns.of_round(cloud, series, which, now=time.time())
    rows: list[tuple[object, ...]] = [
        (one.name, one.board, one.fate, one.samples, one.steps, _percent(one.score), _worth(one), _joules(one.energy_j))
        for one in found
    ]
    header = ("name", "board", "fate", "samples", "steps", "score", "worth", "energy")
    return {"round": number, "boards": found}, f"\n\nthe boards of round {number}:\n{table(rows, header)}"


def _watch(cloud: Cloud, series: str, *, as_json: bool) -> None:
    """A line of JSON each time something changed; for people, in a terminal, the newest drawn over the one before."""
    import sys

    changes = _changes(cloud, series, _shown(as_json))
    if as_json or not sys.stdout.isatty():
        for one in changes:
            show({"series": one}, _lines(one), as_json=as_json)
        return
    from rich.live import Live

    with Live(auto_refresh=False) as live:
        for one in changes:
            live.update(_fitted(one, live.console), refresh=True)


def _fitted(one: SeriesStatus, console: Console) -> Text:
    """With as many of the last rounds as a terminal has room for: it would cut off below, where the newest is."""
    from rich.text import Text

    text = Text(_lines(one))
    if len(one.history) > 1 and len(console.render_lines(text)) > console.height:
        return _fitted(replace(one, history=one.history[1:]), console)
    return text


def _shown(as_json: bool) -> int:
    """How many rounds to read: people are shown the last ones, and a long series has thousands."""
    return ALL_ROUNDS if as_json else SHOWN_ROUNDS


def _changes(cloud: Cloud, series: str, rounds: int) -> Iterator[SeriesStatus]:
    """How it stands, with its last rounds, whenever that changed, until it runs no more."""
    from cloud_aug.rounds import status as told

    before = None
    while True:
        one = told.status(cloud, series, now=time.time(), history=rounds)
        if one != before:
            yield one
        if one.state not in ("created", "running"):
            return
        before = one
        time.sleep(WATCH_S)


@app.command()
def fetch(
    series: Series,
    out: Out,
    which: Which = "last",
    board: Board = None,
    peer: OfPeer = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Write the weights that a round made, or those of one board in it, to a file."""
    from cloud_aug.rounds import results
    from edgewire.files import write_atomic

    if board is not None and peer:
        raise UsageError("boards do not have the peer", hint="leave out --board, or --peer")
    cloud = opened(data)
    found = results.fetch(cloud, series, which, peer=peer) if board is None else _of_board(cloud, series, which, board)
    write_atomic(out, found.weights, mode=0o600)
    report = {"series": series, "round": found.number, "board": board, "file": str(out), "bytes": len(found.weights)}
    show(report, f"wrote the model of round {found.number} to {out}", as_json=as_json)


def _of_board(cloud: Cloud, series: str, which: str, board: str) -> Model:
    from cloud_aug.rounds import results

    return results.fetch_of_board(cloud, series, which, board)


@app.command()
def publish(
    series: Series, which: Which = "last", peer: OfPeer = False, data: Data = None, as_json: Json = False
) -> None:
    """Make the model of a round the task's newest base; then build the index, which hands it out."""
    from cloud_aug.rounds import results

    done = results.publish(opened(data), series, which, peer=peer, now=time.time())
    record = done.record
    text = f"base {record.base.version} of '{record.task}' is the model of round {done.number} of series {series}"
    text += "" if done.changed else " (it was already)"
    text += f"\nnext: cloud-aug index build --task {record.task}"
    show({"base": record.base, "round": done.number, "changed": done.changed}, text, as_json=as_json)


def _listed(found: list[SeriesStatus]) -> str:
    rows: list[tuple[object, ...]] = [
        (one.id, one.task, one.algorithm, one.state, f"{one.closed}/{one.rounds}", one.failed, _percent(one.best_score))
        for one in found
    ]
    header = ("series", "task", "algorithm", "state", "rounds", "failed", "best")
    return table(rows, header) if rows else "no series yet; make one with 'cloud-aug round create'"


def _lines(one: SeriesStatus) -> str:
    rows = [_row(done) for done in one.history]
    boards = ("answered", "late", "refused", "silent", "steps", "expected", "took")
    header = ("round", "state", "counts by", *boards, "down", "up", "energy", "score", "deadline", "reason")
    lines = [
        f"series {one.id} of '{one.task}': {one.algorithm}, {one.state}{': ' if one.reason else ''}{one.reason}",
        f"{one.closed} of {one.rounds} rounds closed, {one.failed} failed; {one.present} boards wait",
        table(rows, header) if rows else "no round yet",
    ]
    if one.adapt:
        lines.insert(2, f"following boards' pace: {', '.join(one.adapt)}")
    if one.peer:
        lines.insert(2, f"with it learns the base of '{one.peer}': round fetch|publish {one.id} --peer")
    if one.best_round is not None:
        lines.append(f"best: round {one.best_round}, {_percent(one.best_score)} on the boards' own samples")
    if one.epsilon is not None:
        lines.append(f"epsilon {one.epsilon:.3g} at delta 1e-5")
    return "\n".join(lines)


def _worth(one: Turn) -> str | None:
    return None if one.worth is None else f"{one.worth:+.4f}"


def _joules(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f} J"


def _row(one: RoundStatus) -> tuple[object, ...]:
    came = (f"{one.answered}/{one.invited}", one.late, one.refused, one.silent)
    paced = (_steps(one), _seconds(one.expected_s), _seconds(one.took_s))
    until = moment(one.deadline_at) if one.closed_at is None else None
    moved = (one.bytes_down, one.bytes_up, _energy(one), _percent(one.score))
    return (one.number, one.state, one.counts_by, *came, *paced, *moved, until, one.reason)


def _energy(one: RoundStatus) -> str | None:
    """Of the boards that measure it, and how many those are."""
    return None if one.energy_j is None else f"{one.energy_j:.1f} J of {one.energy_told}"


def _steps(one: RoundStatus) -> str | None:
    """How many local steps boards were limited to."""
    if one.steps_least is None or one.steps_least == one.steps_most:
        return None if one.steps_least is None else str(one.steps_least)
    return f"{one.steps_least}-{one.steps_most}"


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f} s"


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.1%}"
