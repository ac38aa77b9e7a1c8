"""The rehearsal: on the cloud, contributors held out from base training play the board, at several numbers of shots.

Few samples cannot choose a recipe by themselves. What boards like this one gained is known, though, because the pool's
contributors can be treated as boards whose truth is known. The result is published as the recipe prior.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgelearn.augment import Change
from edgelearn.examples import Examples, make
from edgelearn.metrics import score
from edgelearn.models.build import Weights, load, outputs
from edgelearn.personalize.choose import Figure
from edgelearn.personalize.recipes import RECIPES, choosable
from edgelearn.personalize.setting import Candidate, Setting, Settings
from edgelearn.pretrain import train_base
from edgelearn.retrieval.prototypes import class_means
from edgewire.tasks import CLICK_MODELS, Task

MIN_TEST_SAMPLES = 10
SHOTS, BOARDS = (1, 3, 10), 18
CLICK_SHOTS, CLICK_BOARDS = (10, 30, 100), 90  # a click takes no effort to label, and says little
PARTS = 3  # base models that a rehearsal trains: the more, the more each resembles the real one


@dataclass(frozen=True)
class Stage:
    """What every rehearsed board shares: the base trained without them, and the others as candidates."""

    task: Task
    base: Weights
    candidates: Sequence[Candidate]
    global_means: np.ndarray


def rehearse(
    task: Task,
    x: np.ndarray,
    y: np.ndarray,
    contributor: np.ndarray,
    *,
    seed: int,
    epochs: int,
    group: np.ndarray | None = None,
    shots: Sequence[int] = (),
    boards: int = 0,
    settings: Settings | None = None,
    changes: Sequence[Change] | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Figure]:
    """Gain, spread and harm of every recipe that `auto` may choose, at every number of shots.

    x: (n, *shape); y, contributor: int (n,); group: int (n,), the recording a sample came from (None: unknown, each
    its own). What a rehearsed board is tested on shares no recording with its shots: overlapping windows would make
    every recipe that trains look good. shots: samples per class; boards: at most so many; () and 0: what suits the
    task.

    Cross-fitted: the contributors that play boards are dealt into PARTS, and each part meets a base that was trained
    without it. Returns [] where too few contributors are there to hold some out. on_progress(done, total) may raise
    to stop.
    """
    clicks = task.model.name in CLICK_MODELS
    shots = shots or (CLICK_SHOTS if clicks else SHOTS)
    people = np.unique(contributor)
    parts = _held_out(people, boards or (CLICK_BOARDS if clicks else BOARDS), np.random.default_rng((seed, 3)))
    total = len(parts) + sum(map(len, parts)) * len(shots)
    gains: dict[int, list[dict[str, float]]] = {count: [] for count in shots}
    done = 0
    for held in parts:
        kept = ~np.isin(contributor, held)
        recordings = None if group is None else group[kept]
        base = train_base(
            task, x[kept], y[kept], contributor[kept], seed=seed, epochs=epochs, group=recordings, changes=changes
        )
        stage = set_stage(task, base, x[kept], y[kept], contributor[kept])
        on_progress(done := done + 1, total)
        for person in held:
            rows = np.flatnonzero(contributor == person)
            own = make(x[rows], y[rows], None if group is None else group[rows])
            for count in shots:
                found = _play(stage, own, count, choosable(task), settings or Settings.of(task), seed + done)
                if found:
                    gains[count].append(found)
                on_progress(done := done + 1, total)
    return [figure for count in shots for figure in _figures(count, gains[count])]


def _held_out(people: np.ndarray, boards: int, rng: np.random.Generator) -> list[np.ndarray]:
    """The contributors that play boards, in parts of at most a third: each part's base must resemble the real one."""
    chosen = rng.permutation(people)[: min(boards, len(people) // 3 * PARTS)]
    parts = [np.sort(part) for part in np.array_split(chosen, PARTS) if len(part)]
    return parts if len(chosen) >= 2 else []


def set_stage(task: Task, base: Weights, x: np.ndarray, y: np.ndarray, contributor: np.ndarray) -> Stage:
    """The base and everybody it was trained on as candidates. x: (n, *shape); y, contributor: int (n,)."""
    _, embedding = outputs(load(task, base), x)
    candidates = [
        Candidate(f"c{person}", x[contributor == person], y[contributor == person], embedding[contributor == person])
        for person in np.unique(contributor)
    ]
    return Stage(task, base, candidates, class_means(embedding, y, len(task.labels))[0])


def deal(own: Examples, shots: int, seed: int) -> tuple[Examples, Examples]:
    """(shots of each class, what is left in other recordings). The shots come from as few recordings as they can."""
    rng = np.random.default_rng((seed, 5))
    turn = rng.permutation(int(own.group.max()) + 1)[own.group]
    order = np.lexsort((rng.permutation(len(own)), turn))
    local = np.concatenate([order[own.y[order] == label][:shots] for label in np.unique(own.y)])
    return own.take(local), own.take(np.flatnonzero(~np.isin(own.group, own.group[local])))


def _play(
    stage: Stage, own: Examples, shots: int, recipes: Sequence[str], settings: Settings, seed: int
) -> dict[str, float]:
    """Each recipe's gain over the base on what is left of one held-out contributor; {} if too little is left."""
    local, test = deal(own, shots, seed)
    if len(test) < MIN_TEST_SAMPLES:
        return {}
    setting = Setting(stage.task, stage.base, local, stage.candidates, stage.global_means, settings, seed)

    def measured(weights: Weights) -> float:
        return score(stage.task.metric, outputs(load(stage.task, weights), test.x)[0], test.y)

    reference = measured(stage.base)
    return {name: measured(RECIPES[name](setting).weights) - reference for name in recipes if name != "base"}


def _figures(shots: int, boards: list[dict[str, float]]) -> list[Figure]:
    """The recipes' figures over the boards of one number of shots. The spread leaves out what all recipes gain on a
    board: it says how much a board's own best differs from everybody's."""
    if not boards:
        return []
    names = list(boards[0])
    gains = np.asarray([[board[name] for name in names] for board in boards])  # (boards, recipes)
    apart = gains - gains.mean(axis=1, keepdims=True)
    spreads = apart.std(axis=0, ddof=1) if len(boards) > 1 else np.full(len(names), 0.1)
    return [
        Figure(name, shots, float(gains[:, i].mean()), float(spreads[i]), float((gains[:, i] < 0).mean()), len(boards))
        for i, name in enumerate(names)
    ]
