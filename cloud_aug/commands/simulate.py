"""`cloud-aug simulate`: federated rounds of many boards, on processes of this machine or on a Ray cluster."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloud_aug.commands.options import (
    Address,
    Batch,
    Clip,
    Compression,
    Down,
    EngineName,
    EngineOption,
    Epochs,
    Json,
    Noise,
    Rate,
    Sets,
    engine,
    option_of,
)
from cloud_aug.output import progress, show, table

if TYPE_CHECKING:
    from cloud_aug.simulation.boards import Players
    from cloud_aug.simulation.plan import Plan, Round
    from cloud_aug.simulation.play import Simulation
    from cloud_aug.simulation.world import World

SHOWN_ROUNDS = 12

Source = Annotated[Path, typer.Argument(metavar="SAMPLES", help="A data file or folder, as for `pool ingest`.")]
Test = Annotated[Path | None, typer.Option("--test", help="Samples to test on.  [default: a sixth of SAMPLES]")]
TaskFile = Annotated[Path | None, typer.Option("--task-file", help="A task's JSON.  [default: drafted from SAMPLES]")]
Name = Annotated[str, typer.Option("--algorithm", help="One of docs/algorithms.md, or your own as module:Class.")]
Split = Annotated[str, typer.Option(help="iid, shards, dirichlet, user, quantity, feature or concept.")]
Skew = Annotated[
    float | None,
    typer.Option(
        help="Shards per board (2), alpha (0.5), spread of sizes (1), strength of feature skew (0.3), or "
        "share of boards with swapped labels (0.5)."
    ),
]
Boards = Annotated[int, typer.Option("--boards", min=1, max=10_000)]
Rounds = Annotated[int, typer.Option("--rounds", min=1, max=20_000)]
Share = Annotated[float, typer.Option("--share", min=0, max=1, help="Of the boards, invited to a round; at least one.")]
Drop = Annotated[float, typer.Option("--drop", min=0, max=1, help="Share of the invited that never answer.")]
Late = Annotated[int, typer.Option("--late", min=0, max=100, help="Answers are late by up to so many rounds.")]
Turns = Annotated[
    int, typer.Option("--turns", min=0, help="Boards with low labels are online for so many rounds, then the others.")
]
Attack = Annotated[str, typer.Option("--attack", help="What attackers send: flip, noise, nan or greedy.")]
Attackers = Annotated[float, typer.Option("--attackers", min=0, max=1, help="Share of the boards that attack.")]
Peer = Annotated[
    str,
    typer.Option("--peer", metavar="NAME[:WIDTH]", help="The cloud's own model, which learns with boards'."),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same bytes.")]
ProcessCount = Annotated[
    int, typer.Option("--processes", min=1, max=256, help="Play boards on so many, each with all samples in memory.")
]
Out = Annotated[Path | None, typer.Option("--out", help="Where rounds are kept: a run that was cut off goes on.")]


def simulate(
    samples: Source,
    test: Test = None,
    task_file: TaskFile = None,
    algorithm: Name = "fedavg",
    options: Sets = None,
    split: Split = "iid",
    skew: Skew = None,
    boards: Boards = 100,
    rounds: Rounds = 20,
    share: Share = 0.1,
    epochs: Epochs = 5,
    batch_size: Batch = 10,
    learning_rate: Rate = 0.04,
    compression: Compression = "none",
    down: Down = "none",
    drop: Drop = 0.0,
    late: Late = 0,
    turns: Turns = 0,
    attack: Attack = "",
    attackers: Attackers = 0.0,
    noise: Noise = 0.0,
    clip: Clip = 1.0,
    peer: Peer = "",
    seed: Seed = 0,
    out: Out = None,
    processes: ProcessCount = 1,
    engine_name: EngineOption = EngineName.plain,
    address: Address = "",
    as_json: Json = False,
) -> None:
    """Play federated rounds of many boards here, with the algorithms and the checks of real ones."""
    from cloud_aug.simulation.plan import Plan
    from cloud_aug.simulation.world import World
    from edgelearn.federated.algorithm import LocalSettings

    plan = Plan(
        algorithm=algorithm,
        options=tuple(sorted(map(option_of, options or []))),
        rounds=rounds,
        share=share,
        settings=LocalSettings(epochs, batch_size, learning_rate),
        seed=seed,
        compression=compression,
        down=down,
        drop=drop,
        late=late,
        turn_rounds=turns,
        attack=attack,
        attackers=attackers,
        noise=noise,
        clip=clip,
    )
    with _folder(out) as folder, _players(engine_name, address, processes) as players, progress() as bar:
        files = (samples, test, task_file)
        simulation = _simulation(World(split, boards, skew, seed, peer), plan, folder, files, players)
        history = simulation.run(lambda done: bar("rounds", done.number + 1, rounds))
    _show(plan, history, simulation.epsilon(), as_json=as_json)


@contextlib.contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    """Held by this process alone."""
    from edgewire.files import exclusive

    with contextlib.ExitStack() as stack:
        folder = out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cloud-aug-simulate-")))
        folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(exclusive(folder / "lock", doing=f"simulating in {folder}"))
        yield folder


@contextlib.contextmanager
def _players(name: EngineName, address: str, processes: int) -> Iterator[Players | None]:
    from edgewire.errors import UsageError

    with engine(name, address) as on_ray:
        if on_ray:
            from cloud_aug.on_ray import BoardsOnRay

            if processes > 1:
                raise UsageError("--processes are of this machine", hint="leave out --engine ray, or --processes")
            yield BoardsOnRay()
        elif processes > 1:
            from cloud_aug.simulation.processes import Processes

            with Processes(processes) as players:
                yield players
        else:
            yield None


def _simulation(
    world: World, plan: Plan, folder: Path, files: tuple[Path, Path | None, Path | None], players: Players | None
) -> Simulation:
    from cloud_aug.simulation.plan import judges
    from cloud_aug.simulation.play import Simulation
    from edgelearn.device import use_threads
    from edgewire.decoding import decode
    from edgewire.readers import draft_task, read
    from edgewire.tasks import Task

    source, test_file, task_file = files
    if task_file is not None:
        task = decode(Task, task_file.read_bytes(), what=str(task_file))
    else:
        task = draft_task(source, task_id="simulated", title="Simulated")
    samples = read(source, task)
    test = read(test_file, task) if test_file is not None else None
    use_threads(1)  # sums depend on how many there are, and small models are no faster on more
    crowd = world.crowd(task, samples, test, judged=judges(plan))
    return Simulation(crowd, plan, folder, world=world.text(task, samples, test), players=players)


def _show(plan: Plan, history: list[Round], epsilon: float | None, *, as_json: bool) -> None:
    scores = [done.score for done in history]
    report = {
        "algorithm": plan.algorithm,
        "rounds": history,
        "best_score": max(scores),
        "best_round": scores.index(max(scores)) + 1,
        "last_score": scores[-1],
        "bytes_down": sum(done.bytes_down for done in history),
        "bytes_up": sum(done.bytes_up for done in history),
        "epsilon": epsilon,
        "last_peer_score": history[-1].peer_score,
    }
    rows: list[tuple[object, ...]] = [
        (r.number + 1, f"{r.score:.4f}", r.answered, r.invited, r.late, r.refused, r.bytes_down, r.bytes_up)
        for r in history[-SHOWN_ROUNDS:]
    ]
    header = ("round", "score", "answered", "invited", "late", "refused", "bytes down", "bytes up")
    best = f"best {report['best_score']:.4f} in round {report['best_round']} of {len(history)}"
    privacy = f"; epsilon {epsilon:.3g} at delta 1e-5" if epsilon is not None else ""
    peer = f"; the peer has {history[-1].peer_score:.4f}" if history[-1].peer_score is not None else ""
    show(report, f"{table(rows, header)}\n{best}{privacy}{peer}", as_json=as_json)
