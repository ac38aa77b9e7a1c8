"""Episodic training: after ordinary training, practise what boards will do, with contributors as boards.

Each round takes a few contributors. A few samples of each class of one contributor, drawn towards everybody's class
mean, make a prototype; its other samples must be nearest to the prototype of their class (Snell, Swersky and Zemel,
"Prototypical networks for few-shot learning", NeurIPS 2017, with a learned prior instead of none). The ordinary loss is
kept, so that the base stays a good model for a board without samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgelearn.examples import Examples
from edgelearn.fit import Augment
from edgelearn.models.build import outputs
from edgelearn.retrieval.prototypes import class_means

MIN_SAMPLES = 12  # a contributor with fewer is no board to practise on


@dataclass(frozen=True)
class EpisodeSettings:
    """contributors: per round; shots: samples per class that prototypes are made of, one of these at a time; query:
    samples per contributor that are judged, at most."""

    rounds: int
    contributors: int = 4
    shots: tuple[int, ...] = (0, 1, 3, 5)
    query: int = 24
    learning_rate: float = 2e-3


def practise(
    model: nn.Module,
    pool: Examples,
    contributor: np.ndarray,
    settings: EpisodeSettings,
    *,
    seed: int,
    augment: Augment | None = None,
) -> Iterator[int]:
    """Train `model` in place, one round per `next`; yields the round, 1..rounds. pool.group: recordings; what is judged
    shares none with the shots where a contributor has several. contributor: (n,); augment: what each batch goes
    through."""
    people = [
        rows for person in np.unique(contributor) if len(rows := np.flatnonzero(contributor == person)) >= MIN_SAMPLES
    ]
    if not people:
        return
    run = _Run(model, pool, settings, augment)
    for number in range(1, settings.rounds + 1):
        rng = np.random.default_rng((seed, number, 3))
        shots = int(rng.choice(settings.shots))
        chosen = [people[i] for i in rng.choice(len(people), min(settings.contributors, len(people)), replace=False)]
        episodes = [deal(pool, rows, shots, settings.query, rng) for rows in chosen]
        run.round(number, episodes, int(rng.integers(1 << 62)))
        yield number


def deal(
    pool: Examples, rows: np.ndarray, shots: int, query: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(shots of each class, others to be judged): of one contributor's rows. A class's shots come from one recording
    where the class has more than one, and then what is judged comes from the others."""
    shuffled = rng.permutation(rows)
    shuffled = shuffled[np.argsort(_turn(pool.group[shuffled], rng), kind="stable")]
    support, rest = [], []
    for label in np.unique(pool.y[rows]):
        mine = shuffled[pool.y[shuffled] == label]
        first = mine[pool.group[mine] == pool.group[mine[0]]]
        own = first if len(first) < len(mine) and len(first) >= shots else mine
        support.append(own[:shots])
        rest.append(np.setdiff1d(mine, own if own is first else own[:shots]))
    return np.concatenate(support), rng.permutation(np.concatenate(rest))[:query]


def _turn(group: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Recordings in a random order, samples of one recording together."""
    _, codes = np.unique(group, return_inverse=True)
    return np.asarray(rng.permutation(int(codes.max()) + 1)[codes])


class _Run:
    def __init__(self, model: nn.Module, pool: Examples, settings: EpisodeSettings, augment: Augment | None) -> None:
        self.model, self.settings, self.augment = model, settings, augment
        self.x, self.y = torch.from_numpy(pool.x.copy()), torch.from_numpy(pool.y.copy())
        logits, embedding = outputs(model, pool.x)
        means, _ = class_means(embedding, pool.y, logits.shape[1])
        self.means = nn.Parameter(torch.from_numpy(means))  # everybody's prototypes
        self.prior = nn.Parameter(torch.zeros(()))  # how many samples they are worth, before softplus
        self.scale = nn.Parameter(torch.tensor(-2.0))  # of squared distances, logarithmic
        parameters = [*model.parameters(), self.means, self.prior, self.scale]
        self.optimizer = torch.optim.Adam(parameters, lr=settings.learning_rate, weight_decay=1e-4, fused=True)

    def round(self, number: int, episodes: list[tuple[np.ndarray, np.ndarray]], seed: int) -> None:
        self.model.train()
        shrink = 0.5 * (1 + math.cos(math.pi * (number - 1) / self.settings.rounds))
        self.optimizer.param_groups[0]["lr"] = self.settings.learning_rate * shrink
        rows = torch.from_numpy(np.concatenate([part for episode in episodes for part in episode]))
        x = self.x[rows]
        if self.augment is not None:
            x = self.augment(x, torch.Generator().manual_seed(seed))
        logits, embedding = self.model(x)
        loss = F.cross_entropy(logits, self.y[rows])
        parts = embedding.split([len(part) for episode in episodes for part in episode])
        for i, (support, query) in enumerate(episodes):
            judged = self._judge(parts[2 * i], self.y[support], parts[2 * i + 1])
            loss = loss + F.cross_entropy(judged, self.y[query]) / len(episodes)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()

    def _judge(self, support: Tensor, y: Tensor, query: Tensor) -> Tensor:
        """Logits (query, classes): minus the scaled squared distances to the contributor's prototypes."""
        worth = F.softplus(self.prior)
        sums = worth * self.means
        counts = worth.expand(len(self.means))
        if len(y):
            mine = F.one_hot(y, len(self.means)).to(support.dtype)  # (support, classes)
            sums, counts = sums + mine.T @ support, counts + mine.sum(dim=0)
        distance = torch.cdist(query, sums / counts[:, None]) ** 2
        return -distance * self.scale.exp()
