"""What each board is worth to a round: the exact effect of leaving it out, without training anything again.

It is the second term of Fed-Influence (Xue et al., "Toward understanding the influence of individual clients in
federated learning", AAAI 2021): with p_c the weight of board c, the model without it is w_t + p_c / (1 − p_c) · (w_t −
w_{c,t})."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgelearn.federated.algorithm import Server, Update
from edgelearn.federated.arrays import Arrays, EmptyRound, plus, weighted_mean
from edgelearn.federated.fedavg import FedAvg

LEAST = 2  # boards that can be compared
Value = Callable[
    [Mapping[str, np.ndarray]], float
]  # how good weights are, on samples that no board has; more is better
Judged = Callable[[Mapping[str, float]], None]  # is told by board what it was worth


def without(mean: Arrays, delta: Arrays, share: float) -> Arrays:
    """The mean update of all others. share: the weight of the one left out among all, 0 <= share < 1.

    >>> without({"w": np.float32([3])}, {"w": np.float32([9])}, 0.25)  # of 1, 1, 1 and 9
    {'w': array([1.], dtype=float32)}
    """
    factor = share / (1 - share)
    return {name: (array + factor * (array - delta[name])).astype(np.float32) for name, array in mean.items()}


def contributions(server: Server, updates: Sequence[Update], value: Value, *, rate: float = 1.0) -> dict[str, float]:
    """By board: value of this round's model less value of the model that the others would have made.

    updates: at least two, of different boards; read twice; rate: η_g. One evaluation per board, one model in memory.
    """
    if len(updates) < LEAST:
        raise EmptyRound("there is nobody to compare a board with")
    total = sum(update.num_samples for update in updates)
    mean = weighted_mean((update.delta, update.num_samples) for update in updates)
    with_all = value(plus(server.weights, mean, times=rate))
    others = ((update.board, without(mean, update.delta, update.num_samples / total)) for update in updates)
    return {board: with_all - value(plus(server.weights, delta, times=rate)) for board, delta in others}


def nobody_asks(worth: Mapping[str, float]) -> None:
    """What boards are worth is told nobody. A function with a name goes to other processes."""


@dataclass(frozen=True, kw_only=True)
class FedLeaveOneOut(FedAvg):
    """FedAvg over the boards without whom the round would not be better by more than `margin`. judged: is told what
    each of them is worth.

    Boards are judged one at a time: two that sabotage alike cover for each other in part, so it is no defence against
    many.

    >>> algorithm = FedLeaveOneOut(value=lambda weights: -abs(float(weights["w"][0]) - 1))  # best is 1
    >>> cohort = [Update(str(w), 0, 1, 1, {"w": np.float32([w])}) for w in (1, 2, -9)]
    >>> algorithm.server_update(algorithm.start({"w": np.float32([0])}), cohort).weights["w"]
    array([1.5], dtype=float32)
    """

    at_once = True

    value: Value
    margin: float = 0.0
    judged: Judged = nobody_asks

    def suffices(self, updates: int) -> bool:
        return updates >= LEAST

    def server_update(self, server: Server, updates: Iterable[Update]) -> Server:
        cohort = list(updates)
        worth = contributions(server, cohort, self.value, rate=self.server_rate)
        self.judged(worth)
        kept = [update for update in cohort if worth[update.board] >= -self.margin]
        if not kept:
            raise EmptyRound(f"none of {len(cohort)} updates is worth counting, with a margin of {self.margin:g}")
        return super().server_update(server, kept)
