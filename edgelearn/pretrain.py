"""The base model: trained on contributors' samples, augmented, every contributor with the same weight."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from edgelearn.augment import Change, augmentation
from edgelearn.episodes import EpisodeSettings, practise
from edgelearn.examples import make
from edgelearn.fit import FitSettings, Source, fit
from edgelearn.models.build import Weights, build, fit_front, fit_items, get_weights
from edgewire.tasks import CLICK_MODELS, Task

LEARNING_RATE, CLICK_LEARNING_RATE = 3e-3, 1e-3
BATCH_SIZE = 64
MAX_ROWS_PER_CONTRIBUTOR = 2000
SMOOTHING = {"cnn1d": 0.1, "cnn2d": 0.1}  # by model, where it pays
EPISODES = {"mlp": 600, "cnn1d": 600}  # rounds at most, by model, where it pays
REVISION = 3  # of how a base is made of samples and settings; a new one makes new bases of old pools


def train_base(
    task: Task,
    x: np.ndarray,
    y: np.ndarray,
    contributor: np.ndarray,
    *,
    seed: int,
    epochs: int,
    group: np.ndarray | None = None,
    on_step: Callable[[int, int], None] | None = None,
    changes: Sequence[Change] | None = None,
) -> Weights:
    """Weights trained on pool samples, then practised on contributors as boards (see edgelearn.episodes).

    x: (n, *shape); y, contributor: int (n,); group: recordings (n,), None: unknown; changes: how samples are augmented,
    None: as is best for the model. on_step(done, total) may raise to stop.
    """
    rows = _balanced_rows(contributor, np.random.default_rng((seed, 0)))
    model = build(task, seed=seed)
    fit_front(model, x[rows])
    fit_items(model, x, y, contributor)
    steps = epochs * math.ceil(len(rows) / BATCH_SIZE)
    rate = CLICK_LEARNING_RATE if task.model.name in CLICK_MODELS else LEARNING_RATE
    settings = FitSettings(
        steps, batch_size=BATCH_SIZE, learning_rate=rate, smoothing=SMOOTHING.get(task.model.name, 0.0)
    )
    augment = augmentation(task, model, changes)
    source = Source(make(x[rows], y[rows]), augment=augment)
    practice = EpisodeSettings(min(EPISODES.get(task.model.name, 0), steps // 2))
    total = steps + practice.rounds
    for step in fit(model, source, settings, seed=seed):
        if on_step is not None:
            on_step(step.number, total)
    for number in practise(model, make(x, y, group), contributor, practice, seed=seed, augment=augment):
        if on_step is not None:
            on_step(steps + number, total)
    fit_items(model, x, y, contributor, trained=True)
    return get_weights(model)


def _balanced_rows(contributor: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """At most MAX_ROWS_PER_CONTRIBUTOR rows of each, and small contributors repeated up to half of the median."""
    _, codes = np.unique(contributor, return_inverse=True)
    by_contributor = [np.flatnonzero(codes == code) for code in range(int(codes.max()) + 1)]
    floor = int(np.median([len(rows) for rows in by_contributor])) // 2
    picked = []
    for rows in by_contributor:
        shuffled = rng.permutation(rows)[:MAX_ROWS_PER_CONTRIBUTOR]
        picked.append(np.resize(shuffled, max(len(shuffled), min(floor, MAX_ROWS_PER_CONTRIBUTOR))))
    return np.concatenate(picked)
