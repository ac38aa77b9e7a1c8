"""What does each retrieval mode give, and give away? On the Myo recordings: retrieval precision and accuracy against
the total ε, and two attacks by a curious cloud: which board is it (re-identification), and how does its owner's arm
look (inversion)?

Boards are the evaluation users, with ten samples per gesture; the pool is everybody else. Relevant are the quarter of
the contributors whose class prototypes are most like those of the board's later sessions. Accuracy is that of a linear
head on the base's embeddings, trained on local and retrieved samples with equal weight. For the attacks the cloud knows
the later sessions of every board. It guesses whose query it sees; and it reconstructs the mean muscle activity per
gesture and sensor (7 x 8 numbers), of which the figure says how much of the difference from the pool's mean it got
right (R², 0: nothing).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from benchmarks.figures import Figure, answer, noted
from benchmarks.protocols import Fold, first_folds
from cloud_aug import directory
from cloud_aug.vectors import kmeans
from edgelearn.device import use_threads
from edgelearn.models.build import load, outputs
from edgelearn.pretrain import train_base
from edgelearn.privacy.bits import prototype_bits, randomize_bits
from edgelearn.privacy.response import randomize
from edgelearn.retrieval.directory import Directory, describe, rank_cohorts
from edgelearn.retrieval.prototypes import class_means, residuals, similarity

SHOTS, WANTED, MINIMUM, RIDGE = 10, 600, 3, 10.0
DIRECTORY = (1.0, 4.0, 8.0, math.inf)
BITS = (8.0, 64.0, 256.0, 1024.0, 4096.0, math.inf)


@dataclass(frozen=True)
class Side:
    """Somebody's samples. vectors: embeddings (n, dim); energy: mean absolute value per sensor (n, 8)."""

    vectors: np.ndarray
    y: np.ndarray
    energy: np.ndarray


@dataclass(frozen=True)
class Scene:
    """contributor: (n,) of each pool row; local, later: of each board, what it asks with and what the cloud knows;
    cohort: of each contributor; relevant: the contributors most like each board."""

    pool: Side
    contributor: np.ndarray
    local: list[Side]
    later: list[Side]
    cohort: np.ndarray
    relevant: list[np.ndarray]
    classes: int

    @cached_property
    def means(self) -> np.ndarray:
        """The pool's class means (classes, dim)."""
        return class_means(self.pool.vectors, self.pool.y, self.classes)[0]

    @cached_property
    def energy(self) -> np.ndarray:
        """The pool's mean activity (classes, 8)."""
        return _energy(self.pool, np.arange(len(self.pool.y)), self.classes)

    @cached_property
    def described(self) -> Directory:
        """The directory of the pool."""
        return describe(self.pool.vectors, self.pool.y, self.cohort[self.contributor], n_classes=self.classes)

    @cached_property
    def known_cohorts(self) -> list[int]:
        """What each board would truly answer, as far as the cloud knows it."""
        return [self.best_cohort(side) for side in self.later]

    @cached_property
    def signs(self) -> np.ndarray:
        """Sign bits of the pool's samples, bool (n, dim)."""
        return np.asarray(self.pool.vectors - self.means[self.pool.y] > 0)

    @cached_property
    def decoder(self) -> np.ndarray:
        """A ridge regression from a prototype's bits to its activity, fitted on the contributors (dim, 8)."""
        inputs, targets = [], []
        for person in range(len(self.cohort)):
            rows = np.flatnonzero(self.contributor == person)
            bits = prototype_bits(self.pool.vectors[rows], self.pool.y[rows], self.means)
            inputs.append(bits - 0.5)
            targets.append(_energy(self.pool, rows, self.classes) - self.energy)
        return _ridge(np.concatenate(inputs), np.concatenate(targets))

    def best_cohort(self, side: Side) -> int:
        """The cohort most like somebody."""
        return int(rank_cohorts(self.described, side.vectors, side.y).argmax())


@dataclass(frozen=True)
class Seen:
    """One answer of a board. rows: retrieved rows of the pool; guess: the board that the cloud takes it for; energy:
    what the cloud reconstructs, (classes, 8)."""

    rows: np.ndarray
    guess: int
    energy: np.ndarray


