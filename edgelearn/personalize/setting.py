"""What every recipe is given, and what it gives back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from torch import nn

from edgelearn.examples import Examples
from edgelearn.fit import FitSettings, Source
from edgelearn.kept import Keeper, fit_kept
from edgelearn.models.build import Weights, load, outputs
from edgelearn.personalize.align import best_turn, turn, turn_weights
from edgelearn.personalize.population import Population, survey
from edgewire.tasks import CLICK_MODELS, Task

EXPECTED_SHARE = 0.98
MOST_STEPS = 1500


@dataclass(frozen=True)
class Candidate:
    """One contributor's samples (a source domain of MPDA). name: the pseudonym; embedding: float32 (n, dim) by the
    base."""

    name: str
    x: np.ndarray
    y: np.ndarray
    embedding: np.ndarray

    def examples(self) -> Examples:
        return Examples(self.x, self.y, np.zeros(len(self.y), np.int64))


def count_samples(candidates: Sequence[Candidate]) -> int:
    """Samples of all of them."""
    return sum(len(candidate.y) for candidate in candidates)


@dataclass(frozen=True)
class Settings:
    """The knobs of personalization. Defaults were chosen on pool users only.

    gate_alpha: probability that the gate keeps anything at all when every candidate is useless;
    gate_lr, gate_epochs: how a candidate domain is tried; matched: how many contributors are candidates;
    nearest: outside samples per class; head_below: samples per class under which `local` trains the head only,
    infinite where nothing else may be trained; augment: whether changing local samples at every step helps (recipes
    `augmented` and `blend`); passes: how often local training sees each sample at least, if that takes no more than
    MOST_STEPS.
    """

    local: FitSettings = field(default_factory=lambda: FitSettings(steps=150))
    head: FitSettings = field(default_factory=lambda: FitSettings(steps=150, learning_rate=3e-3))
    bayes: FitSettings = field(default_factory=lambda: FitSettings(steps=60, learning_rate=3e-4))
    bayes_deep: FitSettings = field(default_factory=lambda: FitSettings(steps=150, learning_rate=5e-4))
    joint: FitSettings = field(default_factory=lambda: FitSettings(steps=200, batch_size=48, local_mass=0.7))
    matched: int = 5
    nearest: int = 60
    gate_alpha: float = 0.08
    gate_epochs: int = 4
    gate_lr: float = 1e-3
    folds: int = 4
    head_below: float = 0.0
    augment: bool = False
    passes: int = 64

    def paced(self, run: FitSettings, samples: int) -> FitSettings:
        """`run`, longer where there are many samples: steps that suit a handful underfit hundreds."""
        wanted = -(-self.passes * samples // run.batch_size)
        return replace(run, steps=max(run.steps, min(wanted, MOST_STEPS)))

    @property
    def head_only(self) -> bool:
        """Whether nothing but the last layer may be trained."""
        return math.isinf(self.head_below)

    @classmethod
    def of(cls, task: Task) -> Settings:
        """Those for a kind of model (`python -m benchmarks.tuning`): an `mlp` is soon learnt by heart."""
        if task.model.name in CLICK_MODELS:
            return cls(local=FitSettings(steps=50), passes=0)
        if task.model.name == "mlp":
            return cls(head_below=10.5)
        return cls(augment=task.model.name in ("cnn1d", "cnn2d"))


@dataclass(frozen=True)
class Setting:
    """One board's problem: its task, the base weights, its own samples, and the candidates.

    global_means: float32 (classes, dim), the pool's class means of the base's embedding (from the directory).
    """

    task: Task
    base: Weights
    local: Examples
    candidates: Sequence[Candidate]
    global_means: np.ndarray
    settings: Settings
    seed: int
    device: str = "cpu"
    on_step: Callable[[], None] = lambda: None  # called after each training step; may raise to stop
    keeper: Keeper | None = None  # remembers fits, so that a later process goes on where this one ended

    @property
    def n_classes(self) -> int:
        return len(self.task.labels)

    def train(self, model: nn.Module, source: Source, settings: FitSettings, *, seed: int | None = None) -> None:
        """Train `model` in place, to the end or until `on_step` raises. seed: None: the setting's own."""
        fit_kept(
            model, source, settings, seed=self.seed if seed is None else seed, about=repr(self.task),
            on_step=self.on_step, keeper=self.keeper,
        )  # fmt: skip

    def base_model(self) -> nn.Module:
        """A new copy of the base model, free to be trained."""
        return load(self.task, self.base).to(self.device)

    @cached_property
    def local_outputs(self) -> tuple[np.ndarray, np.ndarray]:
        """The base model's logits and embeddings of the local samples."""
        return outputs(self.base_model(), self.local.x)

    @cached_property
    def expected(self) -> np.ndarray:
        """Which classes nearly every contributor has, bool (classes,). A board without samples of such a class will
        meet it yet; of another class it may never: then that it has none is evidence. All, where nobody is known."""
        if not self.candidates:
            return np.ones(self.n_classes, bool)
        has = [np.bincount(candidate.y, minlength=self.n_classes) > 0 for candidate in self.candidates]
        return np.asarray(np.mean(has, axis=0) >= EXPECTED_SHARE)

    @cached_property
    def population(self) -> Population | None:
        """What the candidates say about people in general, None if too little."""
        return survey([(candidate.embedding, candidate.y) for candidate in self.candidates], self.n_classes)

    @cached_property
    def aligned(self) -> Setting:
        """The same problem with the base turned to fit how this board is worn, and the candidates turned along."""
        by = best_turn(self.task, self.base, self.local, device=self.device)
        if by == 0:
            return self
        candidates = [replace(candidate, x=turn(candidate.x, -by)) for candidate in self.candidates]
        turned = replace(self, base=turn_weights(self.base, by), candidates=candidates)
        turned.__dict__["population"] = self.population  # embeddings stay as they were
        return turned

    def only(self, rows: np.ndarray) -> Setting:
        """The same problem for a board that has only these local rows."""
        fewer = replace(self, local=self.local.take(rows))
        fewer.__dict__["expected"] = self.expected
        fewer.__dict__["population"] = self.population  # of the candidates, which stay: no need to survey them again
        return fewer


@dataclass(frozen=True)
class Personal:
    """A recipe's result. candidates: contributors that were looked at; kept: pseudonyms of those that were trained on;
    candidate_samples, outside_samples: the samples of both; decisions: what was decided and why, a line each."""

    weights: Weights
    candidates: int = 0
    candidate_samples: int = 0
    kept: tuple[str, ...] = ()
    outside_samples: int = 0
    decisions: tuple[str, ...] = ()
