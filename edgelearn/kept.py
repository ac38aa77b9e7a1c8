"""A fit that goes on where an earlier process was cut off: each fit has a name that follows from all that decides its
result, and whoever keeps states under such names (see `Keeper`) can never give one to another fit.

So a whole personalization can be done again after an interruption: what was finished is recalled, the fit that was in
progress goes on, and the result has the same bits as without the interruption.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import numpy as np
from torch import nn

from edgelearn.fit import FitSettings, Source, Step, fit
from edgelearn.models.build import get_weights, set_weights

State = Mapping[str, np.ndarray]


class Keeper(Protocol):
    """Remembers fits by name. It decides what is worth remembering."""

    def recall(self, name: str) -> State | None:
        """What was kept of that fit, or None. Called once, before its first step."""

    def passed(self, name: str, step: Step) -> None:
        """A step that is not the last one was done."""

    def cut(self, name: str, step: Step) -> None:
        """The fit ends here, after this step."""

    def finished(self, name: str, state: State) -> None:
        """The fit is done. state: as much of it as is needed from now on."""


def fit_kept(
    model: nn.Module,
    source: Source,
    settings: FitSettings,
    *,
    seed: int,
    about: str,
    on_step: Callable[[], None],
    keeper: Keeper | None,
) -> None:
    """Train `model` in place, to the end. about: see `name_of`; on_step: called after each step, may raise to stop."""
    if keeper is None:
        for _ in fit(model, source, settings, seed=seed):
            on_step()
        return
    name = name_of(model, source, settings, seed=seed, about=about)
    state = keeper.recall(name)
    if state is not None and int(state["step"][0]) == settings.steps:
        set_weights(model, {key[7:]: array for key, array in state.items() if key.startswith("weight.")})
        return
    for step in fit(model, source, settings, seed=seed, state=state):
        try:
            on_step()
        except BaseException:
            keeper.cut(name, step)
            raise
        if step.number < step.total:
            keeper.passed(name, step)
    done = {f"weight.{key}": array for key, array in get_weights(model).items()}
    keeper.finished(name, {**done, "step": np.asarray([settings.steps], np.int64)})


def name_of(model: nn.Module, source: Source, settings: FitSettings, *, seed: int, about: str) -> str:
    """sha256 over all that decides a fit's result on one machine: start, samples, teacher, settings, seed. about: what
    the model is, and what decides what `source.augment` does, if there is one."""
    running = hashlib.sha256(repr((about, settings, seed, source.augment is not None)).encode())
    for key, array in _arrays(model, source):
        running.update(repr((key, str(array.dtype), array.shape)).encode())
        running.update(np.ascontiguousarray(array).data)
    return running.hexdigest()


def _arrays(model: nn.Module, source: Source) -> Iterator[tuple[str, np.ndarray]]:
    learning = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    for key, array in get_weights(model).items():
        yield f"{'trained' if key in learning else 'fixed'} {key}", array
    yield from (("local x", source.local.x), ("local y", source.local.y))
    if source.outside is not None:
        yield from (("outside x", source.outside.x), ("outside y", source.outside.y))
    if source.teacher is not None:
        yield "teacher", source.teacher
    if source.alive is not None:
        yield "alive", source.alive
