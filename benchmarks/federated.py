"""How many rounds do the federated algorithms need, how good do they get on boards that differ, and for how many bytes?

MNIST with its writers, 100 boards, the code that `cloud-aug simulate` runs. `table`: rounds until the reference's
accuracy, against the reference's number of rounds. Then, each after a fixed number of rounds: `algorithms` on sorted
shards and writers, `compression`, planted attackers (`attack`), boards that are online in turns (`availability`), noise
(`privacy`).

What is played is kept under --folder, round by round: a run that is cut off goes on, and --report prints what is there.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.figures import Figure, answer, at_most, noted
from benchmarks.reference_models import reference_model
from cloud_aug.simulation.plan import Plan, Round
from cloud_aug.simulation.play import Simulation
from demo.data import find
from edgelearn.crowd import Crowd
from edgelearn.device import use_threads
from edgelearn.federated import splits
from edgelearn.federated.algorithm import LocalSettings

BOARDS, TRUSTED = 100, 500
TARGETS = {"2nn": 0.97, "lenet5": 0.99}
BATCHES = (10, 100)
REFERENCE = {  # rounds until TARGETS, by model, batch size and C
    "2nn": {10: (107, 28, 34, 38, 35), 100: (288, 99, 99, 101, 102)},
    "lenet5": {10: (236, 82, 51, 49, 38), 100: (724, 80, 90, 114, 134)},
}
SHARES = (0.0, 0.1, 0.2, 0.5, 1.0)
SLACK = 1.15  # of the goal
PATIENCE = 1.5  # times the reference's rounds, after which a cell is given up
ROUNDS, LAST = 30, 5  # of all other groups: how many, and over how many of the last the accuracy is averaged
QUICK_ROUNDS = 3
GROUPS = ("table", "algorithms", "compression", "attack", "availability", "privacy")

_ONE_EPOCH = Plan(settings=LocalSettings(epochs=1, batch_size=10, learning_rate=0.04), rounds=ROUNDS)


@dataclass(frozen=True)
class Case:
    """One simulation. target: accuracy at which it may stop; goal: of the rounds until then."""

    group: str
    name: str
    model: str
    split: str
    plan: Plan
    target: float | None = None
    reference: int = 0


def main() -> None:
    arguments = _arguments()
    use_threads(1)
    world = World()
    found = [(case, _play(case, world, arguments)) for case in _cases(arguments)]
    answer((__doc__ or "").partition("\n\n")[0], list(_figures(found)), arguments.json)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.federated", description=(__doc__ or ""))
    parser.add_argument("--groups", type=_words, default=list(GROUPS), help=f"of {', '.join(GROUPS)}")
    parser.add_argument("--cases", type=_words, default=[], help="only those whose name contains one of these")
    parser.add_argument("--seeds", type=int, default=1, help="of each cell of the table; its figure is the median")
    parser.add_argument("--folder", type=Path, default=Path("build/federated"), help="where rounds are kept")
    parser.add_argument("--report", action="store_true", help="play nothing: figures of what is kept")
    parser.add_argument("--quick", action="store_true", help="one cell of the table; a few rounds of one algorithm")
    parser.add_argument("--json", type=Path, metavar="OUT")
    return parser.parse_args()


def _words(text: str) -> list[str]:
    return text.split(",")


def _cases(arguments: argparse.Namespace) -> Iterator[Case]:
    if arguments.quick:
        plan = replace(_ONE_EPOCH, rounds=QUICK_ROUNDS)
        yield Case("algorithms", f"fedavg on shards for {QUICK_ROUNDS} rounds", "2nn", "shards", plan)
        return
    for case in [*_table(arguments.seeds), *_algorithms(), *_compression(), *_attack(), *_availability(), *_privacy()]:
        if case.group in arguments.groups and any(part in case.name for part in arguments.cases or [""]):
            yield case


def _table(seeds: int) -> Iterator[Case]:
    for model, rows in REFERENCE.items():
        for batch, cells in rows.items():
            for share, reference in zip(SHARES, cells, strict=True):
                for seed in range(1 if share >= 0.5 else seeds):
                    settings = LocalSettings(epochs=5, batch_size=batch, learning_rate=0.04)
                    plan = Plan(share=share, settings=settings, rounds=int(PATIENCE * reference), seed=seed)
                    name = f"{model} B={batch} C={share}"
                    yield Case("table", name, f"{model} standardised", "iid", plan, TARGETS[model], reference)


def _algorithms() -> Iterator[Case]:
    options = {"fedprox": (("mu", 0.1),), "fedadam": (("server_rate", 0.01),), "fedyogi": (("server_rate", 0.01),)}
    names = ("fedsgd", "fedavg", "fedprox", "scaffold", "fedadam", "fedyogi", "fedlaavg", "fedbuff", "ensemble")
    for split in ("shards", "writers"):
        for name in names:
            late = 4 if name == "fedbuff" else 0
            plan = replace(_ONE_EPOCH, algorithm=name, options=options.get(name, ()), late=late)
            yield Case("algorithms", f"{name} on {split}", "2nn", split, plan)


def _compression() -> Iterator[Case]:
    for split in ("iid", "shards"):
        for name in ("none", "eight-bit", "one-bit", "topk"):
            plan = replace(_ONE_EPOCH, compression=name)
            yield Case("compression", f"compression {name} on {split}", "2nn", split, plan)


def _attack() -> Iterator[Case]:
    for name in ("fedavg", "median", "trimmed-mean", "multi-krum", "norm-clipping", "leave-one-out"):
        options = {"trimmed-mean": (("share", 0.3),), "multi-krum": (("attackers", 3.0),)}.get(name, ())
        for attack in ("flip", "greedy", "nan"):
            plan = replace(_ONE_EPOCH, algorithm=name, options=options, attack=attack, attackers=0.2)
            yield Case("attack", f"{name} with 20 % sending {attack} on iid", "2nn", "iid", plan)


def _availability() -> Iterator[Case]:
    for name in ("fedavg", "fedlaavg"):
        plan = replace(_ONE_EPOCH, algorithm=name, turn_rounds=10, rounds=60)
        yield Case("availability", f"{name} in turns of 10 rounds", "2nn", "halves", plan)


def _privacy() -> Iterator[Case]:
    for noise in (0.3, 1.0):
        options = (("clip", 1.0), ("noise_multiplier", noise))
        plan = replace(_ONE_EPOCH, algorithm="dp-fedavg", options=options)
        yield Case("privacy", f"server's noise {noise} on iid", "2nn", "iid", plan)
    plan = replace(_ONE_EPOCH, noise=0.01)
    yield Case("privacy", "boards' own noise 0.01 on iid", "2nn", "iid", plan)


class World:
    """The data, read once."""

    def __init__(self) -> None:
        data = np.load(find("mnist_writers.npz"), allow_pickle=False)
        self.x, self.y, self.writer = data["x_train"], data["y_train"].astype(np.int64), data["writer_train"]
        self.test = data["x_test"], data["y_test"].astype(np.int64)

    def crowd(self, case: Case) -> Crowd:
        """The server's own samples, where a rule needs them, are taken from the training set before it is dealt."""
        rng = np.random.default_rng(case.plan.seed)
        own = rng.permutation(len(self.y))[:TRUSTED] if case.plan.algorithm == "leave-one-out" else np.zeros(0, int)
        kept = np.delete(np.arange(len(self.y)), own)
        x, y = self.x[kept], self.y[kept]
        parts = {
            "iid": lambda: splits.iid(len(y), BOARDS, rng),
            "shards": lambda: splits.shards(y, BOARDS, rng),
            "writers": lambda: splits.by_owner(self.writer[kept], BOARDS, rng),
            "halves": lambda: splits.shards(y, BOARDS, rng, per_board=1),
        }[case.split]()
        trusted = (self.x[own], self.y[own]) if len(own) else None
        return Crowd(reference_model(case.model, seed=case.plan.seed), x, y, parts, self.test, trusted=trusted)


