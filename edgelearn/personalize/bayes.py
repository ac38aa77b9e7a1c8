"""Recipes `bayes` and `bayes_deep`: start from what contributors make likely, then train gently on the board's samples.

The head is the sum of two: one trained on the board's cached embeddings (only a linear layer, so this takes
milliseconds), and the linear layer of the guessed class means (see `population`). A short training of the whole model
follows, small enough not to undo the guess: first the head, then everything (Kumar et al., "Fine-tuning can distort
pretrained features and underperform out-of-distribution", ICLR 2022). `bayes` leans on the guess and barely
trains; `bayes_deep` takes less of it and trains on. Nothing of a contributor is trained on: the pool takes part
through its statistics.
"""

from __future__ import annotations

from edgelearn.fit import FitSettings
from edgelearn.models.build import Weights
from edgelearn.personalize.head import train_head
from edgelearn.personalize.joint import train_locally
from edgelearn.personalize.setting import Personal, Setting, count_samples


def bayes(setting: Setting) -> Personal:
    return _personal(setting, 0.3, setting.settings.bayes)


def bayes_deep(setting: Setting) -> Personal:
    return _personal(setting, 0.1, setting.settings.bayes_deep)


def _personal(setting: Setting, mass: float, settings: FitSettings) -> Personal:
    start = add_guess(setting, train_head(setting, setting.base), mass)
    return Personal(
        train_locally(setting, start, settings),
        candidates=len(setting.candidates),
        candidate_samples=count_samples(setting.candidates),
        decisions=(f"class means guessed from {len(setting.candidates)} contributors, weight {mass:g}",),
    )


def add_guess(setting: Setting, weights: Weights, mass: float) -> Weights:
    """`mass` times the guessed head added to the model's own; unchanged where the contributors say nothing."""
    population = setting.population
    if population is None:
        return weights
    weight, bias = population.head(population.guess(setting.local_outputs[1], setting.local.y))
    own = {"head.weight": weights["head.weight"] + mass * weight, "head.bias": weights["head.bias"] + mass * bias}
    return {**weights, **own}
