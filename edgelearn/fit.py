"""The one training loop: a generator of steps. Its whole state is named arrays, and a step's randomness depends only on
(seed, step number), so that budgets, checkpoints and progress belong to the caller and a resumed run is bit-exact."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgelearn.examples import Examples
from edgelearn.models.build import get_weights, set_weights, tables

Augment = Callable[[Tensor, torch.Generator], Tensor]  # raw samples (batch, *shape) -> the same labels' other samples


@dataclass(frozen=True)
class FitSettings:
    """steps: optimizer steps; local_mass: share of every batch drawn from the first source, where there is a second;
    smoothing: of the labels, the probability that is spread over all classes (Szegedy et al., 2016); micro_batch: rows
    that go through the model at once (0: the whole batch), gradients are summed up over the batch: the same step but
    for rounding, in less memory."""

    steps: int
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    local_mass: float = 0.6
    cosine: bool = True
    smoothing: float = 0.0
    distil: float = 1.0  # weight of the base model's opinion, used only while some classes have no samples
    micro_batch: int = 0


@dataclass(frozen=True)
class Source:
    """What a run trains on. teacher: logits (n, classes) of an earlier model on the local samples, for classes that are
    absent; alive: bool (classes,), those of them that are kept alive (None: all); augment: what each batch goes
    through, with a generator that depends on (seed, step number) only."""

    local: Examples
    outside: Examples | None = None
    teacher: np.ndarray | None = None
    alive: np.ndarray | None = None
    augment: Augment | None = None


class Step:
    """One finished step. number: 1..total; loss: a tensor's value, read only if asked for."""

    def __init__(self, run: _Run, number: int, loss: Tensor) -> None:
        self._run = run
        self._loss = loss
        self.number = number
        self.total = run.settings.steps

    @property
    def loss(self) -> float:
        return float(self._loss)

    def state(self) -> dict[str, np.ndarray]:
        """Everything a later `fit(..., state=...)` needs to go on bit-exactly."""
        return self._run.state(self.number)


def fit(
    model: nn.Module,
    source: Source,
    settings: FitSettings,
    *,
    seed: int,
    state: Mapping[str, np.ndarray] | None = None,
) -> Iterator[Step]:
    """Train `model` in place, one step per `next`. state: of an earlier run with the same arguments, to go on from."""
    run = _Run(model, source, settings, seed)
    first = run.restore(state) if state is not None else 0
    for number in range(first + 1, settings.steps + 1):
        yield Step(run, number, run.step(number))


