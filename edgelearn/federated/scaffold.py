"""SCAFFOLD: control variates take out what pulls boards apart (Karimireddy et al., "SCAFFOLD: stochastic controlled
averaging for federated learning", ICML 2020, algorithm 1, option II)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from edgelearn.federated.algorithm import Algorithm, Learner, LocalSettings, Order, Server, Update
from edgelearn.federated.arrays import Arrays, WeightedMean, copied, minus, plus, zeros_like
from edgelearn.federated.local import local_sgd


@dataclass(frozen=True)
class Scaffold(Algorithm):
    """On the board: y ← y − η_l·(g(y) − c_i + c); c_i⁺ = c_i − c + (x − y) / (K·η_l), K the number of local steps.
    On the server: x ← x + η_g·mean(Δy); c ← c + |S|/N·mean(Δc). Every board counts the same; traffic is doubled.

    boards: N, how many there are (not how many take part). A board's memory is its c_i.

    >>> from edgelearn.federated.example import Pull
    >>> algorithm, rng = Scaffold(boards=2), np.random.default_rng(0)
    >>> server = algorithm.start({"w": np.float32([0])})
    >>> order = algorithm.order(server, LocalSettings(epochs=1, batch_size=0, learning_rate=0.5))
    >>> update, memory = algorithm.client_step(order, Pull([4]), board="one", memory={}, rng=rng)
    >>> update.delta["w"], memory["w"]  # (x − y) / (1 · ½) = (0 − 2) / ½
    (array([2.], dtype=float32), array([-4.], dtype=float32))
    >>> server = algorithm.server_update(server, [update])
    >>> server.weights["w"], server.state["w"]  # c moves by one board of two
    (array([2.], dtype=float32), array([-2.], dtype=float32))
    """

    remembers = True

    boards: int
    server_rate: float = 1.0

    def start(self, weights: Mapping[str, np.ndarray]) -> Server:
        return Server(0, copied(weights), zeros_like(weights))  # c = 0

    def order(self, server: Server, settings: LocalSettings, rows: Arrays | None = None) -> Order:
        return Order(server.round, server.weights, settings, extra=server.state)

    def client_step(
        self, order: Order, learner: Learner, *, board: str, memory: Arrays, rng: np.random.Generator
    ) -> tuple[Update, Arrays]:
        own = memory or zeros_like(order.weights)  # c_i
        drift = minus(order.extra, own)  # c − c_i

        def controlled(gradient: Arrays, weights: Arrays) -> None:
            for name, slope in gradient.items():
                slope += drift[name]

        local, steps = local_sgd(learner, order.weights, order.settings, rng, controlled)
        delta = minus(local, order.weights)
        scale = np.float32(steps * order.settings.learning_rate)  # K·η_l
        change = {name: -order.extra[name] - delta[name] / scale for name in delta}  # c_i⁺ − c_i
        return Update(board, order.round, learner.num_samples, steps, delta, extra=change), plus(own, change)

    def server_update(self, server: Server, updates: Iterable[Update]) -> Server:
        deltas, changes = WeightedMean(), WeightedMean()
        for update in updates:
            deltas.add(update.delta, 1)
            changes.add(update.extra, 1)
        weights = plus(server.weights, deltas.value(), times=self.server_rate)
        control = plus(server.state, changes.value(), times=changes.count / self.boards)
        return Server(server.round + 1, weights, control)
