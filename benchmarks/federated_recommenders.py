"""Click models learned by boards: does it take fewer rounds with more boards, and do boards need whole tables?

`dssm`: MovieLens, a board is a user; liked films against three sampled ones that the user never rated; the test is
users who are no boards. `wide_deep`: the Avazu sample, a board is some devices. Five rounds of two epochs, all boards
in each. `din`: Amazon Electronics, a board is a user, tested on everybody's latest fifth; the base is trained on other
users. Boards that hold the rows of their own items (FedSubAvg) against boards that hold whole tables (FedAvg).

Rounds are kept under --folder: a run that is cut off goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from benchmarks.click_fields import fields_wide_deep, read_clicks
from benchmarks.figures import Figure, answer, at_least, at_most, noted
from benchmarks.protocols import HISTORY, folds
from cloud_aug.simulation.plan import Plan, Round
from cloud_aug.simulation.play import Simulation
from demo.data import find
from edgelearn.crowd import Crowd
from edgelearn.device import use_threads
from edgelearn.federated import splits
from edgelearn.federated.algorithm import LocalSettings
from edgelearn.federated.splits import Part
from edgelearn.models.build import build, set_weights
from edgelearn.pretrain import train_base
from edgewire.tasks import InputSchema, ModelName, ModelSpec, Task

GROUPS = ("dssm", "wide_deep", "din")
ROUNDS, EPOCHS = 5, 2
CROWDS = {"dssm": (25, 100, 400), "wide_deep": (10, 25, 100)}
NEGATIVES, LIKES = 3, 30  # sampled per liked film; liked films of a user, the latest
DIN_BOARDS, DIN_ROUNDS, DIN_SHARE = 400, 6, 0.1
TESTED = 0.2  # of each user's rows, the latest
RATES = {"dssm": 3.0, "wide_deep": 0.5, "din": 1.0}
DIN_ARMS = {
    "whole tables": ("fedavg", ()),
    "own rows, plain mean": ("fedsubavg", (("corrected", 0.0),)),
    "own rows, mean per row": ("fedsubavg", ()),
}


Make = Callable[[], nn.Module]  # the same model anew


@dataclass(frozen=True)
class Clicks:
    """Samples, whose they are, and the test."""

    x: np.ndarray
    y: np.ndarray
    owner: np.ndarray
    test: tuple[np.ndarray, np.ndarray]


def main() -> None:
    arguments = _arguments()
    use_threads(1)
    makers = {"dssm": _more_boards, "wide_deep": _more_boards, "din": _din}
    figures = [figure for group in arguments.groups for figure in makers[group](group, arguments.folder)]
    answer((__doc__ or "").partition("\n\n")[0], figures, arguments.json)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.federated_recommenders", description=(__doc__ or ""))
    parser.add_argument("--groups", type=lambda text: text.split(","), default=list(GROUPS))
    parser.add_argument("--folder", type=Path, default=Path("build/recommenders"), help="where rounds are kept")
    parser.add_argument("--quick", action="store_true", help="wide_deep only")
    parser.add_argument("--json", type=Path, metavar="OUT")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.groups = ["wide_deep"]
    return arguments


def _more_boards(group: str, folder: Path) -> Iterator[Figure]:
    """AUC after each round, by how many boards there are; each has its own samples, so more boards have more."""
    clicks, make = _movielens() if group == "dssm" else _avazu()
    reached: dict[int, float] = {}
    for algorithm in ("fedavg", "fedsubavg"):
        for boards in CROWDS[group]:
            crowd = Crowd(make(), clicks.x, clicks.y, _parts(clicks.owner, boards), clicks.test, metric="auc")
            plan = Plan(algorithm=algorithm, rounds=ROUNDS, share=1.0, settings=_settings(group))
            history = _play(crowd, plan, folder / f"{group}-{algorithm}-{boards}")
            scores = [100 * done.score for done in history]
            told = ", ".join(f"{score:.2f}" for score in scores)
            reached[boards] = scores[-1]
            yield noted(f"{group}, {algorithm}, {boards} boards", scores[-1], "% AUC", anchor=f"by round: {told}")
        few, many = CROWDS[group][0], CROWDS[group][-1]
        what = f"{group}, {algorithm}: {many} boards over {few}"
        yield at_least(what, reached[many] - reached[few], "points", 0, anchor=f"after {ROUNDS} rounds")


def _din(group: str, folder: Path) -> Iterator[Figure]:
    clicks, make = _amazon()
    parts = _parts(clicks.owner, DIN_BOARDS)
    plan = Plan(rounds=DIN_ROUNDS, share=DIN_SHARE, settings=_settings(group))
    before = Crowd(make(), clicks.x, clicks.y, parts, clicks.test, metric="auc")
    score: dict[str, float] = {"base": 100 * before.score(before.logits(before.weights()))}
    yield noted("din, base of other users", score["base"], "% AUC", anchor=f"{DIN_BOARDS} boards")
    size: dict[str, float] = {}
    for arm, (algorithm, options) in DIN_ARMS.items():
        crowd = Crowd(make(), clicks.x, clicks.y, parts, clicks.test, metric="auc")
        arm_plan = replace(plan, algorithm=algorithm, options=options)
        history = _play(crowd, arm_plan, folder / f"{group}-{arm.replace(' ', '-')}")
        score[arm] = 100 * float(np.mean([done.score for done in history[-3:]]))
        size[arm] = sum(r.bytes_down + r.bytes_up for r in history) / sum(r.invited for r in history)
        each = f"{DIN_ROUNDS} rounds; {size[arm] / 1000:.1f} kB per board and round, both ways"
        yield noted(f"din, {arm}", score[arm], "% AUC", anchor=each)
    whole, plain, corrected = DIN_ARMS
    yield at_least("din: own rows over whole tables", score[corrected] - score[whole], "points", -0.2, anchor="AUC")
    yield noted("din: mean per row over plain mean", score[corrected] - score[plain], "points", anchor="AUC")
    yield at_most("din: bytes of own rows, of whole tables'", size[corrected] / size[whole], "x", 1, anchor="")
    yield from _columns(before)


def _columns(crowd: Crowd) -> Iterator[Figure]:
    """What else there is per item (liking, trust), which boards are sent once, with the base."""
    table = "items.vector.weight"
    held = float(np.mean([len(crowd.rows(board)[table]) for board in crowd.boards]))
    every = len(crowd.weights()[table])
    yield noted(
        "din: rows that a board holds, of all", held / every, "x", anchor=f"{held:.0f} of {every}, as of all columns"
    )


def _settings(group: str) -> LocalSettings:
    return LocalSettings(epochs=EPOCHS, batch_size=16, learning_rate=RATES[group])


def _play(crowd: Crowd, plan: Plan, folder: Path) -> list[Round]:
    simulation = Simulation(crowd, plan, folder, world=folder.name)
    return simulation.run(lambda done: print(f"{folder.name}: round {done.number + 1}, {done.score:.4f}", flush=True))


def _parts(owner: np.ndarray, boards: int) -> list[Part]:
    """A board each for the first so many owners: those of a smaller crowd are in every larger one."""
    names = np.random.default_rng(0).permutation(np.unique(owner))[:boards]
    return [Part(np.flatnonzero(owner == name)) for name in names]


def _movielens() -> tuple[Clicks, Make]:
    fold = next(folds("movielens", 0))
    rng = np.random.default_rng(0)
    items = int(fold.task.input.items or 0)
    users = [(fold.x[fold.user == user], fold.y[fold.user == user]) for user in np.unique(fold.user)]
    mine = [_ranked(x, y, items, rng) for x, y in users]
    tested = [_ranked(board.x, board.y, items, rng) for board in fold.boards]
    owner = np.repeat(np.arange(len(mine)), [len(y) for _, y in mine])
    return Clicks(*_joined(mine), owner, _joined(tested)), lambda: build(_task("dssm", items), seed=0)


def _ranked(x: np.ndarray, y: np.ndarray, items: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The latest films that a user liked, and others, sampled, at the same moments."""
    liked = x[y == 1][-LIKES:]
    others = np.repeat(liked, NEGATIVES, axis=0)
    others[:, 0] = rng.choice(np.setdiff1d(np.arange(1, items + 1), x[:, 0]), len(others))
    return np.concatenate([liked, others]), np.repeat([1, 0], [len(liked), len(others)])


