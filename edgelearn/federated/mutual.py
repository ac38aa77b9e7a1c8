"""Mutual learning: the boards' small model and a large one, which the cloud holds, teach each other after each round of
FedAvg, on samples of the server's own (Zhang, Xiang, Hospedales, Lu, "Deep mutual learning", CVPR 2018, section 2 and
algorithm 1; that a server may go on training what it averaged: Lin et al., "Ensemble distillation for robust model
fusion in federated learning", NeurIPS 2020)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from edgelearn.federated.algorithm import Server, Update
from edgelearn.federated.arrays import Arrays, plus
from edgelearn.federated.fedavg import FedAvg

_LARGE = "large/"  # weights of the large model, in the server's state


class Pupil(Protocol):
    """A model and the server's own samples; rows: numbers of samples, int64."""

    def likely(self, weights: Mapping[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
        """Probabilities (rows, classes)."""
        ...

    def towards(self, weights: Mapping[str, np.ndarray], rows: np.ndarray, targets: np.ndarray) -> Arrays:
        """Gradient of the mean cross-entropy against these probabilities (rows, classes), by name, float32."""
        ...


@dataclass(frozen=True)
class Classroom:
    """Both models and what they learn on. y: labels of the samples, int64 (n,); start: the large model's weights before
    the first round."""

    small: Pupil
    large: Pupil
    y: np.ndarray
    start: Arrays


@dataclass(frozen=True, kw_only=True)
class FedMutual(FedAvg):
    """FedAvg; then, batch by batch, the small model takes a step on CE(y, p) + trust · KL(p_large ‖ p), and the large
    one on CE(y, p_large) + trust · KL(p ‖ p_large). Boards are sent the small one and hear nothing of the other.

    rng: a generator for a round; passes: over the server's samples in each; trust: 0 is each by itself.

    One sample, of class 0; the small model is undecided, the large one takes it for class 0 with 3 of 4. The small one
    moves by 2 · ((1 + ¾)/2 − ½) = ¾ at a rate of 1.

    >>> from edgelearn.federated.example import Opinion
    >>> large = {"w": np.log(np.float32([3, 1]))}
    >>> room = Classroom(Opinion(), Opinion(), np.array([0]), large)
    >>> algorithm = FedMutual(classroom=lambda: room, rng=np.random.default_rng, lesson_rate=1.0)
    >>> server = algorithm.start({"w": np.float32([0, 0])})
    >>> algorithm.server_update(server, [Update("one", 0, 1, 1, {"w": np.float32([0, 0])})]).weights["w"]
    array([ 0.75, -0.75], dtype=float32)
    """

    classroom: Callable[[], Classroom]
    rng: Callable[[int], np.random.Generator]
    passes: int = 1
    batch_size: int = 20
    lesson_rate: float = 0.04
    trust: float = 1.0

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError("a lesson needs at least one sample in a batch")
        if not self.trust >= 0:
            raise ValueError("trust is a number from 0 up")

    def start(self, weights: Mapping[str, np.ndarray]) -> Server:
        state = {_LARGE + name: array for name, array in self.classroom().start.items()}
        return replace(super().start(weights), state=state)

    def server_update(self, server: Server, updates: Iterable[Update]) -> Server:
        mean = super().server_update(server, updates)
        room, rng = self.classroom(), self.rng(server.round)
        small, large = mean.weights, large_of(server)
        for _ in range(self.passes):
            order = rng.permutation(len(room.y))
            for first in range(0, len(order), self.batch_size):
                small, large = self._lesson(room, small, large, order[first : first + self.batch_size])
        return replace(mean, weights=small, state={_LARGE + name: array for name, array in large.items()})

    def _lesson(self, room: Classroom, small: Arrays, large: Arrays, rows: np.ndarray) -> tuple[Arrays, Arrays]:
        """One step of each: the large model hears what the small one thinks after its own."""
        small = self._step(room.small, small, rows, room.y, room.large.likely(large, rows))
        large = self._step(room.large, large, rows, room.y, room.small.likely(small, rows))
        return small, large

    def _step(self, pupil: Pupil, weights: Arrays, rows: np.ndarray, y: np.ndarray, heard: np.ndarray) -> Arrays:
        """Against label and opinion at once: but for what no weight changes, CE(y, p) + t · KL(q ‖ p) is (1 + t) times
        the cross-entropy against (y + t · q) / (1 + t)."""
        targets = self.trust * heard
        targets[np.arange(len(rows)), y[rows]] += 1
        slopes = pupil.towards(weights, rows, (targets / (1 + self.trust)).astype(np.float32))
        return plus(weights, slopes, times=-self.lesson_rate * (1 + self.trust))


def large_of(server: Server) -> Arrays:
    """The large model's weights."""
    return {name.removeprefix(_LARGE): array for name, array in server.state.items()}
