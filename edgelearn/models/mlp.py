"""Two hidden layers for tabular samples, with layer norm: batch statistics of a handful of samples mean nothing."""

from __future__ import annotations

from torch import Tensor, nn

from edgelearn.models.front import Front
from edgewire.tasks import Task


class Mlp(nn.Module):
    def __init__(self, task: Task) -> None:
        super().__init__()
        (features,) = task.input.shape
        width, embedding = task.model.width, task.model.embedding
        self.front = Front((features,), missing=task.input.missing)
        self.hidden = nn.Linear(features, width)
        self.norm = nn.LayerNorm(width)
        self.embedding = nn.Linear(width, embedding)
        self.head = nn.Linear(embedding, len(task.labels))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.norm(self.hidden(self.front(x))).relu()  # (batch, width)
        embedding = self.embedding(hidden).relu()  # (batch, embedding)
        return self.head(embedding), embedding  # (batch, classes), (batch, embedding)
