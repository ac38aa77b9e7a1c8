"""The part of a model that a board's samples touch: a few rows of its tables, of what goes with each row, and all else.

A table of millions of items stays where it is; a board pulls, trains and pushes the rows of its own (Niu et al.,
"Billion-scale federated learning on mobile clients", MobiCom 2020).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from edgelearn.federated.arrays import Arrays
from edgelearn.models.build import outputs
from edgelearn.models.items import Items, Table


def touched(model: nn.Module, x: np.ndarray) -> Arrays:
    """Which rows these samples look up: ids, int64 and ascending, by the name of the table's weights. {} for a model
    without tables."""
    found: dict[str, list[np.ndarray]] = {}
    hooks = [
        module.register_forward_pre_hook(_note(found.setdefault(f"{name}.weight", [])))
        for name, module in model.named_modules()
        if isinstance(module, Table)
    ]
    if hooks:
        outputs(model, x)
    for hook in hooks:
        hook.remove()
    return {name: np.unique(np.concatenate(ids)) for name, ids in found.items()}


def submodel(model: nn.Module, rows: Mapping[str, np.ndarray]) -> nn.Module:
    """A copy of the model that holds these rows of its tables only. It takes the same samples, ids and all, as long as
    they touch no other row."""
    small = copy.deepcopy(model)
    for name, module in small.named_modules():
        if isinstance(module, Table):
            module.keep(torch.from_numpy(rows[f"{name}.weight"]))
        elif isinstance(module, Items):
            module.keep_columns(torch.from_numpy(rows[f"{name}.vector.weight"]))
    return small


def _note(into: list[np.ndarray]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    return lambda _, asked: into.append(np.unique(asked[0].numpy()).astype(np.int64))
