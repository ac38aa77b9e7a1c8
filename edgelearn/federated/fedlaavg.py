"""FedLaAvg: every board's latest gradient counts, whether it is online or not (Yan et al., "Distributed non-convex
optimization with sublinear speedup under intermittent client availability", 2020, arXiv 2002.07399, algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from edgelearn.federated.algorithm import Algorithm, Learner, Order, Server, Update
from edgelearn.federated.arrays import Arrays, copied, minus, plus, scaled, zeros_like
from edgelearn.federated.local import local_sgd


@dataclass(frozen=True)
class FedLaAvg(Algorithm):
    """A board uploads g_i(new) − g_i(old), where g_i = (x_start − x_end) / η is the sum of its local gradients.
    Server: G ← G + Σ (g_i(new) − g_i(old)) / N; x ← x − η·G. Boards that were absent longest are to be invited first
    (`cohort.longest_absent`).

    boards: N, how many there are. The update's delta has the sign of all deltas, local − global: it holds
    −η·(g_i(new) − g_i(old)); the state is −η·G, so the server adds. A board's memory is −η·g_i: it has to count exactly
    once, so it must be kept if and only if the server has the update.

    >>> from edgelearn.federated.algorithm import LocalSettings
    >>> from edgelearn.federated.example import Pull
    >>> algorithm, rng = FedLaAvg(boards=2), np.random.default_rng(0)
    >>> server = algorithm.start({"w": np.float32([0])})
    >>> settings = LocalSettings(epochs=1, batch_size=0, learning_rate=0.5)
    >>> one, memory = algorithm.client_step(algorithm.order(server, settings), Pull([4]), board="1", memory={}, rng=rng)
    >>> server = algorithm.server_update(server, [one])
    >>> server.weights["w"]  # 0 + 2/2
    array([1.], dtype=float32)
    >>> two, _ = algorithm.client_step(algorithm.order(server, settings), Pull([1]), board="2", memory={}, rng=rng)
    >>> algorithm.server_update(server, [two]).weights["w"]  # board 1 is away, its step of 2/2 counts again
    array([2.], dtype=float32)
    """

    invites = "absent"
    remembers = True

    boards: int

    def start(self, weights: Mapping[str, np.ndarray]) -> Server:
        return Server(0, copied(weights), zeros_like(weights))

    def client_step(
        self, order: Order, learner: Learner, *, board: str, memory: Arrays, rng: np.random.Generator
    ) -> tuple[Update, Arrays]:
        local, steps = local_sgd(learner, order.weights, order.settings, rng)
        latest = minus(local, order.weights)
        change = minus(latest, memory or zeros_like(latest))
        return Update(board, order.round, learner.num_samples, steps, change), latest

    def server_update(self, server: Server, updates: Iterable[Update]) -> Server:
        """A round without updates is a round, too: what is known of everybody still counts."""
        total = server.state
        for update in updates:
            total = plus(total, scaled(update.delta, 1 / self.boards))
        return Server(server.round + 1, plus(server.weights, total), total)
