"""Recipe `neighbours`, for click tasks: fine-tune locally, then let those who agree with the board correct how well
each item is liked.

Ranking the items of one person needs what people like this person think of *those items*: samples of similar users,
mixed into gradient steps of a few dense layers, do not carry that, and residuals per item do.
"""

from __future__ import annotations

import numpy as np

from edgelearn.metrics import log_softmax
from edgelearn.models.build import outputs
from edgelearn.personalize.joint import train_locally
from edgelearn.personalize.prior_shift import correct
from edgelearn.personalize.setting import Candidate, Personal, Setting, count_samples
from edgelearn.retrieval.agreement import Residuals, consensus, likeness, residuals_of

LIKING = "items.liking"
NEIGHBOURS = 100
STRENGTH = 2.0  # log-odds per unit of consensus; like the others, chosen on held-out contributors


def neighbours(setting: Setting) -> Personal:
    """Raises ValueError for a task without items."""
    if LIKING not in setting.base:
        raise ValueError(f"recipe 'neighbours' needs a click task, and '{setting.task.id}' has no items")
    weights = train_locally(setting, _with_local_prior(setting), setting.settings.local)
    mine = residuals_of(setting.local.x[:, 0], setting.local.y, _liked(setting.local_outputs[0]))
    agreeing = _agreeing(setting, mine)
    found = consensus([theirs for _, _, theirs in agreeing], [like for like, _, _ in agreeing], len(weights[LIKING]))
    kept = [candidate for _, candidate, _ in agreeing]
    return Personal(
        {**weights, LIKING: (weights[LIKING] + STRENGTH * found[:, None]).astype(np.float32)},
        candidates=len(setting.candidates),
        candidate_samples=count_samples(setting.candidates),
        kept=tuple(candidate.name for candidate in kept),
        outside_samples=count_samples(kept),
        decisions=(f"{len(kept)} contributors agree with the board about items that both have labels of",),
    )


def _with_local_prior(setting: Setting) -> dict[str, np.ndarray]:
    classes = setting.n_classes
    pool = sum((np.bincount(one.y, minlength=classes) for one in setting.candidates), np.zeros(classes))
    if not (pool > 0).all():
        return setting.base
    return correct(setting.base, np.bincount(setting.local.y, minlength=classes), pool)


def _agreeing(setting: Setting, mine: Residuals) -> list[tuple[float, Candidate, Residuals]]:
    """Likeness, contributor and prototype of those who agree most, most alike first; nobody who disagrees."""
    model = setting.base_model()
    found = []
    for candidate in setting.candidates:
        if np.isin(candidate.x[:, 0], mine.item).any():
            theirs = residuals_of(candidate.x[:, 0], candidate.y, _liked(outputs(model, candidate.x)[0]))
            found.append((likeness(mine, theirs), candidate, theirs))
    found.sort(key=lambda one: (-one[0], one[1].name))
    return [one for one in found[:NEIGHBOURS] if one[0] > 0]


def _liked(logits: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(log_softmax(logits.astype(np.float64))[:, 1]))
