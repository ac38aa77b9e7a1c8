"""Which recipe helps boards how much? Every recipe on real users, with the product's own functions, paired by user."""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.figures import machine
from benchmarks.protocols import MIN_TEST_ROWS, Board, Fold, folds
from edgelearn.device import use_threads
from edgelearn.examples import make
from edgelearn.metrics import accuracy
from edgelearn.models.build import Weights, load, outputs
from edgelearn.personalize.choose import Figure, choose
from edgelearn.personalize.recipes import RECIPES, usable
from edgelearn.personalize.rehearsal import rehearse
from edgelearn.personalize.setting import Candidate, Setting, Settings
from edgelearn.personalize.veto import gather
from edgelearn.pretrain import train_base
from edgelearn.retrieval.prototypes import class_means

BOOTSTRAPS = 2000


@dataclass(frozen=True)
class Row:
    """One board, number of shots, seed and recipe. accuracy: on held-out rows; chosen: what `auto` shipped."""

    data: str
    board: str
    shots: int
    seed: int
    recipe: str
    accuracy: float
    kept: int
    outside: int
    seconds: float
    chosen: str = ""


@dataclass(frozen=True)
class Summary:
    """Over users, each the mean of its seeds. gain: paired difference to `local` in points, with its 95 % interval."""

    data: str
    shots: int
    recipe: str
    mean: float
    worst_decile: float
    gain: float
    gain_low: float
    gain_high: float
    harmed: float
    kept: float
    seconds: float


