"""Recipe `blend`: the mean of the weights of several personal models that started from the same base.

Wortsman et al., "Model soups" (ICML 2022): models fine-tuned from one start lie in one basin of the loss, and their
mean often generalises better than each; it costs one model at inference. Half of it is `local`, a quarter `augmented`
and a quarter joint training on the most alike contributors, augmented as well: each errs in its own way, and none can
do much harm. Where local training leaves all layers but the head as they are, the contributors' guess of the class
means still fits, and a little of it is added.

The shares were found on held-out contributors (docs/decisions/0005).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgelearn.models.build import Weights
from edgelearn.personalize.bayes import add_guess
from edgelearn.personalize.joint import head_alone, train_jointly, tune
from edgelearn.personalize.match import nearest
from edgelearn.personalize.setting import Personal, Setting, count_samples

GUESS = 0.03


def blend(setting: Setting) -> Personal:
    chosen = nearest(setting)
    alone = tune(setting, setting.base)
    same = head_alone(setting) or not setting.settings.augment
    varied = alone if same else tune(setting, setting.base, augmented=True)
    together = train_jointly(setting, setting.base, chosen, augmented=True)
    weights = mean_weights([alone, alone, varied, together])
    return Personal(
        add_guess(setting, weights, GUESS) if head_alone(setting) else weights,
        candidates=len(chosen),
        candidate_samples=count_samples(chosen),
        kept=tuple(candidate.name for candidate in chosen),
        outside_samples=count_samples(chosen),
        decisions=(f"a quarter of the weights was trained with {len(chosen)} contributors",),
    )


def mean_weights(parts: Sequence[Weights]) -> Weights:
    """The mean of models of the same names and shapes."""
    return {name: np.asarray(np.mean([part[name] for part in parts], axis=0), np.float32) for name in parts[0]}
