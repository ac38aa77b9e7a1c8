"""Recipe `average`: the mean of the weights of several personal models that started from the same base.

Wortsman et al., "Model soups" (ICML 2022): models fine-tuned from one start lie in one basin of the loss, and their
mean often generalises better than each; it costs one model at inference. Those of recipes that share little are taken.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgelearn.models.build import Weights
from edgelearn.personalize.bayes import bayes_deep
from edgelearn.personalize.local import local
from edgelearn.personalize.nearest import nearest
from edgelearn.personalize.setting import Personal, Setting


def average(setting: Setting) -> Personal:
    parts = [recipe(setting) for recipe in (local, nearest, bayes_deep)]
    widest = max(parts, key=lambda part: part.outside_samples)
    return Personal(
        mean_weights([part.weights for part in parts]),
        widest.candidates,
        widest.candidate_samples,
        widest.kept,
        widest.outside_samples,
        ("mean of the weights of local, nearest and bayes_deep",),
    )


def mean_weights(parts: Sequence[Weights]) -> Weights:
    """The mean of models of the same names and shapes."""
    return {name: np.asarray(np.mean([part[name] for part in parts], axis=0), np.float32) for name in parts[0]}