def main() -> None:
    arguments = _arguments()
    use_threads(1)
    rows = _resume(arguments.rows)
    done = {(row.data, row.board, row.shots, row.seed, row.recipe) for row in rows}
    with arguments.rows.open("a") as file:
        for row in _measure(arguments, done):
            file.write(json.dumps(asdict(row)) + "\n")
            file.flush()
            rows.append(row)
    wanted = [row for row in rows if row.data == arguments.data and row.shots in arguments.shots]
    found = summarize(wanted)
    print(table(found))
    if arguments.json:
        report = {"rows": [asdict(row) for row in wanted], "summary": [asdict(s) for s in found], "machine": machine()}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.personalize", description=__doc__)
    parser.add_argument("--data", default="wisdm", help="myo, wisdm, mnist, or an NPZ file with `part`")
    parser.add_argument("--shots", default="1,3,10", type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--boards", type=int, default=0, help="at most so many per fold; 0: all")
    parser.add_argument("--recipes", default="base,local,random,matched,mpda,auto", type=lambda text: text.split(","))
    parser.add_argument("--quick", action="store_true", help="one seed, six boards, 3 shots")
    parser.add_argument("--rows", type=Path, default=Path("personalize-rows.jsonl"), help="kept between runs: resumes")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds, arguments.boards, arguments.shots = 1, 6, [3]
    return arguments


def _resume(path: Path) -> list[Row]:
    return [Row(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def _measure(arguments: argparse.Namespace, done: set[tuple[object, ...]]) -> Iterator[Row]:
    for seed in range(arguments.seeds):
        for fold in folds(arguments.data, seed):
            boards = fold.boards[: arguments.boards or None]
            wanted = [
                (board, shots)
                for board in boards
                for shots in arguments.shots
                if len(board.held_out(shots)) >= MIN_TEST_ROWS
                and any((arguments.data, board.name, shots, seed, name) not in done for name in arguments.recipes)
            ]
            if not wanted:
                continue
            stage = _stage(fold, seed, rehearsed="auto" in arguments.recipes)
            for number, (board, shots) in enumerate(wanted, start=1):
                print(
                    f"seed {seed}, fold {fold.name}: {number} of {len(wanted)}: {board.name}, {shots} shots", flush=True
                )
                for row in _board(arguments, stage, board, shots, seed):
                    if (row.data, row.board, row.shots, row.seed, row.recipe) not in done:
                        yield row


@dataclass(frozen=True)
class Stage:
    """What all boards of a fold share."""

    fold: Fold
    base: Weights
    candidates: list[Candidate]
    global_means: np.ndarray
    prior: list[Figure]


def _stage(fold: Fold, seed: int, *, rehearsed: bool) -> Stage:
    print(f"seed {seed}, fold {fold.name}: base model on {len(fold.y)} rows", flush=True)
    _, user = np.unique(fold.user, return_inverse=True)
    user = user.reshape(-1)
    base = train_base(fold.task, fold.x, fold.y, user, seed=seed, epochs=fold.epochs)
    _, embedding = outputs(load(fold.task, base), fold.x)
    candidates = [
        Candidate(f"c{who:03d}", fold.x[user == who], fold.y[user == who], embedding[user == who])
        for who in range(int(user.max()) + 1)
    ]
    prior: list[Figure] = []
    if rehearsed:
        print(f"seed {seed}, fold {fold.name}: rehearsal", flush=True)
        prior = rehearse(fold.task, fold.x, fold.y, user, seed=seed, epochs=fold.epochs)
    return Stage(fold, base, candidates, class_means(embedding, fold.y, len(fold.task.labels))[0], prior)


def _board(arguments: argparse.Namespace, stage: Stage, board: Board, shots: int, seed: int) -> Iterator[Row]:
    local = board.local(shots)
    examples = make(board.x[local], board.y[local], board.group[local])
    setting = Setting(stage.fold.task, stage.base, examples, stage.candidates, stage.global_means, Settings(), seed)
    scores: dict[str, tuple[float, int, int, float]] = {}
    for name in RECIPES:
        if name in arguments.recipes or "auto" in arguments.recipes:
            scores[name] = _score(setting, name, board, board.held_out(shots))
            if name in arguments.recipes:
                yield Row(arguments.data, board.name, shots, seed, name, *scores[name])
    if "auto" in arguments.recipes:
        started = time.perf_counter()
        names = usable(setting)
        choice = choose(names, stage.prior, gather(setting, names), shots=examples.shots(len(stage.fold.task.labels)))
        right, kept, outside, _ = scores[choice.recipe]
        spent = time.perf_counter() - started
        yield Row(arguments.data, board.name, shots, seed, "auto", right, kept, outside, spent, choice.recipe)


def _score(setting: Setting, name: str, board: Board, test: np.ndarray) -> tuple[float, int, int, float]:
    started = time.perf_counter()
    personal = RECIPES[name](setting)
    seconds = time.perf_counter() - started
    logits, _ = outputs(load(setting.task, personal.weights), board.x[test])
    return accuracy(logits, board.y[test]), len(personal.kept), personal.outside_samples, seconds


def summarize(rows: Sequence[Row]) -> list[Summary]:
    """Per data set, shots and recipe; users are the unit of the bootstrap."""
    cells: dict[tuple[str, int, str], dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        cells[row.data, row.shots, row.recipe][row.board].append(row)
    return [
        _summary(key, by_board, cells[key[0], key[1], "base"], cells[key[0], key[1], "local"])
        for key, by_board in sorted(cells.items(), key=lambda item: (item[0][0], item[0][1]))
    ]


def _summary(
    key: tuple[str, int, str],
    by_board: dict[str, list[Row]],
    base: dict[str, list[Row]],
    local: dict[str, list[Row]],
) -> Summary:
    users = sorted(by_board)
    mine = np.asarray([_mean(by_board[user]) for user in users])
    opponent = np.asarray([_mean(local[user]) for user in users]) if all(user in local for user in users) else mine
    floor = np.asarray([_mean(base[user]) for user in users]) if all(user in base for user in users) else mine
    gains = 100 * (mine - opponent)
    picks = np.random.default_rng(0).integers(len(users), size=(BOOTSTRAPS, len(users)))
    low, high = np.quantile(gains[picks].mean(axis=1), [0.025, 0.975])
    harmed = float((mine < np.maximum(floor, opponent) - 0.01).mean())
    flat = [row for user in users for row in by_board[user]]
    return Summary(
        *key,
        mean=round(100 * float(mine.mean()), 2),
        worst_decile=round(100 * float(np.quantile(mine, 0.1)), 2),
        gain=round(float(gains.mean()), 2),
        gain_low=round(float(low), 2),
        gain_high=round(float(high), 2),
        harmed=round(harmed, 3),
        kept=round(float(np.mean([row.kept for row in flat])), 2),
        seconds=round(float(np.median([row.seconds for row in flat])), 2),
    )


def _mean(rows: Iterable[Row]) -> float:
    return float(np.mean([row.accuracy for row in rows]))


def table(found: Sequence[Summary]) -> str:
    header = ("data", "shots", "recipe", "mean", "worst 10 %", "gain over local (95 %)", "harmed", "kept", "s")
    cells = [header] + [
        (
            s.data, str(s.shots), s.recipe, f"{s.mean:.1f}", f"{s.worst_decile:.1f}",
            f"{s.gain:+.1f} ({s.gain_low:+.1f} to {s.gain_high:+.1f})", f"{100 * s.harmed:.0f} %", f"{s.kept:.1f}",
            f"{s.seconds:.1f}",
        )
        for s in found
    ]  # fmt: skip
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells)


if __name__ == "__main__":
    main()
