"""Recipe `mpda`: match, let the gate decide, then train jointly on local and kept samples (MPDA's variant "both")."""

from __future__ import annotations

from edgelearn.personalize.gate import gate
from edgelearn.personalize.joint import train_jointly
from edgelearn.personalize.match import nearest
from edgelearn.personalize.setting import Personal, Setting, count_samples


def mpda(setting: Setting) -> Personal:
    candidates = nearest(setting)
    gated = gate(setting, candidates)
    return Personal(
        train_jointly(setting, gated.weights, gated.kept),
        candidates=len(candidates),
        candidate_samples=count_samples(candidates),
        kept=tuple(candidate.name for candidate in gated.kept),
        outside_samples=count_samples(gated.kept),
        decisions=tuple(str(verdict) for verdict in gated.verdicts),
    )