def _play(case: Case, world: World, arguments: argparse.Namespace) -> tuple[list[Round], float | None]:
    """The rounds of a case, up to its target or its end; and the ε that they cost."""
    name = f"{case.name} seed {case.plan.seed}".replace(" ", "_").replace("/", "_")
    folder = arguments.folder / name
    if arguments.report and not folder.exists():
        return [], None
    folder.mkdir(parents=True, exist_ok=True)
    simulation = Simulation(world.crowd(case), case.plan, folder, world=f"{case.model} {case.split}")
    while not arguments.report and not _over(case, simulation.history):
        done = simulation.next_round()
        print(f"{case.name}: round {done.number + 1}, {100 * done.score:.2f} %", flush=True)
    return simulation.history, simulation.epsilon()


def _over(case: Case, history: list[Round]) -> bool:
    return len(history) >= case.plan.rounds or _rounds_to(case, history) is not None


def _rounds_to(case: Case, history: list[Round]) -> int | None:
    """How many rounds it took until the target was first reached; None if it was not."""
    if case.target is None:
        return None
    return next((done.number + 1 for done in history if done.score >= case.target), None)


def _figures(found: list[tuple[Case, tuple[list[Round], float | None]]]) -> Iterator[Figure]:
    cells: dict[str, list[tuple[Case, list[Round]]]] = {}
    for case, (history, epsilon) in found:
        if case.target is not None:
            cells.setdefault(case.name, []).append((case, history))
        elif _over(case, history):
            yield _fixed(case, history, epsilon)
        else:
            print(f"not run to its end: {case.name} ({len(history)} of {case.plan.rounds} rounds)")
    for name, runs in cells.items():
        yield from _cell(name, runs)


