"""Two towers, one for the history and one for the candidate, and their scaled dot product (DSSM; Huang et al., CIKM
2013). The product, term by term, is the embedding; the head weighs its terms, at first all alike."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgelearn.models.items import ITEM_DIM, Items, two_logits
from edgewire.tasks import Task

SCALE = 0.6  # small at first: what everybody likes is known before training, the rest is learned on top


class Dssm(nn.Module):
    """Boards train the head only."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        width, embedding = task.model.width, task.model.embedding
        self.items = Items(task)
        self.person = nn.Sequential(nn.Linear(ITEM_DIM, width), nn.ReLU(), nn.Linear(width, embedding))
        self.item = nn.Sequential(nn.Linear(ITEM_DIM, width), nn.ReLU(), nn.Linear(width, embedding))
        self.head = nn.Linear(embedding, 2)
        nn.init.zeros_(self.head.bias)
        with torch.no_grad():
            self.head.weight.copy_(SCALE * two_logits(torch.ones(embedding, 1)).T / embedding**0.5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        candidate, liking, history, there = self.items(x)
        mean = history.sum(dim=1) / (1 + there.sum(dim=1))  # (batch, dim); the 1 draws short histories to the middle
        embedding = self.person(mean) * self.item(candidate)  # (batch, embedding)
        return self.head(embedding) + two_logits(liking), embedding
