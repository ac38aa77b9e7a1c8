"""A small world with planted truth: four classes in eight dimensions, and people whose style moves every class."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from edgelearn.examples import make
from edgelearn.fit import FitSettings
from edgelearn.models.build import Weights, load, outputs
from edgelearn.personalize.setting import Candidate, Setting, Settings
from edgelearn.pretrain import train_base
from edgelearn.retrieval.prototypes import class_means
from edgewire.tasks import InputSchema, ModelSpec, Task

CLASSES, FEATURES = 4, 8
TASK = Task("toy", "Toy", InputSchema((FEATURES,)), ("a", "b", "c", "d"), ModelSpec("mlp", width=16, embedding=8))
CENTRES = np.random.default_rng(1).normal(0, 1.5, (CLASSES, FEATURES))
QUICK = Settings(
    local=FitSettings(steps=60, batch_size=16), joint=FitSettings(steps=80, batch_size=32, local_mass=0.7), folds=3
)


def style(seed: int, size: float) -> np.ndarray:
    """How one person moves each class (classes, features)."""
    return np.random.default_rng((seed, 17)).normal(0, size, (CLASSES, FEATURES))


def samples(moved: np.ndarray, per_class: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """x (n, features) float32 and y (n,) of a person with that style."""
    rng = np.random.default_rng((seed, 23))
    y = np.repeat(np.arange(CLASSES), per_class)
    x = CENTRES[y] + moved[y] + rng.normal(0, 0.9, (len(y), FEATURES))
    return x.astype(np.float32), y


@lru_cache
def base() -> Weights:
    """A base model of six ordinary people, not augmented: the world is small, its truth planted."""
    parts = [samples(style(100 + person, 0.3), 15, person) for person in range(6)]
    x, y = np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])
    return train_base(TASK, x, y, np.repeat(np.arange(6), 15 * CLASSES), seed=0, epochs=15, changes=())


def candidate(name: str, x: np.ndarray, y: np.ndarray) -> Candidate:
    return Candidate(name, x, y, outputs(load(TASK, base()), x)[1])


def global_means() -> np.ndarray:
    x, y = samples(np.zeros((CLASSES, FEATURES)), 50, 99)
    return class_means(outputs(load(TASK, base()), x)[1], y, CLASSES)[0]


def board(
    moved: np.ndarray, candidates: list[Candidate], *, per_class: int = 6, seed: int = 0, settings: Settings = QUICK
) -> Setting:
    """A board with that style and those candidates."""
    x, y = samples(moved, per_class, 1000 + seed)
    return Setting(TASK, base(), make(x, y), candidates, global_means(), settings, seed)
