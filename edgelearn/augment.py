"""Label-preserving changes of samples, one set per kind of model: what else the same person, or another, might have
recorded. Sizes were chosen on held-out contributors; `python -m benchmarks.base` measures what each is worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from edgelearn.fit import Augment
from edgelearn.models.front import Front
from edgewire.tasks import Task

Change = Callable[[Tensor, torch.Generator], Tensor]  # standardised (batch, *shape) -> the same shape


def time_shift(share: float) -> Change:
    """Windows (batch, time, channels) moved by up to `share` of their length either way, the edge repeated."""

    def change(x: Tensor, generator: torch.Generator) -> Tensor:
        return _move(x, 1, share, generator)

    return change


def image_shift(share: float) -> Change:
    """Images (batch, height, width[, colours]) moved by up to `share` of their size along both axes, the edge
    repeated."""

    def change(x: Tensor, generator: torch.Generator) -> Tensor:
        return _move(_move(x, 1, share, generator), 2, share, generator)

    return change


def channel_gain(size: float) -> Change:
    """Every channel, the last axis, of every sample is scaled by its own exp(normal(0, size)): sensors sit differently
    on everybody."""

    def change(x: Tensor, generator: torch.Generator) -> Tensor:
        kept = (len(x), *[1] * (x.dim() - 2), x.shape[-1])  # one number per sample and channel
        return x * torch.exp(size * _normal(kept, x, generator))

    return change


def noise(size: float) -> Change:
    """Normal noise of `size` standard deviations of the pool on every value."""

    def change(x: Tensor, generator: torch.Generator) -> Tensor:
        return x + size * _normal(x.shape, x, generator)

    return change


# by model and name; a model that is not listed was not measured, and is trained on its samples as they are
CHANGES: dict[str, dict[str, Change]] = {
    "mlp": {"noise": noise(0.7)},
    "cnn1d": {"shift": time_shift(0.15), "gain": channel_gain(0.3)},
    "cnn2d": {"shift": image_shift(0.09)},
}


def augmentation(task: Task, model: nn.Module, changes: Sequence[Change] | None = None) -> Augment | None:
    """The changes, by default those of the task's model, for raw batches, in units of the model's fitted front.

    Their result is float32 inside the limits of the task's dtype; a missing value stays one. None: nothing to change.
    """
    chosen = tuple(CHANGES.get(task.model.name, {}).values()) if changes is None else changes
    if not chosen:
        return None
    front = model.get_submodule("front")
    if not isinstance(front, Front):
        raise ValueError("the model has no front")
    limits = None if task.input.dtype == "float32" else np.iinfo(task.input.dtype)
    mean, std = front.mean.clone(), front.std.clone()

    def augment(x: Tensor, generator: torch.Generator) -> Tensor:
        scaled = (x.to(torch.float32) - mean) / std  # (batch, *shape)
        for change in chosen:
            scaled = change(scaled, generator)
        raw = scaled * std + mean
        return raw if limits is None else raw.clamp(limits.min, limits.max)

    return augment


def _move(x: Tensor, axis: int, share: float, generator: torch.Generator) -> Tensor:
    """Every sample moved along `axis` by a whole number of places of its own."""
    size = x.shape[axis]
    most = round(share * size)
    moved = torch.randint(-most, most + 1, (len(x), 1), generator=generator, device=x.device)
    places = (torch.arange(size, device=x.device) + moved).clamp(0, size - 1)  # (batch, size)
    return x.gather(axis, places.reshape(_along(x, axis)).expand(x.shape))


def _along(x: Tensor, axis: int) -> tuple[int, ...]:
    return tuple(n if i in (0, axis) else 1 for i, n in enumerate(x.shape))


def _normal(shape: Sequence[int], x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(tuple(shape), generator=generator, device=x.device)
