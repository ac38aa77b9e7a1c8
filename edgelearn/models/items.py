"""What the click models share: what is known of every item, and how a sample is taken apart.

A sample is the candidate item, then the history, most recent first, 0 where there is none (edgewire.tasks.InputSchema).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgewire.tasks import Task

ITEM_DIM = 8  # most items of a click log have a handful of samples: a longer vector learns them by heart
RATE_PRIOR, LIKING_PRIOR, TRUST_PRIOR = 5.0, 10.0, 100.0  # samples that say nothing; chosen on held-out contributors


class Table(nn.Module):
    """A row of numbers for every id: what a pool knows of it. A board has samples of very few ids and trains none.

    Adam's weight decay would shrink every row at every step, a rare id's to nothing between two of its samples. So the
    optimizer does not decay tables, and a row decays by `decay` when a sample touches it.

    held: ids of the rows that are here, ascending; None: all of them (see edgelearn.submodel).
    """

    def __init__(self, rows: int, dim: int, *, spread: float, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.held: Tensor | None = None
        self.weight = nn.Parameter(torch.randn(rows, dim) * spread)

    def keep(self, ids: Tensor) -> None:
        """Hold the rows of these ids, int64 and ascending, only; samples must not touch others."""
        self.held = ids
        self.weight.data = self.weight.data.index_select(0, ids)

    def places(self, ids: Tensor) -> Tensor:
        """Where the rows of these ids lie, in whatever has a row per id here."""
        return ids if self.held is None else torch.searchsorted(self.held, ids.contiguous())

    def forward(self, ids: Tensor) -> Tensor:
        """ids: int (...). Returns (..., dim)."""
        # not nn.functional.embedding: the exporter calls its result "embedding", the name of the model's own output
        rows = self.weight.index_select(0, self.places(ids.reshape(-1))).reshape(*ids.shape, -1)
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
    """What the pool knows of every item of a task.

    liking: how well everybody likes it, in log-odds; trust: 0..1, how far its vector counts. Both come from the pool in
    closed form (`fit_items`): most items have a handful of samples, and gradients would learn those by heart.
    """

    liking: Tensor
    trust: Tensor

    def __init__(self, task: Task) -> None:
        super().__init__()
        count = task.input.items
        if not isinstance(count, int):
            raise ValueError(f"task '{task.id}' does not say how many items there are")
        self.vector = Table(count + 1, ITEM_DIM, spread=1.0, decay=1e-3)
        self.register_buffer("liking", torch.zeros(count + 1, 1))
        self.register_buffer("trust", torch.ones(count + 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The candidate's vector (batch, dim) and liking (batch, 1); the history's vectors (batch, length, dim), and
        where it has items (batch, length, 1)."""
        places = self.vector.places(x.reshape(-1)).reshape(x.shape)
        trust = self.trust.index_select(0, places.reshape(-1)).reshape(*x.shape, 1)
        vectors = self.vector(x) * trust  # (batch, 1 + length, dim)
        there = (x[:, 1:] > 0).to(vectors.dtype).unsqueeze(2)
        return vectors[:, 0], self.liking.index_select(0, places[:, 0]), vectors[:, 1:] * there, there

    def keep_columns(self, ids: Tensor) -> None:
        """Hold liking and trust of these items only."""
        self.liking, self.trust = self.liking.index_select(0, ids), self.trust.index_select(0, ids)

    @torch.no_grad()
    def fit(self, candidate: np.ndarray, y: np.ndarray, contributor: np.ndarray, expected: np.ndarray) -> None:
        """Add to liking, and set trust, by what is left to explain. candidate, y (0 or 1), contributor: int (n,);
        expected: probability of label 1 so far (n,).

        A label counts against its contributor's own rate: who likes everything says little. Few labels say little too:
        means are shrunk as if by so many more labels without any news.
        """
        who = np.unique(contributor, return_inverse=True)[1].reshape(-1)
        news = y - expected
        news = news - (np.bincount(who, news) / (np.bincount(who) + RATE_PRIOR))[who]
        count = np.bincount(candidate, minlength=len(self.liking))
        mean = np.bincount(candidate, news, minlength=len(self.liking)) / (count + LIKING_PRIOR)
        # log-odds change by 4 per unit of probability around one half
        self.liking.add_(torch.from_numpy(4 * mean).to(self.liking).reshape(-1, 1))
        self.trust.copy_(torch.from_numpy(count / (count + TRUST_PRIOR)).reshape(-1, 1))


def two_logits(score: Tensor) -> Tensor:
    """Log-odds (batch, 1) -> logits (batch, 2) whose difference they are."""
    return torch.cat([-score / 2, score / 2], dim=1)