class _Run:
    def __init__(self, model: nn.Module, source: Source, settings: FitSettings, seed: int) -> None:
        if len(source.local) == 0:
            raise ValueError("nothing to train on")
        self.model, self.settings, self.seed = model, settings, seed
        self.augment = source.augment
        self.device = next(model.parameters()).device
        self.n_local = len(source.local)
        outside = source.outside if source.outside is not None and len(source.outside) else None
        self.n_outside = len(outside) if outside else 0
        self.x, self.y = self._columns(source.local, outside)
        self.teacher, self.absent = self._absent_classes(source, outside)
        self.trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.optimizer = self._optimizer()

    def _optimizer(self) -> torch.optim.Adam:
        """Adam over what is not frozen; tables decay by themselves."""
        shared = tables(self.model).keys()
        dense = [p for name, p in self.trained.items() if name not in shared]
        rows = [p for name, p in self.trained.items() if name in shared]
        groups = [{"params": dense, "weight_decay": self.settings.weight_decay}, {"params": rows, "weight_decay": 0.0}]
        return torch.optim.Adam([g for g in groups if g["params"]], lr=self.settings.learning_rate, fused=True)

    def _columns(self, local: Examples, outside: Examples | None) -> tuple[Tensor, Tensor]:
        parts = [local, outside] if outside else [local]
        x = np.concatenate([part.x for part in parts])
        y = np.concatenate([part.y for part in parts])
        return torch.from_numpy(x).to(self.device), torch.from_numpy(y).to(self.device)

    def _absent_classes(self, source: Source, outside: Examples | None) -> tuple[Tensor | None, Tensor | None]:
        """Classes that nobody brings samples of, but that are to be kept alive, take no part in the loss, and the
        teacher's opinion of them stays."""
        if source.teacher is None:
            return None, None
        seen = torch.zeros(source.teacher.shape[1], dtype=torch.bool, device=self.device)
        seen[self.y] = True
        if source.alive is not None:
            seen |= ~torch.from_numpy(source.alive).to(self.device)
        if bool(seen.all()):
            return None, None
        return torch.from_numpy(source.teacher).to(self.device), ~seen

    def step(self, number: int) -> Tensor:
        rows = self._draw(number)
        if not self.model.training:  # whoever looked at the model between two steps may have switched it
            self.model.train()
        self._set_learning_rate(number)
        self.optimizer.zero_grad(set_to_none=True)
        size = self.settings.micro_batch or len(rows)
        x, loss = self._samples(rows, number), torch.zeros((), device=self.device)
        for i in range(0, len(rows), size):
            share = self._loss(x[i : i + size], rows[i : i + size], of=rows)
            torch.autograd.backward(share)
            loss = loss + share.detach()
        self.optimizer.step()
        return loss

    def _samples(self, rows: Tensor, number: int) -> Tensor:
        if self.augment is None:
            return self.x[rows]
        seed = int(np.random.SeedSequence((self.seed, number, 1)).generate_state(1, np.uint64)[0] >> 1)
        return self.augment(self.x[rows], torch.Generator(self.device).manual_seed(seed))

    def _loss(self, x: Tensor, rows: Tensor, *, of: Tensor) -> Tensor:
        """What these rows add to the mean loss of the batch `of` which they are a part."""
        logits, _ = self.model(x)  # (rows, classes)
        share = len(rows) / len(of)
        if self.absent is None or self.teacher is None:
            return share * F.cross_entropy(logits, self.y[rows], label_smoothing=self.settings.smoothing)
        loss = share * F.cross_entropy(logits.masked_fill(self.absent, -1e9), self.y[rows])
        local = rows < self.n_local
        if not bool(local.any()):
            return loss
        opinion = F.log_softmax(self.teacher[rows[local]], dim=1)
        learned = F.log_softmax(logits[local], dim=1)
        distil = self.settings.distil * int(local.sum()) / int((of < self.n_local).sum())
        return loss + distil * F.kl_div(learned, opinion, reduction="batchmean", log_target=True)

    def _draw(self, number: int) -> Tensor:
        """Row numbers of one batch: without replacement inside a source where it is large enough."""
        rng = np.random.default_rng((self.seed, number))
        size = self.settings.batch_size
        if not self.n_outside:
            return torch.from_numpy(_pick(rng, self.n_local, min(size, self.n_local))).to(self.device)
        local = max(1, round(size * self.settings.local_mass))
        rows = np.concatenate(
            [_pick(rng, self.n_local, local), self.n_local + _pick(rng, self.n_outside, size - local)]
        )
        return torch.from_numpy(rows).to(self.device)

    def _set_learning_rate(self, number: int) -> None:
        settings = self.settings
        scale = 0.5 * (1 + math.cos(math.pi * (number - 1) / settings.steps)) if settings.cosine else 1.0
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * scale

    def state(self, number: int) -> dict[str, np.ndarray]:
        arrays = {f"weight.{name}": array for name, array in get_weights(self.model).items()}
        for name, parameter in self.trained.items():
            moments = self.optimizer.state[parameter]
            arrays[f"mean.{name}"] = moments["exp_avg"].cpu().numpy().copy()
            arrays[f"square.{name}"] = moments["exp_avg_sq"].cpu().numpy().copy()
        return {**arrays, "step": np.asarray([number], np.int64)}

    def restore(self, state: Mapping[str, np.ndarray]) -> int:
        number = int(state["step"][0])
        set_weights(self.model, {key[7:]: array for key, array in state.items() if key.startswith("weight.")})
        for name, parameter in self.trained.items():
            self.optimizer.state[parameter] = {
                "step": torch.tensor(float(number), device=self.device),
                "exp_avg": torch.from_numpy(state[f"mean.{name}"].copy()).to(self.device),
                "exp_avg_sq": torch.from_numpy(state[f"square.{name}"].copy()).to(self.device),
            }
        return number


def _pick(rng: np.random.Generator, n: int, count: int) -> np.ndarray:
    if count <= n:
        return rng.permutation(n)[:count] if n <= 4096 else rng.choice(n, count, replace=False)
    whole = np.concatenate([rng.permutation(n) for _ in range(-(-count // n))])
    return whole[:count]
