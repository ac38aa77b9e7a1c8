"""What the click models share: a vector and a bias for every item, and how a sample is taken apart.

A sample is the candidate item, then the history, most recent first, 0 where there is none (edgewire.tasks.InputSchema).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from edgewire.tasks import Task

ITEM_DIM = 8  # most items of a click log have a handful of samples: a longer vector learns them by heart


class Table(nn.Module):
    """A row of numbers for every id: what a pool knows of it. A board has samples of very few ids and trains no table.

    Adam's weight decay would shrink every row at every step, a rare id's to nothing between two of its samples. So the
    optimizer does not decay tables, and a row decays by `decay` when a sample touches it.
    """

    def __init__(self, rows: int, dim: int, *, spread: float, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.weight = nn.Parameter(torch.randn(rows, dim) * spread)

    def forward(self, ids: Tensor) -> Tensor:
        """ids: int (...). Returns (..., dim)."""
        # not nn.functional.embedding: the exporter calls its result "embedding", the name of the model's own output
        rows = self.weight.index_select(0, ids.reshape(-1)).reshape(*ids.shape, -1)
        if not (self.training and rows.requires_grad):
            return rows
        decayed: Tensor = _Decay.apply(rows, self.decay)  # type: ignore[no-untyped-call]
        return decayed


class _Decay(torch.autograd.Function):
    """Nothing on the way forward; on the way back the gradient of strength / 2 * |rows|^2, mean over the batch."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, strength: float) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.strength = strength
        return rows.view_as(rows)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        return grads[0] + ctx.strength / len(rows) * rows, None


class Items(nn.Module):
    """The tables of all items of a task."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        count = task.input.items
        if not isinstance(count, int):
            raise ValueError(f"task '{task.id}' does not say how many items there are")
        self.vector = Table(count + 1, ITEM_DIM, spread=0.05, decay=1e-2)
        self.bias = Table(count + 1, 1, spread=0.0, decay=1e-2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The candidate's vector (batch, dim), the history's (batch, length, dim), and where it has items (batch,
        length, 1)."""
        vectors = self.vector(x)  # (batch, 1 + length, dim)
        there = (x[:, 1:] > 0).to(vectors.dtype).unsqueeze(2)
        return vectors[:, 0], vectors[:, 1:] * there, there

    def liking(self, x: Tensor) -> Tensor:
        """How well everybody likes the candidate (batch, 1), in log-odds."""
        return torch.as_tensor(self.bias(x[:, 0]))


def two_logits(score: Tensor) -> Tensor:
    """Log-odds (batch, 1) -> logits (batch, 2) whose difference they are."""
    return torch.cat([-score / 2, score / 2], dim=1)
