"""What both halves of `transport_vs_flower` share: what is played, and what is told of it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from benchmarks.relay import Relay
from benchmarks.running import below, memory_mib, worked_s
from edgelearn.federated.algorithm import LocalSettings
from edgelearn.learner import learner_of
from edgelearn.models.build import Weights, build
from edgewire.tasks import InputSchema, ModelSpec, Privacy, Task

WARM_UP = 2  # rounds of which neither time nor bytes are taken
SETTINGS = LocalSettings(epochs=1, batch_size=10, learning_rate=0.04)
LOOK_S = 1.0
TASK = Task(
    "digits",
    "Handwritten digits",
    InputSchema((784,), "uint8"),
    tuple("0123456789"),
    ModelSpec("mlp", width=128, embedding=64),
    privacy=Privacy(modes=("directory",), min_cohort=2, rounds=True),
)


@dataclass(frozen=True)
class Shares:
    """What is played with. x: (n, 784) uint8, y: (n,), parts: rows of each board, test: x and y of nobody's."""

    x: np.ndarray
    y: np.ndarray
    parts: list[np.ndarray]
    test: tuple[np.ndarray, np.ndarray]

    @property
    def weights(self) -> Weights:
        """Where both sides start: drawn by one seed, pixels divided by 255."""
        made = build(TASK, seed=0).state_dict()
        drawn = {name: tensor.numpy().copy() for name, tensor in made.items()}
        return drawn | {"front.std": np.full(784, 255, np.float32)}


@dataclass(frozen=True)
class Played:
    """ended: when the first round began, and when each ended, by the monotonic clock; up, down: bytes per round that
    passed the relay, worked_s: processor time per round of all processes, after the first rounds; server_mib: the most
    that the server's processes held; score: on the test samples, of the last round's weights; counted: updates, and
    made: those weights, where they are told."""

    ended: list[float]
    up: float
    down: float
    worked_s: float
    server_mib: float
    score: float
    counted: int = 0
    made: Weights = field(default_factory=dict)


def score(weights: Weights, shares: Shares) -> float:
    """Share of the test samples that these weights tell right."""
    x, y = shares.test
    learner = learner_of(TASK, weights, x, y)
    trained = {name: array for name, array in weights.items() if not name.startswith("front.")}
    return float((learner.logits(trained).argmax(1) == y).mean())


def bytes_of(relay: Relay, ended: list[float]) -> tuple[float, float]:
    """Up and down per round, the first ones left out."""
    up, down = relay.between(ended[WARM_UP], ended[-1])
    rounds = len(ended) - 1 - WARM_UP
    return up / rounds, down / rounds


@dataclass
class Seen:
    """mib: what a server's processes held in memory together, at most; worked: moments of the monotonic clock, and the
    processor time until then of whatever this process started."""

    mib: float = 0.0
    worked: list[tuple[float, float]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def worked_s(self, ended: list[float]) -> float:
        """Per round, the first ones left out."""
        moments, worked = zip(*self.worked, strict=True)
        first, last = np.interp([ended[WARM_UP], ended[-1]], moments, worked)
        return float(last - first) / (len(ended) - 1 - WARM_UP)


@contextmanager
def watched(server: Callable[[], list[int]]) -> Iterator[Seen]:
    """Look at these processes every second while the block runs."""
    seen = Seen()

    def look() -> None:
        while not seen.over.wait(LOOK_S):
            seen.mib = max(seen.mib, sum(map(memory_mib, server())))
            seen.worked.append((time.monotonic(), sum(map(worked_s, below(os.getpid())))))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        seen.over.set()
        thread.join(10)


def until(reached: Callable[[], bool], *, limit_s: float, what: str) -> None:
    """Look again and again. Raises TimeoutError."""
    end = time.monotonic() + limit_s
    while not reached():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} took longer than {limit_s:.0f} s")
        time.sleep(0.5)
