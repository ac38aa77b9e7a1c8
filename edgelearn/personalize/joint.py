"""Joint training on local and kept samples, the local share of every batch fixed, classes that are absent kept
alive."""

from __future__ import annotations

from collections.abc import Sequence

from edgelearn.examples import join
from edgelearn.fit import Source, fit
from edgelearn.models.build import Weights, get_weights, load
from edgelearn.personalize.setting import Candidate, Setting


def train_jointly(setting: Setting, start: Weights, kept: Sequence[Candidate]) -> Weights:
    """Weights after training from `start` on local samples, and on the kept ones where there are any."""
    chosen = setting.settings
    outside = join([candidate.examples() for candidate in kept]) if kept else None
    model = load(setting.task, start).to(setting.device)
    source = Source(setting.local, outside, teacher=setting.local_outputs[0])
    for _ in fit(model, source, chosen.joint if kept else chosen.local, seed=setting.seed):
        setting.on_step()
    return get_weights(model)
