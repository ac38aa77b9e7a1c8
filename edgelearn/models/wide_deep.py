"""Wide & Deep: items and pairs remembered, and what generalises from them (Cheng et al., 2016, arXiv 1606.07792).

Wide: what everybody likes, and a bias for each pair of candidate and history item, hashed into a table of bounded size.
Deep: the mean of the history and the candidate through two layers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgelearn.models.items import ITEM_DIM, Items, Table, two_logits
from edgewire.tasks import Task

CROSSES = 1 << 14
CROSSED = 8  # the most recent items of the history that are crossed with the candidate


class WideDeep(nn.Module):
    """Boards train the head only."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        width, embedding = task.model.width, task.model.embedding
        self.items = Items(task)
        self.crosses = Table(CROSSES, 1, spread=0.0, decay=1e-2)
        self.hidden = nn.Linear(2 * ITEM_DIM, width)
        self.norm = nn.LayerNorm(width)
        self.embedding = nn.Linear(width, embedding)
        self.head = nn.Linear(embedding, 2)
        nn.init.zeros_(self.head.weight)  # what everybody likes is known before training, the rest is learned on top

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        candidate, liking, history, there = self.items(x)
        mean = history.sum(dim=1) / (1 + there.sum(dim=1))  # (batch, dim)
        hidden = self.norm(self.hidden(torch.cat([mean, candidate], dim=1))).relu()
        embedding = self.embedding(hidden).relu()  # (batch, embedding)
        return self.head(embedding) + two_logits(liking + self._pairs(x, there)), embedding

    def _pairs(self, x: Tensor, there: Tensor) -> Tensor:
        """What is remembered of the candidate beside each recent item: the mean over them (batch, 1)."""
        recent = x[:, 1 : 1 + CROSSED].to(torch.int64)
        place = (x[:, :1].to(torch.int64) * 2_654_435_761 + recent * 40_503) % CROSSES  # (batch, crossed)
        known = there[:, :CROSSED]
        return torch.as_tensor((self.crosses(place) * known).sum(dim=1) / (1 + known.sum(dim=1)))
