"""How was the opponent `local` tuned? Contributors of the pool are held out (never a board's rows) and play boards:
accuracy of ways to fine-tune, against `local` as it ships.

Steps and learning rate of all layers; the head alone; the mean of the weights of three seeds; neighbours' labels mixed
in at inference (kNN-Per: Marfoq et al., "Personalized federated learning through local memorization", ICML 2022);
without input alignment, where the task's sensors are a ring. Adapting batch norm is no choice: the models have layer
norm or group norm.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from benchmarks.figures import Figure, answer, noted
from benchmarks.personalize.summary import bootstrap
from benchmarks.protocols import Fold, first_folds
from edgelearn.device import use_threads
from edgelearn.examples import make
from edgelearn.fit import FitSettings
from edgelearn.metrics import log_softmax, score
from edgelearn.models.build import Weights, load, outputs
from edgelearn.personalize.blend import mean_weights
from edgelearn.personalize.head import train_head
from edgelearn.personalize.joint import head_alone, train_locally, tune
from edgelearn.personalize.rehearsal import MIN_TEST_SAMPLES, Stage, deal, set_stage
from edgelearn.personalize.setting import Setting, Settings
from edgelearn.pretrain import train_base

BOARDS = {"wisdm": 12, "myo": 7, "mnist": 16}  # contributors held out; all three: about ten minutes of one core
SHOTS = (1, 3, 10)
STEPS, RATES = (50, 150, 450), (3e-4, 1e-3, 3e-3)
AVERAGED = 3  # seeds
SHARE, NEIGHBOURS = 0.3, 5  # of kNN-Per
DEFAULT, BASE = "default", "base"

Ways = Callable[[Setting, np.ndarray], Iterable[tuple[str, np.ndarray]]]  # a board and what to ask: names and logits
Scores = dict[str, dict[str, float]]  # contributor -> variant -> accuracy in percent


def main() -> None:
    compare_ways(__doc__ or "", BOARDS)


def compare_ways(question: str, boards: dict[str, int], *, parts: int = 1, ways: Ways | None = None) -> None:
    """The command line of a comparison on held-out contributors. boards: how many by data set; the rest: `measure`."""
    arguments = _arguments(question, boards)
    use_threads(1)
    figures: list[Figure] = []
    for data, fold in first_folds(arguments.data):
        count = arguments.boards or boards.get(data, 12)
        found = measure(fold, boards=count, seeds=arguments.seeds, shots=arguments.shots, parts=parts, ways=ways)
        figures += compare(fold, found)
    answer(question, figures, arguments.json)


def _arguments(question: str, boards: dict[str, int]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=question.partition("\n\n")[0])
    parser.add_argument("--data", type=lambda text: text.split(","), default=list(boards), help="of wisdm, myo, mnist")
    parser.add_argument("--boards", type=int, default=0, help=f"contributors to hold out; 0: {boards}")
    parser.add_argument("--seeds", type=int, default=1, help="how often each board's shots are dealt")
    parser.add_argument("--shots", type=lambda text: tuple(map(int, text.split(","))), default=SHOTS)
    parser.add_argument("--quick", action="store_true", help="wisdm only, four boards, 3 shots")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures there, too")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.data, arguments.boards, arguments.shots = ["wisdm"], 4, (3,)
    return arguments


def measure(
    fold: Fold, *, boards: int, seeds: int, shots: Sequence[int], parts: int = 1, ways: Ways | None = None
) -> dict[int, Scores]:
    """Scores at each number of shots, of contributors of the pool whom the base was trained without. parts: of those
    contributors, each with a base of its own; ways: what is compared (None: ways to fine-tune)."""
    started = time.process_time()
    chosen = np.random.default_rng(17).permutation(np.unique(fold.user))[:boards]
    found: dict[int, Scores] = {count: {} for count in shots}
    for held in np.array_split(chosen, parts):
        stage = _set_stage(fold, held)
        for person in np.sort(held):
            for count in shots:
                rounds = [_play(stage, fold, person, count, seed, ways or _tunings) for seed in range(seeds)]
                if played := [scores for scores in rounds if scores]:
                    found[count][str(person)] = _mean(played)
    print(f"{fold.task.id}: measured in {time.process_time() - started:.0f} s of one core", flush=True)
    return found


def _set_stage(fold: Fold, held: np.ndarray) -> Stage:
    kept = ~np.isin(fold.user, held)
    x, y, user = fold.x[kept], fold.y[kept], fold.user[kept]
    group = None if fold.group is None else fold.group[kept]
    base = train_base(fold.task, x, y, user, seed=0, epochs=fold.epochs, group=group)
    return set_stage(fold.task, base, x, y, user)


def _play(stage: Stage, fold: Fold, person: object, shots: int, seed: int, ways: Ways) -> dict[str, float]:
    """Each variant's score on what is left of one held-out contributor; {} if too little is left."""
    rows = np.flatnonzero(fold.user == person)
    own = make(fold.x[rows], fold.y[rows], None if fold.group is None else fold.group[rows])
    local, test = deal(own, shots, seed)
    if len(test) < MIN_TEST_SAMPLES:
        return {}
    setting = Setting(fold.task, stage.base, local, stage.candidates, stage.global_means, Settings.of(fold.task), seed)
    return {name: 100 * score(fold.task.metric, logits, test.y) for name, logits in ways(setting, test.x)}


