"""Deep Interest Network: a history is read with the candidate in mind (Zhou et al., KDD 2018, arXiv 1706.06978).

Its activation unit sees history item, candidate, their difference and their product; weights are not normalised, so
that a strong interest stays strong.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgelearn.models.items import ITEM_DIM, Items, two_logits
from edgewire.tasks import Task


class Din(nn.Module):
    """Boards train the head only."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        width, embedding = task.model.width, task.model.embedding
        self.items = Items(task)
        self.unit = nn.Linear(4 * ITEM_DIM, width)
        self.attention = nn.Linear(width, 1)
        self.hidden = nn.Linear(3 * ITEM_DIM, width)
        self.norm = nn.LayerNorm(width)
        self.embedding = nn.Linear(width, embedding)
        self.head = nn.Linear(embedding, 2)
        nn.init.zeros_(self.head.weight)  # what everybody likes is known before training, the rest is learned on top

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        candidate, liking, history, there = self.items(x)
        interest = self._interest(candidate, history, there)
        features = torch.cat([interest, candidate, interest * candidate], dim=1)  # (batch, 3 dim)
        embedding = self.embedding(self.norm(self.hidden(features)).relu()).relu()  # (batch, embedding)
        return self.head(embedding) + two_logits(liking), embedding

    def _interest(self, candidate: Tensor, history: Tensor, there: Tensor) -> Tensor:
        """Sum pooling of the history (batch, dim)."""
        wanted = candidate.unsqueeze(1).expand_as(history)
        unit = self.unit(torch.cat([history, wanted, history - wanted, history * wanted], dim=2)).relu()
        weight: Tensor = self.attention(unit) * there  # (batch, length, 1)
        # scaled by the root of the length: sums over 2 and over 50 items are then of like size
        return (weight * history).sum(dim=1) / (1 + there.sum(dim=1)).sqrt()
