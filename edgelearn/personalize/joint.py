"""Joint training on local and kept samples, the local share of every batch fixed, classes that are absent kept
alive."""

from __future__ import annotations

from collections.abc import Sequence

from edgelearn.examples import Examples, join
from edgelearn.fit import FitSettings, Source, fit
from edgelearn.models.build import Weights, get_weights, load
from edgelearn.personalize.setting import Candidate, Setting


def train_jointly(setting: Setting, start: Weights, kept: Sequence[Candidate]) -> Weights:
    """Weights after training from `start` on local samples, and on the kept ones where there are any."""
    return train_outside(setting, start, join([candidate.examples() for candidate in kept]) if kept else None)


def train_outside(setting: Setting, start: Weights, outside: Examples | None) -> Weights:
    """The same for any outside samples."""
    if outside is None:
        return train_locally(setting, start, setting.settings.local)
    return _train(setting, start, Source(setting.local, outside, setting.local_outputs[0]), setting.settings.joint)


def train_locally(setting: Setting, start: Weights, settings: FitSettings) -> Weights:
    """Weights after training from `start` on local samples only."""
    return _train(setting, start, Source(setting.local, teacher=setting.local_outputs[0]), settings)


def _train(setting: Setting, start: Weights, source: Source, settings: FitSettings) -> Weights:
    model = load(setting.task, start).to(setting.device)
    for _ in fit(model, source, settings, seed=setting.seed):
        setting.on_step()
    return get_weights(model)
