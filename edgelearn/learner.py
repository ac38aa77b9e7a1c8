"""A torch model and samples as what federated algorithms train: gradients by name, as arrays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from edgelearn.federated.arrays import Arrays, weighted_mean
from edgelearn.models.build import build, outputs, set_weights
from edgelearn.submodel import submodel, touched
from edgewire.tasks import Task

PIECE_ROWS = 1024  # of a batch that pass through a model at once: what a step holds must not grow with the samples


class OtherRows(ValueError):
    """Samples touch rows of tables that a submodel does not have."""


class TorchLearner:
    """x: (n, *shape), y: int64 (n,). The model's parameters are the weights; what it has besides (input scaling) stays
    as it is. Many learners may share a model: every gradient brings its weights along."""

    def __init__(self, model: nn.Module, x: np.ndarray, y: np.ndarray) -> None:
        self.model = model
        self.x, self.y = np.require(x, requirements="W"), np.require(y, np.int64, "W")
        self._trained = trained(model)

    @property
    def num_samples(self) -> int:
        return len(self.y)

    def gradient(self, weights: Mapping[str, np.ndarray], rows: np.ndarray) -> Arrays:
        """Of the mean cross-entropy over these rows."""
        return self._gradient(weights, rows, self.y[rows])

    def towards(self, weights: Mapping[str, np.ndarray], rows: np.ndarray, targets: np.ndarray) -> Arrays:
        """As `gradient`, against these probabilities (rows, classes), float32, instead of the labels."""
        return self._gradient(weights, rows, targets)

    def _gradient(self, weights: Mapping[str, np.ndarray], rows: np.ndarray, targets: np.ndarray) -> Arrays:
        if not self.model.training:
            self.model.train()
        bind(self._trained, weights)
        if len(rows) <= PIECE_ROWS:
            return self._slopes(rows, targets)
        pieces = [slice(start, start + PIECE_ROWS) for start in range(0, len(rows), PIECE_ROWS)]
        return weighted_mean((self._slopes(rows[piece], targets[piece]), len(rows[piece])) for piece in pieces)

    def _slopes(self, rows: np.ndarray, targets: np.ndarray) -> Arrays:
        logits, _ = self.model(torch.from_numpy(self.x[rows]))
        loss = F.cross_entropy(logits, torch.from_numpy(targets))
        slopes = torch.autograd.grad(loss, list(self._trained.values()))
        return {name: slope.numpy() for name, slope in zip(self._trained, slopes, strict=True)}

    def likely(self, weights: Mapping[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
        """Probabilities of these rows (rows, classes), nothing is trained."""
        bind(self._trained, {name: np.require(array, requirements="W") for name, array in weights.items()})
        likely: np.ndarray = F.softmax(torch.from_numpy(outputs(self.model, self.x[rows])[0]), dim=1).numpy()
        return likely

    def logits(self, weights: Mapping[str, np.ndarray]) -> np.ndarray:
        """On all samples (n, classes), nothing is trained."""
        bind(self._trained, {name: np.require(array, requirements="W") for name, array in weights.items()})
        return outputs(self.model, self.x)[0]


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that learn, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def weights_of(model: nn.Module) -> Arrays:
    """What boards train and send, copied: the parameters that learn, not the buffers."""
    return {name: parameter.detach().numpy().copy() for name, parameter in trained(model).items()}


def shared_weights(task: Task, base: Mapping[str, np.ndarray]) -> Arrays:
    """What boards train together, of a base's weights: the parameters. Raises ValueError if they do not fit."""
    model = build(task)
    set_weights(model, base)
    return weights_of(model)


def learner_of(task: Task, base: Mapping[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> TorchLearner:
    """A learner whose model is a base's: what is not trained stays as it is there. Raises ValueError if it does not
    fit."""
    model = build(task)
    set_weights(model, base)
    return TorchLearner(model, x, y)


def part_learner(
    task: Task,
    base: Mapping[str, np.ndarray],
    weights: Mapping[str, np.ndarray],
    rows: Mapping[str, np.ndarray],
    x: np.ndarray,
    y: np.ndarray,
) -> TorchLearner:
    """As `learner_of`, for the part of the model that has these rows of its tables. weights: those that it will be
    given. Raises ValueError if they do not fit, OtherRows."""
    whole = build(task)
    set_weights(whole, base)
    for name, ids in touched(whole, x).items():
        if name not in rows or not bool(np.isin(ids, rows[name]).all()):
            raise OtherRows(f"samples touch rows of '{name}' that are not there")
    model = submodel(whole, rows)
    expected = {name: array.shape for name, array in weights_of(model).items()}
    if {name: array.shape for name, array in weights.items()} != expected:
        raise ValueError("the weights are of other rows")
    return TorchLearner(model, x, y)


def bind(parameters: Mapping[str, nn.Parameter], weights: Mapping[str, np.ndarray]) -> None:
    """Let the parameters share the arrays' memory: nothing is copied, a step changes both."""
    for name, parameter in parameters.items():
        parameter.data = torch.from_numpy(weights[name])
