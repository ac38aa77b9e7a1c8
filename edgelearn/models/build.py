"""From a task to its model, and from a model to named arrays and back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from edgelearn.models.audio import Audio
from edgelearn.models.cnn1d import Cnn1d
from edgelearn.models.cnn2d import Cnn2d
from edgelearn.models.din import Din
from edgelearn.models.dssm import Dssm
from edgelearn.models.front import Front
from edgelearn.models.items import Items, Table
from edgelearn.models.lenet5 import LeNet5
from edgelearn.models.mlp import Mlp
from edgelearn.models.wide_deep import WideDeep
from edgewire.tasks import Task

Weights = dict[str, np.ndarray]

EVALUATED_ROWS = 512  # that pass through a model at once where nothing is trained

_MODELS: dict[str, type[nn.Module]] = {
    "mlp": Mlp,
    "cnn1d": Cnn1d,
    "cnn2d": Cnn2d,
    "lenet5": LeNet5,
    "audio": Audio,
    "din": Din,
    "dssm": Dssm,
    "wide_deep": WideDeep,
}


def build(task: Task, *, seed: int = 0) -> nn.Module:
    """A freshly initialised model of the task, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _MODELS[task.model.name](task)


def load(task: Task, weights: Mapping[str, np.ndarray]) -> nn.Module:
    """The task's model with these weights, ready to be trained on a board: only `personal_parameters` learn. Raises
    ValueError if names, shapes or dtypes do not fit, or a value is not finite."""
    model = build(task)
    set_weights(model, weights)
    learning = personal_parameters(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in learning)
    return model


def tables(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of which a sample touches a few rows only (see edgelearn.models.items.Table)."""
    inside = {id(module.weight) for module in model.modules() if isinstance(module, Table)}
    return {name: parameter for name, parameter in model.named_parameters() if id(parameter) in inside}


def personal_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """What a board trains: all parameters; of a model with tables, which only a pool can fill, the last layer (as in
    arXiv 2211.01163: what comes before it learns a board's few clicks by heart)."""
    last = "head." if tables(model) else ""
    return {name: parameter for name, parameter in model.named_parameters() if name.startswith(last)}


def get_weights(model: nn.Module) -> Weights:
    """Every parameter and buffer as a float32 array of its own."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in model.state_dict().items()}


def set_weights(model: nn.Module, weights: Mapping[str, np.ndarray]) -> None:
    """Copy named arrays into the model, after checking all of them."""
    state = model.state_dict()
    if state.keys() != weights.keys():
        raise ValueError(f"weights do not fit the model: {sorted(state.keys() ^ weights.keys())[:3]}")
    for name, tensor in state.items():
        array = weights[name]
        if tuple(array.shape) != tuple(tensor.shape) or array.dtype != np.float32:
            raise ValueError(f"weight '{name}' is {array.dtype}{list(array.shape)}, expected {list(tensor.shape)}")
        if not np.isfinite(array).all():
            raise ValueError(f"weight '{name}' has values that are not finite")
    model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in weights.items()})


def fit_front(model: nn.Module, x: np.ndarray) -> None:
    """Set the model's input scaling from the pool's samples (never from a board's test rows). Ids are not scaled."""
    if not hasattr(model, "front"):
        return
    front = model.get_submodule("front")
    if not isinstance(front, Front):
        raise ValueError("the model has no front")
    values = _before_front(model, x).astype(np.float64)
    kept = front.mean.shape  # (1, channels): statistics over time too
    axes = (0, *(i + 1 for i, size in enumerate(kept) if size == 1))
    with np.errstate(invalid="ignore"):
        mean = np.nan_to_num(np.nanmean(values, axis=axes, keepdims=True)[0])
        std = np.nan_to_num(np.nanstd(values, axis=axes, keepdims=True)[0])
    front.mean.copy_(torch.from_numpy(mean.astype(np.float32)).reshape(kept))
    front.std.copy_(torch.from_numpy(np.where(std < 1e-6, 1.0, std).astype(np.float32)).reshape(kept))


def fit_items(
    model: nn.Module, x: np.ndarray, y: np.ndarray, contributor: np.ndarray, *, trained: bool = False
) -> None:
    """Set what a click model knows of its items from the pool's samples, before it is trained, and again after that:
    what the rest has learned changes what is left to say of an item. Nothing to do for other models."""
    items = getattr(model, "items", None)
    if isinstance(items, Items):
        expected = np.full(len(y), y.mean())
        if trained:
            logits = outputs(model, x)[0].astype(np.float64)
            expected = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
        items.fit(x[:, 0], y, contributor, expected)


@torch.no_grad()
def _before_front(model: nn.Module, x: np.ndarray) -> np.ndarray:
    """What the front standardises: the samples themselves, or what a fixed first step makes of them."""
    if not hasattr(model, "spectrum"):
        return x
    spectrum = model.get_submodule("spectrum")
    return np.concatenate([spectrum(torch.from_numpy(x[i : i + 64])).numpy() for i in range(0, len(x), 64)])


@torch.no_grad()
def outputs(model: nn.Module, x: np.ndarray, *, batch_size: int = EVALUATED_ROWS) -> tuple[np.ndarray, np.ndarray]:
    """Logits (n, classes) and embeddings (n, dim), float32, in evaluation mode."""
    model.eval()
    device = next(model.parameters()).device
    pieces = [
        [
            output.cpu().numpy()
            for output in model(torch.from_numpy(np.require(x[i : i + batch_size], requirements="W")).to(device))
        ]
        for i in range(0, max(len(x), 1), batch_size)
    ]
    return np.concatenate([logits for logits, _ in pieces]), np.concatenate([embedding for _, embedding in pieces])
