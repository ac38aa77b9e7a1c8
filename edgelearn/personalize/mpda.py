"""Recipe `mpda`: match, let the gate decide, then train jointly on local and kept samples (MPDA's variant "both")."""

from __future__ import annotations

from edgelearn.personalize.gate import gate
from edgelearn.personalize.joint import train_jointly
from edgelearn.personalize.match import nearest
from edgelearn.personalize.setting import Personal, Setting


def mpda(setting: Setting) -> Personal:
    gated = gate(setting, nearest(setting))
    return Personal(
        train_jointly(setting, gated.weights, gated.kept),
        candidates=len(gated.verdicts),
        kept=tuple(candidate.name for candidate in gated.kept),
        outside_samples=sum(len(candidate.y) for candidate in gated.kept),
        decisions=tuple(str(verdict) for verdict in gated.verdicts),
    )
