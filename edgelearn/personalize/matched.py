"""Recipe `matched`: train jointly on the most alike contributors, unfiltered (MPDA's variant "match")."""

from __future__ import annotations

from collections.abc import Sequence

from edgelearn.personalize.joint import train_jointly
from edgelearn.personalize.match import nearest
from edgelearn.personalize.setting import Candidate, Personal, Setting, count_samples


def matched(setting: Setting) -> Personal:
    return train_on(setting, nearest(setting))


def train_on(setting: Setting, chosen: Sequence[Candidate]) -> Personal:
    """Joint training on all of the chosen candidates."""
    return Personal(
        train_jointly(setting, setting.base, chosen),
        candidates=len(chosen),
        candidate_samples=count_samples(chosen),
        kept=tuple(candidate.name for candidate in chosen),
        outside_samples=count_samples(chosen),
    )
