"""What one board does with an order: it trains, changes what it sends, packs; the server unpacks and checks.

All of it follows from the order, the board's memory and its own random numbers, so boards may be played anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from cloud_aug.simulation.plan import Plan, attack_of, codec_of
from edgelearn.crowd import Crowd
from edgelearn.federated.algorithm import Algorithm, Order, Update
from edgelearn.federated.turn import Memory, play, receive
from edgelearn.federated.updates import Limits, UpdateRefused
from edgelearn.privacy.noise import randomized
from edgewire import tensors
from edgewire.errors import UsageError
from edgewire.tensors import Arrays, of, under


@dataclass(frozen=True)
class Asked:
    """A board's turn. memory: what it kept from its last one, {} at first; rng: its own, for this turn."""

    board: str
    order: Order
    memory: Arrays
    rng: np.random.Generator


@dataclass(frozen=True)
class Answer:
    """What came of it. update: None if the server refuses it; memory: what the board keeps if its update counts; bytes:
    as packed for the way."""

    update: Update | None
    bytes: int
    memory: Arrays = field(default_factory=dict)


class Boards:
    """All boards of a simulation, and how they behave."""

    def __init__(self, crowd: Crowd, plan: Plan, algorithm: Algorithm) -> None:
        self.crowd, self._plan, self._algorithm = crowd, plan, algorithm
        self._codec, self._attack = codec_of(plan), attack_of(plan)
        self._attackers = _drawn(crowd.boards, plan.attackers, plan.seed)

    def turn(self, asked: Asked) -> Answer:
        """Raises UsageError where noise would be of no use."""
        order = asked.order
        sent, memory = play(
            self._algorithm,
            self._codec,
            order,
            self.crowd.learner(asked.board, order.rows),
            board=asked.board,
            memory=Memory(of("own", asked.memory), of("codec", asked.memory)),
            rng=asked.rng,
            change=lambda update: self._disguised(update, asked.rng),
        )
        meta = {"board": asked.board, "round": sent.round, "samples": sent.num_samples, "steps": sent.steps}
        rows = {name: ids.astype(np.uint32) for name, ids in order.rows.items()}
        size = len(tensors.pack(under("delta", sent.delta) | under("extra", sent.extra) | under("rows", rows), meta))
        try:
            update = receive(sent, order, self._codec, Limits())
        except UpdateRefused:
            return Answer(None, size)
        return Answer(update, size, under("own", memory.own) | under("codec", memory.codec))

    def _disguised(self, update: Update, rng: np.random.Generator) -> Update:
        """With noise of its own, or made up by an attacker."""
        if self._plan.noise:
            if update.extra:
                hint = "take an algorithm that sends nothing but its update"
                raise UsageError(f"'{self._plan.algorithm}' sends more, which would go without noise", hint=hint)
            if self._algorithm.remembers:
                hint = "take an algorithm that keeps no memory"
                why = "goes on from what boards sent before, as it was without noise and clip"
                raise UsageError(f"'{self._plan.algorithm}' {why}", hint=hint)
            delta = randomized(update.delta, clip=self._plan.clip, noise_multiplier=self._plan.noise, rng=rng)
            update = replace(update, delta=delta)
        return self._attack(update, rng) if self._attack and update.board in self._attackers else update


class Players(Protocol):
    """Who plays the boards, and the test of each round."""

    def turns(self, boards: Boards, asked: Iterable[Asked]) -> Iterator[tuple[str, Answer]]:
        """Who answered what, in the order in which they were asked. Raises what a turn raises."""
        ...

    def logits(self, boards: Boards, weights: Mapping[str, np.ndarray]) -> np.ndarray:
        """On the crowd's test samples (n, classes)."""
        ...


class OneProcess:
    """This process plays one board after the other: one answer is in memory at a time."""

    def turns(self, boards: Boards, asked: Iterable[Asked]) -> Iterator[tuple[str, Answer]]:
        """See Players."""
        for one in asked:
            yield one.board, boards.turn(one)

    def logits(self, boards: Boards, weights: Mapping[str, np.ndarray]) -> np.ndarray:
        """See Players."""
        return boards.crowd.logits(weights)


def _drawn(boards: list[str], share: float, seed: int) -> set[str]:
    order = np.random.default_rng((seed, 3)).permutation(len(boards))
    return {boards[number] for number in order[: round(share * len(boards))]}
