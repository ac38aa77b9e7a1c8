"""LeNet-5 for small images, grey or colour, with the layer sizes of LeCun et al., "Gradient-based learning applied to
document recognition" (1998); ReLU and max pooling stand for its sigmoids and its trained averages, as is usual now."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgelearn.models.front import Front
from edgewire.tasks import LENET5_EMBEDDING, Task


class LeNet5(nn.Module):
    def __init__(self, task: Task) -> None:
        super().__init__()
        height, across, *rest = task.input.shape
        colours = rest[0] if rest else 1
        self.grey = not rest
        self.front = Front((1, 1, colours) if rest else (1, 1), missing=task.input.missing)
        self.c1 = nn.Conv2d(colours, 6, kernel_size=5, padding=2)
        self.c3 = nn.Conv2d(6, 16, kernel_size=5)
        self.pool = nn.MaxPool2d(2)
        self.c5 = nn.Linear(16 * _after(height) * _after(across), 120)
        self.f6 = nn.Linear(120, LENET5_EMBEDDING)
        self.head = nn.Linear(LENET5_EMBEDDING, len(task.labels))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scaled = self.front(x)  # (batch, height, width[, colours])
        # the greatest of four after ReLU is ReLU of the greatest, with the same slopes, for a quarter of the work
        hidden = scaled.unsqueeze(1) if self.grey else scaled.permute(0, 3, 1, 2)
        hidden = self.pool(self.c1(hidden)).relu()  # (batch, 6, height / 2, width / 2)
        hidden = self.pool(self.c3(hidden)).relu()  # (batch, 16, height / 4 - 2, width / 4 - 2)
        hidden = self.c5(torch.flatten(hidden, 1)).relu()  # (batch, 120)
        embedding = self.f6(hidden).relu()  # (batch, 84)
        return self.head(embedding), embedding  # (batch, classes), (batch, 84)


def _after(size: int) -> int:
    """An axis of the image after both convolutions and poolings."""
    return (size // 2 - 4) // 2
