"""One turn of a board and one closing of a round, as a service and a simulation both play them: train, change what is
sent, compress; decompress, check, count. Whoever calls moves bytes and keeps memories.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from edgelearn.compression.codec import Codec
from edgelearn.federated.algorithm import Algorithm, Learner, Order, Server, Update
from edgelearn.federated.arrays import Arrays, EmptyRound
from edgelearn.federated.updates import Limits, UpdateRefused, check_update


@dataclass(frozen=True)
class Memory:
    """What a board keeps between its turns. own: of the algorithm; codec: of the compression."""

    own: Arrays = field(default_factory=dict)
    codec: Arrays = field(default_factory=dict)


def play(
    algorithm: Algorithm,
    codec: Codec,
    order: Order,
    learner: Learner,
    *,
    board: str,
    memory: Memory,
    rng: np.random.Generator,
    change: Callable[[Update], Update] = lambda update: update,
) -> tuple[Update, Memory]:
    """On the board. change: what is done to the update before it is compressed (noise). Returns the update, its delta
    as the codec made it, and what replaces `memory` once the server counts it.

    >>> from edgelearn.compression.codec import Plain
    >>> from edgelearn.federated.algorithm import LocalSettings
    >>> from edgelearn.federated.example import Pull
    >>> from edgelearn.federated.fedavg import FedAvg
    >>> algorithm, server = FedAvg(), FedAvg().start({"w": np.float32([0])})
    >>> order = algorithm.order(server, LocalSettings(epochs=1, batch_size=0, learning_rate=0.5))
    >>> rng = np.random.default_rng(0)
    >>> sent, _ = play(algorithm, Plain(), order, Pull([4]), board="one", memory=Memory(), rng=rng)
    >>> close(algorithm, server, [receive(sent, order, Plain(), Limits())])[0].weights["w"]
    array([2.], dtype=float32)
    """
    update, own = algorithm.client_step(order, learner, board=board, memory=memory.own, rng=rng)
    update = change(update)
    sent, left = codec.encode(update.delta, memory=memory.codec, rng=rng)
    return replace(update, delta=sent), Memory(own, left)


def receive(update: Update, order: Order, codec: Codec, limits: Limits) -> Update:
    """On the server: what `play` made, with its delta as arrays of the model. Raises UpdateRefused."""
    try:
        update = replace(update, delta=codec.decode(update.delta, order.weights))
    except ValueError as error:
        raise UpdateRefused(str(error)) from None
    check_update(update, order, limits)
    return update


def close(algorithm: Algorithm, server: Server, updates: Iterable[Update]) -> tuple[Server, str]:
    """The server after a round; where nothing counts its weights stay, and the text says why ('' otherwise)."""
    try:
        return algorithm.server_update(server, updates), ""
    except EmptyRound as empty:
        return replace(server, round=server.round + 1), str(empty)
