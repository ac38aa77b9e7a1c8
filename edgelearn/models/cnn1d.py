"""Three convolutions over time for windows of sensor channels, with group norm (no batch statistics to go stale)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgelearn.models.front import Front
from edgewire.tasks import Task


class Cnn1d(nn.Module):
    def __init__(self, task: Task) -> None:
        super().__init__()
        time, channels = task.input.shape
        width, embedding = task.model.width, task.model.embedding
        self.front = Front((1, channels), missing=task.input.missing)
        stride = 2 if time >= 16 else 1
        self.conv1 = nn.Conv1d(channels, width, kernel_size=5, padding=2)
        self.norm1 = nn.GroupNorm(4, width)
        self.conv2 = nn.Conv1d(width, 2 * width, kernel_size=5, padding=2, stride=stride)
        self.norm2 = nn.GroupNorm(4, 2 * width)
        self.conv3 = nn.Conv1d(2 * width, 2 * width, kernel_size=3, padding=1, stride=stride)
        self.norm3 = nn.GroupNorm(4, 2 * width)
        self.embedding = nn.Linear(4 * width, embedding)
        self.head = nn.Linear(embedding, len(task.labels))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.front(x).transpose(1, 2)  # (batch, channels, time)
        hidden = self.norm1(self.conv1(hidden)).relu()
        hidden = self.norm2(self.conv2(hidden)).relu()
        hidden = self.norm3(self.conv3(hidden)).relu()  # (batch, 2 width, time / 4)
        pooled = torch.cat([hidden.mean(dim=2), hidden.amax(dim=2)], dim=1)  # (batch, 4 width)
        embedding = self.embedding(pooled).relu()  # (batch, embedding)
        return self.head(embedding), embedding  # (batch, classes), (batch, embedding)