def _tunings(setting: Setting, x: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    return Variants(setting, x).answers()


@dataclass(frozen=True)
class Variants:
    """One board's problem, and x (n, *shape), the samples to answer."""

    setting: Setting
    x: np.ndarray

    def answers(self) -> Iterator[tuple[str, np.ndarray]]:
        """Name and logits (n, classes) of each variant."""
        turned, settings = self.setting.aligned, self.setting.settings.local
        yield DEFAULT, self._ask(self._default)
        yield BASE, self._ask(self.setting.base)
        for steps in STEPS:
            for rate in RATES:
                tried = replace(settings, steps=steps, learning_rate=rate)
                shipped = tried == settings and not head_alone(turned)
                weights = self._default if shipped else train_locally(turned, turned.base, tried)
                yield f"all layers, {steps} steps, {rate:g}", self._ask(weights)
        yield "head only", self._ask(train_head(turned, turned.base))
        yield f"mean of {AVERAGED} seeds", self._ask(self._averaged(turned, settings))
        yield "neighbours mixed in", self._with_neighbours()
        if self.setting.task.input.ring:
            unturned = self._default if turned is self.setting else tune(self.setting, self.setting.base)
            yield "without alignment", self._ask(unturned)

    @cached_property
    def _default(self) -> Weights:
        """What the recipe `local` gives."""
        return tune(self.setting.aligned, self.setting.aligned.base)

    def _ask(self, weights: Weights) -> np.ndarray:
        return outputs(load(self.setting.task, weights), self.x)[0]

    def _averaged(self, turned: Setting, settings: FitSettings) -> Weights:
        others = [
            train_locally(replace(turned, seed=self.setting.seed + 1000 * i), turned.base, settings)
            for i in range(1, AVERAGED)
        ]
        return mean_weights([self._default, *others])

    def _with_neighbours(self) -> np.ndarray:
        model = load(self.setting.task, self._default)
        logits, embedding = outputs(model, self.x)
        known = outputs(model, self.setting.local.x)[1]
        return mix_neighbours(logits, embedding, known, self.setting.local.y)


def mix_neighbours(logits: np.ndarray, embedding: np.ndarray, known: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Log-probabilities (n, classes): the model's, mixed with the labels of the nearest known samples, each weighted by
    exp(-distance). logits (n, classes), embedding (n, dim): of what is asked; known (m, dim), y (m,): of the shots."""
    distance = np.linalg.norm(embedding[:, None].astype(np.float64) - known[None], axis=2)  # (n, m)
    near = np.argsort(distance, axis=1, kind="stable")[:, :NEIGHBOURS]
    weight = np.exp(log_softmax(-np.take_along_axis(distance, near, axis=1)))  # (n, k)
    votes = (weight[:, :, None] * np.eye(logits.shape[1])[y[near]]).sum(axis=1)  # (n, classes)
    mixed = (1 - SHARE) * np.exp(log_softmax(logits.astype(np.float64))) + SHARE * votes
    return np.asarray(np.log(np.maximum(mixed, 1e-300)))


def compare(fold: Fold, found: dict[int, Scores]) -> list[Figure]:
    """Every variant against the default, paired by contributor, at each number of shots and on average over them; then
    which is best on average."""
    kind = f"{fold.task.id}, {fold.task.model.name}"
    figures = [
        figure for shots, scores in found.items() for figure in _paired(f"{kind}, {shots} shots", list(scores.values()))
    ]
    if len(found) == 1:
        return figures
    overall = _over_shots(found)
    figures += _paired(f"{kind}, mean of shots", overall)
    if overall:
        means = _mean(overall)
        best = max(means.keys() - {BASE}, key=lambda name: (means[name], name == DEFAULT, name))
        figures.append(noted(f"{kind}: best is {best}", means[best], "%"))
    return figures


def _over_shots(found: dict[int, Scores]) -> list[dict[str, float]]:
    """Mean over the shots, of contributors who were tested at each of them."""
    everywhere = [person for person in next(iter(found.values())) if all(person in scores for scores in found.values())]
    return [_mean([scores[person] for scores in found.values()]) for person in everywhere]


def _mean(scores: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([one[name] for one in scores])) for name in scores[0]}


def _paired(what: str, boards: Sequence[dict[str, float]]) -> list[Figure]:
    return [_figure(what, name, boards) for name in boards[0]] if boards else []


def _figure(what: str, name: str, boards: Sequence[dict[str, float]]) -> Figure:
    mean = _mean(boards)[name]
    if name == DEFAULT:
        return noted(f"{what}: {name}", mean, "%", anchor=f"{len(boards)} contributors")
    gain = np.asarray([scores[name] - scores[DEFAULT] for scores in boards])
    low, high = bootstrap(gain)
    return noted(
        f"{what}: {name}", mean, "%", anchor=f"default, paired: {gain.mean():+.2f} [{low:+.2f}, {high:+.2f}] points"
    )


if __name__ == "__main__":
    main()
