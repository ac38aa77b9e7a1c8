"""The rehearsal: on the cloud, contributors held out from base training play the board, at several numbers of shots.

Few samples cannot choose a recipe by themselves. What boards like this one gained is known, though, because the pool's
contributors can be treated as boards whose truth is known. The result is published as the recipe prior.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgelearn.examples import Examples, make
from edgelearn.metrics import accuracy
from edgelearn.models.build import Weights, load, outputs
from edgelearn.personalize.choose import Figure
from edgelearn.personalize.recipes import RECIPES
from edgelearn.personalize.setting import Candidate, Setting, Settings
from edgelearn.pretrain import train_base
from edgelearn.retrieval.prototypes import class_means
from edgewire.tasks import Task

MIN_TEST_SAMPLES = 10


@dataclass(frozen=True)
class _Stage:
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
    shots: tuple[int, ...] = (1, 3, 10),
    boards: int = 6,
    settings: Settings | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Figure]:
    """Gain, spread and harm of every recipe at every number of shots. x: (n, *shape); y, contributor: int (n,);
    group: int (n,), the recording a sample came from (None: unknown, each its own). What a rehearsed board is tested on
    shares no recording with its shots: overlapping windows would make every recipe that trains look good.

    Returns [] where too few contributors are there to hold some out. on_progress(done, total) may raise to stop.
    """
    people = np.unique(contributor)
    held = _held_out(people, boards, np.random.default_rng((seed, 3)))
    if len(held) < 2:
        return []
    total = 1 + len(held) * len(shots)
    in_base = ~np.isin(contributor, held)
    base = train_base(task, x[in_base], y[in_base], contributor[in_base], seed=seed, epochs=epochs)
    stage = _set_stage(task, base, x[in_base], y[in_base], contributor[in_base])
    on_progress(1, total)
    gains: dict[tuple[str, int], list[float]] = {}
    done = 1
    for person in held:
        rows = np.flatnonzero(contributor == person)
        for count in shots:
            own = make(x[rows], y[rows], None if group is None else group[rows])
            for name, gain in _play(stage, own, count, settings or Settings(), seed + done):
                gains.setdefault((name, count), []).append(gain)
            done += 1
            on_progress(done, total)
    return [_figure(name, count, found) for (name, count), found in sorted(gains.items())]


def _held_out(people: np.ndarray, boards: int, rng: np.random.Generator) -> np.ndarray:
    """At most a third of the contributors: the base of the rehearsal must still resemble the real one."""
    return np.sort(rng.permutation(people)[: min(boards, len(people) // 3)])


def _set_stage(task: Task, base: Weights, x: np.ndarray, y: np.ndarray, contributor: np.ndarray) -> _Stage:
    _, embedding = outputs(load(task, base), x)
    candidates = [
        Candidate(f"c{person}", x[contributor == person], y[contributor == person], embedding[contributor == person])
        for person in np.unique(contributor)
    ]
    return _Stage(task, base, candidates, class_means(embedding, y, len(task.labels))[0])


def _deal(own: Examples, shots: int, seed: int) -> tuple[Examples, Examples]:
    """(shots of each class, what is left in other recordings). The shots come from as few recordings as they can."""
    rng = np.random.default_rng((seed, 5))
    turn = rng.permutation(int(own.group.max()) + 1)[own.group]
    order = np.lexsort((rng.permutation(len(own)), turn))
    local = np.concatenate([order[own.y[order] == label][:shots] for label in np.unique(own.y)])
    return own.take(local), own.take(np.flatnonzero(~np.isin(own.group, own.group[local])))


def _play(stage: _Stage, own: Examples, shots: int, settings: Settings, seed: int) -> Iterator[tuple[str, float]]:
    """Each recipe's gain over the base on what is left of one held-out contributor; nothing if too little is left."""
    local, test = _deal(own, shots, seed)
    if len(test) < MIN_TEST_SAMPLES:
        return
    setting = Setting(stage.task, stage.base, local, stage.candidates, stage.global_means, settings, seed)
    reference = accuracy(outputs(load(stage.task, stage.base), test.x)[0], test.y)
    for name, recipe in RECIPES.items():
        if name != "base":
            weights = recipe(setting).weights
            yield name, accuracy(outputs(load(stage.task, weights), test.x)[0], test.y) - reference


def _figure(recipe: str, shots: int, gains: list[float]) -> Figure:
    spread = float(np.std(gains, ddof=1)) if len(gains) > 1 else 0.1
    harm = float(np.mean([gain < 0 for gain in gains]))
    return Figure(recipe, shots, float(np.mean(gains)), spread, harm, len(gains))
