"""Three convolutions for small images, grey or colour, with group norm."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgelearn.models.front import Front
from edgewire.tasks import Task


class Cnn2d(nn.Module):
    def __init__(self, task: Task) -> None:
        super().__init__()
        height, across, *rest = task.input.shape
        colours = rest[0] if rest else 1
        width, embedding = task.model.width, task.model.embedding
        self.grey = not rest
        self.front = Front((1, 1, colours) if rest else (1, 1), missing=task.input.missing)
        stride = 2 if min(height, across) >= 16 else 1
        self.conv1 = nn.Conv2d(colours, width, kernel_size=3, padding=1, stride=stride)
        self.norm1 = nn.GroupNorm(4, width)
        self.conv2 = nn.Conv2d(width, 2 * width, kernel_size=3, padding=1, stride=2)
        self.norm2 = nn.GroupNorm(4, 2 * width)
        self.conv3 = nn.Conv2d(2 * width, 2 * width, kernel_size=3, padding=1, stride=2)
        self.norm3 = nn.GroupNorm(4, 2 * width)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.embedding = nn.Linear(8 * width, embedding)
        self.head = nn.Linear(embedding, len(task.labels))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scaled = self.front(x)  # (batch, height, width[, colours])
        hidden = scaled.unsqueeze(1) if self.grey else scaled.permute(0, 3, 1, 2)
        hidden = self.norm1(self.conv1(hidden)).relu()
        hidden = self.norm2(self.conv2(hidden)).relu()
        hidden = self.norm3(self.conv3(hidden)).relu()
        pooled = torch.flatten(self.pool(hidden), 1)  # (batch, 8 width)
        embedding = self.embedding(pooled).relu()  # (batch, embedding)
        return self.head(embedding), embedding  # (batch, classes), (batch, embedding)
