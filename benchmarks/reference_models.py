"""The two models of the federated reference table. Architecture, initialization and input are fixed here: they decide
how many rounds it takes.

Both start from torch's own initialization (weights and biases uniform within 1/√fan-in) under the seed of the run;
pixels are divided by 255, nothing else is done to them. The 2NN has 109,386 parameters, LeNet-5 61,706.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgelearn.models.lenet5 import LeNet5
from edgewire.tasks import InputSchema, ModelSpec, Task

PIXELS = 28 * 28
MEAN, DEVIATION = 0.1307, 0.3081  # of a training pixel
LENET5 = Task(
    "mnist",
    "Digits",
    InputSchema((28, 28), "uint8"),
    tuple("0123456789"),
    ModelSpec("lenet5", embedding=84),
)


class TwoNN(nn.Module):
    """784, 128, 64 and 10 units, ReLU between them."""

    def __init__(self, *, mean: float = 0.0, deviation: float = 1.0) -> None:
        super().__init__()
        self.mean, self.deviation = 255 * mean, 255 * deviation
        self.first = nn.Linear(PIXELS, 128)
        self.second = nn.Linear(128, 64)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        flat = x.reshape(len(x), PIXELS).to(torch.float32)
        embedding = self.second(self.first((flat - self.mean) / self.deviation).relu()).relu()  # (batch, 64)
        return self.head(embedding), embedding


def reference_model(name: str, *, seed: int) -> nn.Module:
    """'2nn' or 'lenet5', then any of 'standardised' and 'he' or 'glorot' (weights so, biases zero): the same for the
    same seed."""
    kind, *words = name.split()
    mean, deviation = (MEAN, DEVIATION) if "standardised" in words else (0.0, 1.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "2nn":
            made = TwoNN(mean=mean, deviation=deviation)
            _start(made, words)
            return made
        model = LeNet5(LENET5)
        _start(model, words)
        model.front.mean.fill_(255 * mean)
        model.front.std.fill_(255 * deviation)
        return model


def _start(model: nn.Module, words: list[str]) -> None:
    draw = {"he": nn.init.kaiming_normal_, "glorot": nn.init.xavier_uniform_}
    for word in draw.keys() & set(words):
        for layer in model.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                draw[word](layer.weight)
                nn.init.zeros_(layer.bias)