def _cell(name: str, runs: list[tuple[Case, list[Round]]]) -> Iterator[Figure]:
    """One cell of the table: the median over the seeds that are over."""
    case, longest = runs[0][0], max(len(history) for _, history in runs)
    if not all(_over(case, history) for _, history in runs):
        print(f"not run to its end: {name} ({longest} rounds)")
        return
    took = [_rounds_to(case, history) for case, history in runs]
    what = f"{name}: rounds to {100 * (case.target or 0):.0f} %"
    anchor = f"reference {case.reference}, seeds: {len(runs)}"
    reached = [rounds for rounds in took if rounds is not None]
    if len(reached) * 2 <= len(took):
        best = 100 * max(done.score for _, history in runs for done in history)
        yield Figure(what, longest, "rounds", f"{anchor}; not reached, best {best:.2f} %", f"<= {SLACK} x", False)
        return
    value = statistics.median(sorted([*reached, *[10**6] * (len(took) - len(reached))]))
    yield at_most(what, value, "rounds", int(SLACK * case.reference), anchor=anchor)


def _fixed(case: Case, history: list[Round], epsilon: float | None) -> Figure:
    """Accuracy at the end, and bytes per board and round; rounds beyond the plan's, of an earlier run, do not count."""
    history = history[: case.plan.rounds]
    score = 100 * statistics.mean(done.score for done in history[-LAST:])
    asked = sum(done.invited for done in history)
    sent = sum(done.answered + done.refused + done.late for done in history)
    down = sum(done.bytes_down for done in history) / max(asked, 1)
    up = sum(done.bytes_up for done in history) / max(sent, 1)
    refused = sum(done.refused for done in history)
    anchor = f"{len(history)} rounds; per board and round {down / 1000:.1f} kB down, {up / 1000:.1f} kB up"
    anchor += f"; {refused} refused" if refused else ""
    anchor += f"; epsilon {epsilon:.3g} at delta 1e-5" if epsilon is not None else ""
    return noted(case.name, score, "%", anchor=anchor)


if __name__ == "__main__":
    main()