def _joined(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


def _avazu() -> tuple[Clicks, Make]:
    files = [find(f"avazu_{part}.csv") for part in ("train", "dev", "test")]
    x, y, who = read_clicks(*files)
    trained = len(read_clicks(files[0])[1])
    dealt = splits.by_owner(who[:trained], CROWDS["wide_deep"][-1], np.random.default_rng(0))
    owner = np.empty(trained, np.int64)
    for board, part in enumerate(dealt):
        owner[part.rows] = board
    test = x[trained:], y[trained:]
    return Clicks(x[:trained], y[:trained], owner, test), lambda: fields_wide_deep(x.shape[1], seed=0)


def _amazon() -> tuple[Clicks, Make]:
    """The base that boards go on with is trained on the samples of all other users."""
    fold = next(folds("amazon", 0))
    chosen = np.random.default_rng(0).permutation(np.unique(fold.user))[:DIN_BOARDS]
    here, late = np.isin(fold.user, chosen), np.zeros(len(fold.user), bool)
    for user in chosen:
        rows = np.flatnonzero(fold.user == user)  # in the order of time
        late[rows[len(rows) - round(TESTED * len(rows)) :]] = True
    train, test = here & ~late, here & late
    task = _task("din", int(fold.task.input.items or 0))
    base = train_base(task, fold.x[~here], fold.y[~here], fold.user[~here], seed=0, epochs=fold.epochs)

    def make() -> nn.Module:
        model = build(task)
        set_weights(model, base)
        return model

    return Clicks(fold.x[train], fold.y[train], fold.user[train], (fold.x[test], fold.y[test])), make


def _task(name: ModelName, items: int) -> Task:
    schema = InputSchema((1 + HISTORY,), "int32", items=items)
    return Task(name, name, schema, ("no", "yes"), ModelSpec(name, width=32, embedding=16), "auc")


if __name__ == "__main__":
    main()
