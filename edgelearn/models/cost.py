"""What a training step holds in memory beyond the samples themselves: predicted, so that a board refuses in time."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from edgelearn.models.build import EVALUATED_ROWS
from edgewire.tasks import Task

_COPIES = 3  # a layer's output, what its activation function keeps, and the gradient
_MODEL_COPIES = 4  # weights, gradients, and Adam's two moments


@torch.no_grad()
def row_bytes(task: Task, model: nn.Module) -> int:
    """Bytes of activations and gradients for one row of a training batch, measured by a forward pass of one row."""
    values = 0

    def count(layer: nn.Module, inputs: object, output: object) -> None:
        nonlocal values
        values += output.numel() if isinstance(output, Tensor) else 0

    hooks = [layer.register_forward_hook(count) for layer in model.modules() if not list(layer.children())]
    try:
        device = next(model.parameters()).device
        model.eval()(torch.from_numpy(np.zeros((1, *task.input.shape), task.input.dtype)).to(device))
    finally:
        for hook in hooks:
            hook.remove()
    return _COPIES * 4 * values


def model_bytes(model: nn.Module) -> int:
    """Bytes of weights while they are trained."""
    return _MODEL_COPIES * 4 * sum(parameter.numel() for parameter in model.parameters())


def forward_bytes(task: Task, model: nn.Module, *, rows: int) -> int:
    """Bytes while that many rows pass through the model and are not trained on, as many at once as `outputs` takes."""
    return min(rows, EVALUATED_ROWS) * row_bytes(task, model) // _COPIES


def head_bytes(task: Task, model: nn.Module, *, rows: int) -> int:
    """Bytes while the last layer alone is trained, on what the others make of that many rows."""
    return 4 * rows * (task.model.embedding + len(task.labels)) + model_bytes(model) // _MODEL_COPIES
