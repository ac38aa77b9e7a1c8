"""How many rounds do the federated algorithms need, how good do they get on boards that differ, and for how many bytes?

MNIST with its writers, 100 boards, the code that `cloud-aug simulate` runs. `table`: rounds until the reference's
accuracy, against the reference's number of rounds; how that depends on initialization and input scaling (`start`) and
on E (`epochs`); `compute`: passes over the data, against one board that has all of it. Then, each after a fixed number
of rounds: `algorithms` on six splits, `compression` both ways, planted attackers (`attack`), boards that drop or send
garbage (`faults`), that are online in turns (`availability`), noise (`privacy`), and a second model that learns with
the boards' one (`mutual`).

What is played is kept under --folder, round by round: a run that is cut off goes on, and --report prints what is there.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.federated_cases import BOARDS, GROUPS, ONE_EPOCH, Case
from benchmarks.figures import Figure, answer, at_most, noted
from benchmarks.reference_models import reference_model
from cloud_aug.simulation.plan import Round, judges
from cloud_aug.simulation.play import Simulation
from cloud_aug.simulation.processes import Processes
from demo.data import find
from edgelearn.crowd import Crowd
from edgelearn.device import use_threads
from edgelearn.federated import splits
from edgelearn.federated.splits import Part

SLACK = 1.15  # of the goal
QUICK_ROUNDS = 3


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
    parser.add_argument("--seeds", type=int, default=3, help="of a cell with C < 0.5; its figure is the median")
    parser.add_argument("--folder", type=Path, default=Path("build/federated"), help="where rounds are kept")
    parser.add_argument("--processes", type=int, default=1, help="that play boards, one thread each: the same bits")
    parser.add_argument("--report", action="store_true", help="play nothing: figures of what is kept")
    parser.add_argument("--quick", action="store_true", help="one cell of the table; a few rounds of one algorithm")
    parser.add_argument("--json", type=Path, metavar="OUT")
    return parser.parse_args()


def _words(text: str) -> list[str]:
    return text.split(",")


def _cases(arguments: argparse.Namespace) -> Iterator[Case]:
    if arguments.quick:
        plan = replace(ONE_EPOCH, rounds=QUICK_ROUNDS)
        yield Case("algorithms", f"fedavg on shards for {QUICK_ROUNDS} rounds", "2nn", "shards", plan)
        return
    for case in (case for name in arguments.groups for case in GROUPS[name](arguments.seeds)):
        if any(part in case.name for part in arguments.cases or [""]):
            yield case


class World:
    """The data, read once."""

    def __init__(self) -> None:
        data = np.load(find("mnist_writers.npz"), allow_pickle=False)
        self.x, self.y, self.writer = data["x_train"], data["y_train"].astype(np.int64), data["writer_train"]
        self.test = data["x_test"], data["y_test"].astype(np.int64)

    def crowd(self, case: Case) -> Crowd:
        """The server's own samples, where a rule needs them, are taken from the training set before it is dealt."""
        rng = np.random.default_rng(case.plan.seed)
        own = rng.permutation(len(self.y))[: case.own] if judges(case.plan) else np.zeros(0, int)
        kept = np.delete(np.arange(len(self.y)), own)
        x, y = self.x[kept], self.y[kept]
        parts = {
            "iid": lambda: splits.iid(len(y), case.boards, rng),
            "shards": lambda: splits.shards(y, BOARDS, rng),
            "writers": lambda: splits.by_owner(self.writer[kept], BOARDS, rng),
            "dirichlet": lambda: splits.dirichlet(y, BOARDS, rng),
            "quantity": lambda: splits.quantity(len(y), BOARDS, rng),
            "feature": lambda: splits.feature(len(y), BOARDS, rng, strength=0.3, scale=float(x.std())),
            "concept": lambda: splits.concept(len(y), BOARDS, rng, classes=10),
            "halves": lambda: splits.shards(y, BOARDS, rng, per_board=1),
            "day-night": lambda: _day_night(y, rng),
        }[case.split]()
        trusted = (self.x[own], self.y[own]) if len(own) else None
        model = reference_model(case.model, seed=case.plan.seed)
        peer = reference_model(case.peer, seed=case.plan.seed) if case.peer else None
        return Crowd(model, x, y, parts, self.test, trusted=trusted, peer=peer)


def _day_night(y: np.ndarray, rng: np.random.Generator) -> list[Part]:
    """Half of the boards have labels 0 to 4, the others 5 to 9; those of one half do not differ."""
    halves = [np.flatnonzero((y < 5) == low) for low in (True, False)]
    return [Part(rows[part.rows]) for rows in halves for part in splits.iid(len(rows), BOARDS // 2, rng)]


def _play(case: Case, world: World, arguments: argparse.Namespace) -> tuple[list[Round], float | None]:
    """The rounds of a case, up to its target or its end; and the ε that they cost."""
    name = f"{case.name} seed {case.plan.seed}".replace(" ", "_").replace("/", "_")
    folder = arguments.folder / name
    if arguments.report and not folder.exists():
        return [], None
    folder.mkdir(parents=True, exist_ok=True)
    with Processes(arguments.processes) as several:
        players = several if arguments.processes > 1 else None
        simulation = Simulation(
            world.crowd(case), case.plan, folder, world=f"{case.model} {case.split}", players=players
        )
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
    wanted, runs = len(runs), [run for run in runs if _over(*run)]
    if not runs:
        print(f"not run to its end: {name} ({longest} rounds)")
        return
    took = [_rounds_to(case, history) for case, history in runs]
    what = f"{name}: {case.unit} to {100 * (case.target or 0):.0f} %"
    anchor = f"reference {case.reference:g}, seeds: {len(runs)}{f' of {wanted}' if len(runs) < wanted else ''}"
    reached = [rounds for rounds in took if rounds is not None]
    if len(reached) * 2 <= len(took):
        best = 100 * max(done.score for _, history in runs for done in history)
        given_up = f"{anchor}; not reached, best {best:.2f} %"
        yield Figure(what, longest * case.per_round, case.unit, given_up, f"<= {SLACK} x", False)
        return
    value = case.per_round * statistics.median(sorted([*reached, *[10**6] * (len(took) - len(reached))]))
    limit = SLACK * case.reference if case.unit != "rounds" else int(SLACK * case.reference)
    yield at_most(what, value, case.unit, limit, anchor=anchor)


def _fixed(case: Case, history: list[Round], epsilon: float | None) -> Figure:
    """Accuracy at the end, and bytes per board and round; rounds beyond the plan's, of an earlier run, do not count."""
    history = history[: case.plan.rounds]
    score = 100 * statistics.mean(done.score for done in history[-case.last :])
    asked = sum(done.invited for done in history)
    sent = sum(done.answered + done.refused + done.late for done in history)
    down = sum(done.bytes_down for done in history) / max(asked, 1)
    up = sum(done.bytes_up for done in history) / max(sent, 1)
    refused = sum(done.refused for done in history)
    anchor = f"{len(history)} rounds; per board and round {down / 1000:.1f} kB down, {up / 1000:.1f} kB up"
    anchor += f"; {refused} refused" if refused else ""
    peers = [done.peer_score for done in history[-case.last :] if done.peer_score is not None]
    anchor += f"; its peer {100 * statistics.mean(peers):.2f} %" if peers else ""
    anchor += f"; epsilon {epsilon:.3g} at delta 1e-5" if epsilon is not None else ""
    return noted(case.name, score, "%", anchor=anchor)


if __name__ == "__main__":
    main()
