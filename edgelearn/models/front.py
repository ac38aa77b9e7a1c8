"""The model's own input scaling, so that board, cloud and the exported ONNX file cannot disagree about it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Front(nn.Module):
    """Standardise raw samples; a missing value (NaN) becomes the mean. mean, std: broadcastable to one sample."""

    mean: Tensor
    std: Tensor

    def __init__(self, shape: tuple[int, ...], *, missing: bool) -> None:
        super().__init__()
        self.missing = missing
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))

    def forward(self, x: Tensor) -> Tensor:
        scaled = (x.to(torch.float32) - self.mean) / self.std  # (batch, *shape)
        if self.missing:
            scaled = torch.where(torch.isnan(scaled), torch.zeros_like(scaled), scaled)
        # far outliers (a broken sensor) would otherwise swamp a batch
        return scaled.clamp(-10.0, 10.0)
