"""What is each part of base training worth? Contributors of the pool are held out (never a board's rows): accuracy of
the base itself, and after local fine-tuning on a few of their samples. And would int8 make inference faster?"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.figures import Figure, answer, noted
from benchmarks.int8 import int8_figures
from benchmarks.protocols import Fold, first_folds
from benchmarks.untaken import maml, taught
from edgelearn.augment import CHANGES, Change
from edgelearn.device import use_threads
from edgelearn.examples import make
from edgelearn.metrics import accuracy
from edgelearn.models.build import Weights, load, outputs
from edgelearn.personalize.local import local
from edgelearn.personalize.rehearsal import MIN_TEST_SAMPLES, deal
from edgelearn.personalize.setting import Setting, Settings
from edgelearn.pretrain import train_base

PARTS = {"wisdm": 3, "myo": 3, "mnist": 6}  # by data set: parts that its pool is dealt into, one held out at a time
UNTAKEN = {"teacher": taught, "maml": maml}

Train = Callable[[Fold], Weights]


@dataclass(frozen=True)
class Scores:
    """Accuracy in percent, one per held-out contributor. shots: None for the base itself; values: NaN where too few
    samples were left to test on; seconds: of training one base."""

    variant: str
    shots: int | None
    values: np.ndarray
    seconds: float


def main() -> None:
    arguments = _arguments()
    use_threads(1)
    figures: list[Figure] = []
    for data, fold in first_folds(arguments.data):
        figures += _compare(data, list(_measure(data, fold, arguments)))
        figures += int8_figures(data, fold, quick=arguments.quick)
    answer(__doc__ or "", figures, arguments.json)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.base", description=__doc__)
    parser.add_argument("--data", type=_words, default=list(PARTS), help="of wisdm, myo, mnist")
    parser.add_argument(
        "--variants",
        type=_words,
        default=[],
        help="beside plain and shipped: each (change alone), teacher, maml (measured, and not taken)",
    )
    parser.add_argument("--shots", type=lambda text: [int(part) for part in text.split(",")], default=[1, 3, 10])
    parser.add_argument("--parts", type=int, default=0, help="hold out at most so many parts in turn; 0: all")
    parser.add_argument("--quick", action="store_true", help="wisdm only, 3 shots")
    parser.add_argument("--json", type=Path, metavar="OUT")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.data, arguments.shots = ["wisdm"], [3]
    return arguments


def _words(text: str) -> list[str]:
    return text.split(",")


def _variants(model: str, asked: Sequence[str]) -> dict[str, Train]:
    """plain: without augmentation; shipped: as boards get it; and what was asked for."""

    def with_changes(changes: Sequence[Change] | None) -> Train:
        return lambda fold: train_base(
            fold.task, fold.x, fold.y, fold.user, seed=0, epochs=fold.epochs, changes=changes
        )

    alone = {f"{name} alone": with_changes((change,)) for name, change in CHANGES[model].items()}
    return {
        "plain": with_changes(()),
        "shipped": with_changes(None),
        **(alone if "each" in asked and len(alone) > 1 else {}),
        **{name: train for name, train in UNTAKEN.items() if name in asked},
    }


def _measure(data: str, fold: Fold, arguments: argparse.Namespace) -> Iterator[Scores]:
    people = np.random.default_rng(9).permutation(np.unique(fold.user))
    parts = np.array_split(people, PARTS[data])[: arguments.parts or None]
    for name, train in _variants(fold.task.model.name, arguments.variants).items():
        scores: dict[int | None, list[float]] = {shots: [] for shots in (None, *arguments.shots)}
        seconds = 0.0
        for held in parts:
            kept = ~np.isin(fold.user, held)
            started = time.process_time()
            weights = train(replace(fold, x=fold.x[kept], y=fold.y[kept], user=fold.user[kept]))
            seconds += (time.process_time() - started) / len(parts)
            for person in held:
                for shots, values in scores.items():
                    values.append(_score(fold, weights, int(person), shots))
        print(f"{data}: {name} measured", flush=True)
        for shots, values in scores.items():
            yield Scores(name, shots, np.asarray(values), seconds)


def _score(fold: Fold, weights: Weights, person: int, shots: int | None) -> float:
    """Accuracy of one person in percent, of the base on all its samples, or of the fine-tuned model on what shares no
    recording with the shots."""
    rows = np.flatnonzero(fold.user == person)
    own = make(fold.x[rows], fold.y[rows], None if fold.group is None else fold.group[rows])
    test = own
    if shots is not None:
        mine, test = deal(own, shots, person)
        if len(test) < MIN_TEST_SAMPLES:
            return math.nan
        weights = local(Setting(fold.task, weights, mine, (), np.zeros(0), Settings.of(fold.task), seed=0)).weights
    return 100 * accuracy(outputs(load(fold.task, weights), test.x)[0], test.y)


def _compare(data: str, found: Sequence[Scores]) -> Iterator[Figure]:
    """Every variant against `plain`, paired; goal: what is shipped loses nothing."""
    plain = {scores.shots: scores.values for scores in found if scores.variant == "plain"}
    for scores in found:
        what = "the base" if scores.shots is None else f"{scores.shots} shots"
        name, mean = f"{data}, {scores.variant}: {what}", float(np.nanmean(scores.values))
        if scores.variant == "plain":
            yield noted(name, mean, "%", anchor=f"one base: {scores.seconds:.1f} s")
            continue
        gain = scores.values - plain[scores.shots]
        gain = gain[~np.isnan(gain)]
        error = float(gain.std(ddof=1)) / math.sqrt(len(gain))
        shown = f"plain, paired: {gain.mean():+.2f} ± {error:.2f} points; one base: {scores.seconds:.1f} s"
        goal, holds = (
            ("no worse than plain", bool(gain.mean() >= -error)) if scores.variant == "shipped" else ("", None)
        )
        yield Figure(name, round(mean, 2), "%", shown, goal, holds)


if __name__ == "__main__":
    main()