Mode = Callable[[Scene, int, float, np.random.Generator], Seen]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.privacy", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smaller base, fewer repetitions")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures there, too")
    arguments = parser.parse_args()
    use_threads(1)
    fold = next(iter(first_folds(["myo"])))[1]
    scene = _scene(fold, epochs=1 if arguments.quick else fold.epochs)
    repeats = 3 if arguments.quick else 10
    figures = list(_local_only(scene))
    for name, mode, budgets in (("directory", _directory, DIRECTORY), ("bits", _bits, BITS)):
        for epsilon in budgets:
            figures += _figures(scene, f"{name}, ε {epsilon:g}", mode, epsilon, repeats if epsilon < math.inf else 1)
    figures += _figures(scene, "embedding, no ε", _embedding, math.inf, 1)
    answer(__doc__ or "", figures, arguments.json)


def _scene(fold: Fold, *, epochs: int) -> Scene:
    group = fold.group
    weights = train_base(fold.task, fold.x, fold.y, fold.user, seed=0, epochs=epochs, group=group)
    model, classes = load(fold.task, weights), len(fold.task.labels)

    def side(x: np.ndarray, y: np.ndarray) -> Side:
        return Side(outputs(model, x)[1], y, np.abs(x.astype(np.float32)).mean(axis=1))

    shared = side(fold.x, fold.y)
    local = [side(b.x[b.local(SHOTS)], b.y[b.local(SHOTS)]) for b in fold.boards]
    later = [side(b.x[b.held_out(SHOTS)], b.y[b.held_out(SHOTS)]) for b in fold.boards]
    means, _ = class_means(shared.vectors, shared.y, classes)
    people = [_prototype(shared, fold.user == i, means) for i in range(int(fold.user.max()) + 1)]
    features = np.stack([mine.reshape(-1) for mine, _ in people])
    rows = {f"p{i:03}": 1 for i in range(len(people))}
    layout = directory.arrange(
        features,
        rows,
        None,
        made_from="",
        minimum=MINIMUM,
        rows_per_pack=1 << 30,
        cluster=lambda k: kmeans(features, k, seed=0),
    )
    cohort = np.asarray([place.cohort for place in layout.places.values()])
    relevant = []
    for board in later:
        mine, counts = _prototype(board, np.ones(len(board.y), bool), means)
        alike = np.asarray([similarity(mine, counts, theirs, known) for theirs, known in people])
        relevant.append(np.argsort(-alike)[: len(people) // 4])
    return Scene(shared, fold.user, local, later, cohort, relevant, classes)


def _prototype(side: Side, rows: np.ndarray, means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mine, counts = class_means(side.vectors[rows], side.y[rows], len(means))
    return residuals(mine, counts, means), counts


# What the boards send, and what the cloud makes of it


def _directory(scene: Scene, board: int, epsilon: float, rng: np.random.Generator) -> Seen:
    truth = scene.best_cohort(scene.local[board])
    sent = truth if epsilon == math.inf else randomize(truth, scene.described.cohorts, epsilon, rng)
    rows = np.flatnonzero(scene.cohort[scene.contributor] == sent)
    suspects = [i for i, known in enumerate(scene.known_cohorts) if known == sent] or list(range(len(scene.later)))
    chosen = rng.choice(rows, min(WANTED, len(rows)), replace=False)
    return Seen(chosen, int(rng.choice(suspects)), _energy(scene.pool, rows, scene.classes))


def _bits(scene: Scene, board: int, epsilon: float, rng: np.random.Generator) -> Seen:
    local = scene.local[board]
    truth = prototype_bits(local.vectors, local.y, scene.means)
    sent = truth if epsilon == math.inf else randomize_bits(truth, epsilon, int(rng.integers(1 << 62)))
    known = [prototype_bits(side.vectors, side.y, scene.means) for side in scene.later]
    guess = int(np.argmin([(bits != sent).sum() for bits in known]))
    return Seen(_nearest_bits(scene, sent), guess, scene.energy + (sent - 0.5) @ scene.decoder)


def _nearest_bits(scene: Scene, sent: np.ndarray) -> np.ndarray:
    each = max(1, WANTED // (len(sent) * scene.classes))
    found = []
    for label in range(scene.classes):
        rows = np.flatnonzero(scene.pool.y == label)
        apart = (scene.signs[rows][None] != sent[:, None]).sum(axis=2)  # (queries, rows)
        found.append(rows[np.argsort(apart, axis=1, kind="stable")[:, :each]].reshape(-1))
    return np.unique(np.concatenate(found))


def _embedding(scene: Scene, board: int, _epsilon: float, _rng: np.random.Generator) -> Seen:
    means, queries = scene.means, scene.local[board].vectors
    likely = ((queries[:, None] - means[None]) ** 2).sum(axis=2).argmin(axis=1)  # labels are not sent
    styles = _unit(queries - means[likely])
    held = _unit(scene.pool.vectors - means[scene.pool.y])
    each = max(1, WANTED // (len(queries) * scene.classes))
    found = []
    for label in range(scene.classes):
        rows = np.flatnonzero(scene.pool.y == label)
        found.append(rows[np.argsort(-(styles @ held[rows].T), axis=1)[:, :each]].reshape(-1))
    mine, counts = class_means(queries, likely, scene.classes)
    mine = residuals(mine, counts, means)
    known = [_prototype(side, np.ones(len(side.y), bool), means) for side in scene.later]
    guess = int(np.argmax([similarity(mine, counts, theirs, there) for theirs, there in known]))
    decoder = _ridge(_ones(scene.pool.vectors), scene.pool.energy)
    energy = _ones(queries) @ decoder
    shown = [energy[likely == i].mean(axis=0) if (likely == i).any() else scene.energy[i] for i in range(scene.classes)]
    return Seen(np.unique(np.concatenate(found)), guess, np.stack(shown))


# What it is worth


def _figures(scene: Scene, name: str, mode: Mode, epsilon: float, repeats: int) -> Iterator[Figure]:
    rng = np.random.default_rng(0)
    precision, right, accuracy, error, scale = [], [], [], 0.0, 0.0
    for board in range(len(scene.local)):
        everything = np.arange(len(scene.local[board].y))
        truth = _energy(scene.local[board], everything, scene.classes)
        for _ in range(repeats):
            seen = mode(scene, board, epsilon, rng)
            precision.append(np.isin(scene.contributor[seen.rows], scene.relevant[board]).mean())
            right.append(seen.guess == board)
            accuracy.append(_accuracy(scene, board, seen.rows))
            error += float(((seen.energy - truth) ** 2).sum())
            scale += float(((scene.energy - truth) ** 2).sum())
    chance = f"chance {100 * len(scene.relevant[0]) / len(scene.cohort):.0f} %"
    yield noted(f"{name}: retrieval precision", 100 * float(np.mean(precision)), "%", anchor=chance)
    yield noted(f"{name}: accuracy", 100 * float(np.mean(accuracy)), "%")
    boards = f"chance {100 / len(scene.local):.1f} %"
    yield noted(f"{name}: re-identified", 100 * float(np.mean(right)), "%", anchor=boards)
    yield noted(f"{name}: inverted", 1 - error / scale, "R²", anchor="0: the pool's mean")


def _local_only(scene: Scene) -> Iterator[Figure]:
    nothing = np.zeros(0, np.int64)
    alone = [_accuracy(scene, board, nothing) for board in range(len(scene.local))]
    yield noted("nothing retrieved: accuracy", 100 * float(np.mean(alone)), "%")
    yield noted("cohorts that mode directory chooses from", float(scene.cohort.max() + 1), "")


def _accuracy(scene: Scene, board: int, rows: np.ndarray) -> float:
    local, later = scene.local[board], scene.later[board]
    x = _ones(np.concatenate([local.vectors, scene.pool.vectors[rows]]))
    y = np.eye(scene.classes)[np.concatenate([local.y, scene.pool.y[rows]])]
    weight = np.r_[np.full(len(local.y), 1.0), np.full(len(rows), len(local.y) / max(1, len(rows)))]
    head = _ridge(x * np.sqrt(weight)[:, None], y * np.sqrt(weight)[:, None])
    return float(((_ones(later.vectors) @ head).argmax(axis=1) == later.y).mean())


def _energy(side: Side, rows: np.ndarray, classes: int) -> np.ndarray:
    return class_means(side.energy[rows], side.y[rows], classes)[0]


def _ridge(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ y))


def _ones(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x, np.ones((len(x), 1))], axis=1)


def _unit(x: np.ndarray) -> np.ndarray:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12))


if __name__ == "__main__":
    main()
