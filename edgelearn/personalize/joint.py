"""Joint training on local and kept samples, the local share of every batch fixed, classes that are absent kept
alive."""

from __future__ import annotations

from collections.abc import Sequence

from edgelearn.examples import Examples, join
from edgelearn.fit import FitSettings, Source, fit
from edgelearn.models.build import Weights, get_weights, load, outputs
from edgelearn.personalize.head import train_head
from edgelearn.personalize.setting import Candidate, Setting


def train_jointly(setting: Setting, start: Weights, kept: Sequence[Candidate]) -> Weights:
    """Weights after training from `start` on local samples, and on the kept ones where there are any."""
    return train_outside(setting, start, join([candidate.examples() for candidate in kept]) if kept else None)


def train_outside(setting: Setting, start: Weights, outside: Examples | None) -> Weights:
    """The same for any outside samples."""
    if outside is None:
        return tune(setting, start)
    return _train(setting, start, outside, setting.settings.joint)


def tune(setting: Setting, start: Weights) -> Weights:
    """What recipe `local` does: all layers, or the head alone where that was better on held-out contributors."""
    if setting.local.shots(setting.n_classes) < setting.settings.head_below:
        return train_head(setting, start)
    return train_locally(setting, start, setting.settings.paced(setting.settings.local, len(setting.local)))


def train_locally(setting: Setting, start: Weights, settings: FitSettings) -> Weights:
    """Weights after training from `start` on local samples only."""
    return _train(setting, start, None, settings)


def _train(setting: Setting, start: Weights, outside: Examples | None, settings: FitSettings) -> Weights:
    """Classes without samples keep what `start` thinks of them, if nearly every contributor has them."""
    model = load(setting.task, start).to(setting.device)
    teacher = setting.local_outputs[0] if start is setting.base else outputs(model, setting.local.x)[0]
    for _ in fit(model, Source(setting.local, outside, teacher, setting.expected), settings, seed=setting.seed):
        setting.on_step()
    return get_weights(model)
