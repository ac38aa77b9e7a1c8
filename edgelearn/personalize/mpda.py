"""Recipes `mpda` and `mpda_local`: match, let the gate decide, then train jointly on local and kept samples (MPDA's
variant "both"). The gate's greedy path starts from the base, or from the model that was fine-tuned on the board."""

from __future__ import annotations

from edgelearn.models.build import Weights
from edgelearn.personalize.gate import gate
from edgelearn.personalize.joint import train_jointly, tune
from edgelearn.personalize.match import nearest
from edgelearn.personalize.setting import Personal, Setting, count_samples


def mpda(setting: Setting) -> Personal:
    return _gated(setting, setting.base, tuned=False)


def mpda_local(setting: Setting) -> Personal:
    return _gated(setting, tune(setting, setting.base), tuned=True)


def _gated(setting: Setting, start: Weights, *, tuned: bool) -> Personal:
    """With nothing kept either is recipe `local`: what was tuned already is not tuned again."""
    candidates = nearest(setting)
    gated = gate(setting, start, candidates)
    return Personal(
        gated.weights if tuned and not gated.kept else train_jointly(setting, gated.weights, gated.kept),
        candidates=len(candidates),
        candidate_samples=count_samples(candidates),
        kept=tuple(candidate.name for candidate in gated.kept),
        outside_samples=count_samples(gated.kept),
        decisions=tuple(str(verdict) for verdict in gated.verdicts),
    )
