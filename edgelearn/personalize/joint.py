"""Joint training on local and kept samples, the local share of every batch fixed, classes that are absent kept
alive."""

from __future__ import annotations

from collections.abc import Sequence

from edgelearn.augment import augmentation
from edgelearn.examples import Examples, join
from edgelearn.fit import FitSettings, Source
from edgelearn.models.build import Weights, get_weights, load, outputs
from edgelearn.personalize.head import train_head
from edgelearn.personalize.setting import Candidate, Setting


def train_jointly(setting: Setting, start: Weights, kept: Sequence[Candidate], *, augmented: bool = False) -> Weights:
    """Weights after training from `start` on local samples, and on the kept ones where there are any."""
    outside = join([candidate.examples() for candidate in kept]) if kept else None
    return train_outside(setting, start, outside, augmented=augmented)


def train_outside(setting: Setting, start: Weights, outside: Examples | None, *, augmented: bool = False) -> Weights:
    """The same for any outside samples."""
    if outside is None:
        return tune(setting, start, augmented=augmented)
    return _train(setting, start, outside, setting.settings.joint, augmented)


def tune(setting: Setting, start: Weights, *, augmented: bool = False) -> Weights:
    """What recipe `local` does: all layers, or the head alone where that was better on held-out contributors.
    augmented: samples are changed at every step, where that was better, too."""
    if head_alone(setting):
        return train_head(setting, start)
    settings = setting.settings.paced(setting.settings.local, len(setting.local))
    return train_locally(setting, start, settings, augmented=augmented)


def head_alone(setting: Setting) -> bool:
    """Whether local training leaves all layers but the last as they are."""
    return setting.local.shots(setting.n_classes) < setting.settings.head_below


def train_locally(setting: Setting, start: Weights, settings: FitSettings, *, augmented: bool = False) -> Weights:
    """Weights after training from `start` on local samples only."""
    return _train(setting, start, None, settings, augmented)


def _train(
    setting: Setting, start: Weights, outside: Examples | None, settings: FitSettings, augmented: bool
) -> Weights:
    """Classes without samples keep what `start` thinks of them, if nearly every contributor has them."""
    model = load(setting.task, start).to(setting.device)
    teacher = setting.local_outputs[0] if start is setting.base else outputs(model, setting.local.x)[0]
    augment = augmentation(setting.task, model) if augmented and setting.settings.augment else None
    setting.train(model, Source(setting.local, outside, teacher, setting.expected, augment), settings)
    return get_weights(model)
