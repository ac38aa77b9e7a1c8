"""Weights on their way to simulated boards: how an order arrives there, and what that takes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cloud_aug.simulation.plan import Plan, known
from cloud_aug.simulation.state import State
from edgelearn.compression.broadcast import Broadcast, started
from edgelearn.compression.catalogue import CODECS, DOWN
from edgelearn.federated.algorithm import Algorithm, Order, Server
from edgelearn.federated.arrays import Arrays
from edgewire import tensors
from edgewire.errors import UsageError
from edgewire.rounds import CHANGES_AT_MOST
from edgewire.tensors import under

_WHOLE, _CHANGE = (CODECS[DOWN[kind]] for kind in ("eight-bit", "changes"))


@dataclass(frozen=True)
class Down:
    """The way down in one round. kind: one of DOWN; broadcast: of a server that sends changes only."""

    kind: str
    seed: int
    broadcast: Broadcast | None = None

    def seen(self, server: Server) -> Server:
        """The server as boards know it."""
        return replace(server, weights=self.broadcast.public) if self.broadcast else server

    def brought(self, order: Order, held: int | None) -> tuple[Order, int]:
        """The order as it arrives, and its bytes. held: the round whose weights the board holds, if any."""
        if self.kind == "eight-bit":
            rng = np.random.default_rng((self.seed, order.round, 7))  # the same for all boards: encoded once
            sent, _ = _WHOLE.encode(order.weights, memory={}, rng=rng)
            return replace(order, weights=_WHOLE.decode(sent, order.weights)), packed(sent, order.extra)
        whole = packed(order.weights, order.extra)
        changes = self.broadcast.since(held) if self.broadcast else None
        if changes is None:
            return order, whole
        return order, min(whole, sum(packed(change, {}) for change in changes) + packed({}, order.extra))


def opened(plan: Plan, algorithm: Algorithm, state: State) -> Down:
    """The way down in the round that begins now. Raises UsageError for one that cannot be."""
    kind = known("way down", {name: name for name in DOWN}, plan.down)
    if kind != "changes":
        return Down(kind, plan.seed)
    if algorithm.submodels:
        hint = "take --down eight-bit"
        raise UsageError(f"'{plan.algorithm}' sends each board other rows, and changes are of whole models", hint=hint)
    before, server = state.broadcast or started(state.server.weights), state.server
    if before.version < server.round:
        rng = np.random.default_rng((plan.seed, server.round, 7))
        before = before.advanced(server.weights, _CHANGE, rng, keep=CHANGES_AT_MOST)
    return Down(kind, plan.seed, before)


def packed(arrays: Arrays, extra: Arrays) -> int:
    """Bytes on the way, without what TLS and HTTP add."""
    return len(tensors.pack(under("weights", arrays) | under("extra", extra)))
