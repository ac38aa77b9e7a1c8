"""The last layer alone, trained on cached embeddings: milliseconds, and for tables better than training everything."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from edgelearn.examples import Examples
from edgelearn.fit import Source
from edgelearn.models.build import Weights, load, outputs
from edgelearn.personalize.setting import Setting


def train_head(setting: Setting, start: Weights) -> Weights:
    """`start` with a head trained on the board's embeddings by it."""
    if start is setting.base:
        logits, embedding = setting.local_outputs
    else:
        logits, embedding = outputs(load(setting.task, start).to(setting.device), setting.local.x)
    model = Head(start["head.weight"], start["head.bias"]).to(setting.device)
    rest = logits - embedding @ start["head.weight"].T - start["head.bias"]  # what is not the head's
    local = Examples(np.concatenate([embedding, rest], axis=1), setting.local.y, setting.local.group)
    settings = setting.settings.paced(setting.settings.head, len(local))
    setting.train(model, Source(local, teacher=logits, alive=setting.expected), settings)
    head = {f"head.{name}": tensor.detach().cpu().numpy() for name, tensor in model.head.state_dict().items()}
    return {**start, **head}


class Head(nn.Module):
    """A model's last layer alone, for samples (batch, dim + classes): embedding, and logits that others add."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray) -> None:
        super().__init__()
        self.head = nn.Linear(weight.shape[1], weight.shape[0])
        self.head.load_state_dict({"weight": torch.from_numpy(weight.copy()), "bias": torch.from_numpy(bias.copy())})

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        embedding, rest = x[:, : self.head.in_features], x[:, self.head.in_features :]
        return self.head(embedding) + rest, embedding
