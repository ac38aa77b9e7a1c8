"""What an algorithm is: what a board does with an order, and what the server does with the updates that come back.

Whoever calls (a service, a simulation, a test) moves orders and updates, keeps memories and states, and chooses who
takes part. An algorithm sees arrays only, so the same class runs on a board and in a simulation of hundreds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

import numpy as np

from edgelearn.federated.arrays import Arrays, copied


class Learner(Protocol):
    """A model and a board's own samples."""

    @property
    def num_samples(self) -> int: ...

    def gradient(self, weights: Mapping[str, np.ndarray], rows: np.ndarray) -> Arrays:
        """Of the mean loss over these samples (their numbers, int64), by name, float32; the caller may change it."""
        ...


@dataclass(frozen=True)
class LocalSettings:
    """How a board trains. epochs: passes over its samples; batch_size: samples of one step, 0 for all of them;
    max_steps: after which it stops early, 0 for no limit."""

    epochs: int = 5
    batch_size: int = 10
    learning_rate: float = 0.04
    max_steps: int = 0


@dataclass(frozen=True)
class Order:
    """What a board is sent. weights: where to start; extra: what the algorithm adds (SCAFFOLD: c); rows: of which rows
    of a table `weights` consists, by name, ascending ids (a table that is not named is whole)."""

    round: int
    weights: Arrays
    settings: LocalSettings
    extra: Arrays = field(default_factory=dict)
    rows: Arrays = field(default_factory=dict)


@dataclass(frozen=True)
class Update:
    """What a board sends back. delta = local − global, float32: what it would add to the weights. round: whose weights
    it started from; steps: local steps; extra, rows: as in `Order`."""

    board: str
    round: int
    num_samples: int
    steps: int
    delta: Arrays
    extra: Arrays = field(default_factory=dict)
    rows: Arrays = field(default_factory=dict)


@dataclass(frozen=True)
class Server:
    """All that is kept between two rounds, as named arrays. round: how many are over; state: the algorithm's own."""

    round: int
    weights: Arrays
    state: Arrays = field(default_factory=dict)


class Algorithm(ABC):
    """One class, two steps. `server_update` may be given a generator and should read it once: what is streamed may be
    larger than memory.

    invites: who should take part: any boards, each by its own coin, or those that were absent longest; takes_late:
    whether updates count that started from an earlier round's weights; submodels: whether a board is sent the rows of
    tables that it asks for, and no others; remembers: whether an update follows from what the board kept of its last
    one, so that it would count twice if that was lost; at_once: whether all updates of a round are in memory together.
    """

    invites: ClassVar[Literal["random", "coin", "absent"]] = "random"
    takes_late: ClassVar[bool] = False
    submodels: ClassVar[bool] = False
    remembers: ClassVar[bool] = False
    at_once: ClassVar[bool] = False

    def suffices(self, updates: int) -> bool:
        """Whether so many updates (at least one) are enough for it."""
        return True

    def start(self, weights: Mapping[str, np.ndarray]) -> Server:
        """The server before its first round."""
        return Server(0, copied(weights))

    def order(self, server: Server, settings: LocalSettings, rows: Arrays | None = None) -> Order:
        """What a board is sent. rows: those of tables that its samples touch, for algorithms that send no others."""
        return Order(server.round, server.weights, settings)

    @abstractmethod
    def client_step(
        self, order: Order, learner: Learner, *, board: str, memory: Arrays, rng: np.random.Generator
    ) -> tuple[Update, Arrays]:
        """On the board. memory: what it kept from its last round ({} at first). Returns the update and what to keep,
        which replaces memory only once the server has the update: one that never arrived must leave no trace."""

    @abstractmethod
    def server_update(self, server: Server, updates: Iterable[Update]) -> Server:
        """On the server, when a round closes. Raises EmptyRound where no update counts."""
