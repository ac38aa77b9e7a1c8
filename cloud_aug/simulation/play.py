"""Round after round: invite, train on each board, pack, unpack, check, count. The same seed gives the same bytes.

One update is in memory at a time, unless the algorithm wants to see all of a round together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cloud_aug.simulation.plan import Plan, Round, algorithm_of, attack_of, codec_of
from cloud_aug.simulation.state import Folder, State
from edgelearn.crowd import Crowd
from edgelearn.federated.algorithm import Order, Server, Update
from edgelearn.federated.cohort import at_random, by_coin, longest_absent
from edgelearn.federated.ensemble import Ensemble, mean_opinion
from edgelearn.federated.turn import Memory, close, play, receive
from edgelearn.federated.updates import Limits, UpdateRefused
from edgelearn.privacy.accountant import gaussian_epsilon, sampled_epsilon
from edgelearn.privacy.noise import randomized
from edgewire import tensors
from edgewire.errors import UsageError
from edgewire.tensors import Arrays, of, under

DELTA = 1e-5  # of every ε that is told


class Simulation:
    """folder: where its state lies; one that was cut off goes on after its last round. world: a text that names data,
    model and split, so that nothing goes on in another world.

    Raises UsageError for a plan that cannot be, Conflict where the folder holds another simulation."""

    def __init__(self, crowd: Crowd, plan: Plan, folder: Path, *, world: str) -> None:
        self.crowd, self.plan = crowd, plan
        self.algorithm, self._codec, self._attack = algorithm_of(plan, crowd), codec_of(plan), attack_of(plan)
        name = hashlib.sha256(repr((replace(plan, rounds=0), world)).encode()).hexdigest()
        self._folder = Folder(folder, name)
        self._state = self._folder.restored() or State(self.algorithm.start(crowd.weights()))
        self._place = {board: number for number, board in enumerate(crowd.boards)}
        self._attackers = _drawn(crowd.boards, plan.attackers, plan.seed)
        labels = {board: crowd.mean_label(board) for board in crowd.boards}
        middle = float(np.median(list(labels.values())))
        self._low = {board for board, label in labels.items() if label < middle}

    @property
    def history(self) -> list[Round]:
        return list(self._state.history)

    @property
    def server(self) -> Server:
        return self._state.server

    def run(self, on_round: Callable[[Round], None] = lambda _: None) -> list[Round]:
        """Play what is left of plan.rounds. Returns all rounds so far."""
        while self.server.round < self.plan.rounds:
            on_round(self.next_round())
        return self.history

    def next_round(self) -> Round:
        state, invited = self._state, self._invited()
        tally = _Tally(len(invited))
        server, _ = close(self.algorithm, state.server, self._answers(invited, tally))
        done = Round(number=state.server.round, score=self._score(server), **vars(tally))
        recent = [*state.recent, state.server.weights][-self.plan.late :] if self.plan.late else []
        self._state = replace(state, server=server, history=[*state.history, done], recent=recent)
        self._folder.keep(self._state)
        return done

    def epsilon(self) -> float | None:
        """What the rounds so far cost, at δ = DELTA: that a board took part, by the server's noise; or what the busiest
        board sent, by its own. None without noise."""
        multiplier = float(getattr(self.algorithm, "noise_multiplier", 0.0))
        if multiplier and self.algorithm.invites == "coin":
            return sampled_epsilon(multiplier, self.plan.share, self.server.round, DELTA)
        if self.plan.noise:
            return gaussian_epsilon(self.plan.noise, max(self._state.sent.values(), default=0), DELTA)
        return None

    def _invited(self) -> list[str]:
        number, plan = self.server.round, self.plan
        day = plan.turn_rounds and number // plan.turn_rounds % 2 == 0
        online = [b for b in self.crowd.boards if not plan.turn_rounds or (b in self._low) == day]
        size = max(1, round(plan.share * len(self.crowd.boards)))
        if self.algorithm.invites == "coin":
            return by_coin(online, plan.share, seed=plan.seed, round_number=number)
        if self.algorithm.invites == "absent":
            return longest_absent(online, size, self._state.last_round)
        return at_random(online, size, seed=plan.seed, round_number=number)

    def _answers(self, invited: list[str], tally: _Tally) -> Iterator[Update]:
        """What the server has to count, one after the other."""
        for board in invited:
            rng = np.random.default_rng((self.plan.seed, self.server.round, 4, self._place[board]))
            order = self._order(rng)
            tally.bytes_down += _packed(under("weights", order.weights) | under("extra", order.extra))
            if rng.random() < self.plan.drop:
                continue
            update, memory = self._arrived(board, order, rng, tally)
            if update is None:
                tally.refused += 1
            elif update.round != self.server.round and not self.algorithm.takes_late:
                tally.late += 1
            else:
                tally.answered += 1
                self._remember(board, memory)
                yield update

    def _order(self, rng: np.random.Generator) -> Order:
        """What a board got: this round's weights, or those of the round in which it began."""
        server, late = self.server, int(rng.integers(0, self.plan.late + 1))
        if 0 < late <= len(self._state.recent):
            server = replace(server, round=server.round - late, weights=self._state.recent[-late])
        return self.algorithm.order(server, self.plan.settings)

    def _arrived(
        self, board: str, order: Order, rng: np.random.Generator, tally: _Tally
    ) -> tuple[Update | None, Arrays]:
        """A board's update after its way to the server, None if it is refused; and what the board keeps."""
        kept = self._folder.memory(board, at) if (at := self._state.memories.get(board)) is not None else {}
        sent, memory = play(
            self.algorithm,
            self._codec,
            order,
            self.crowd.learner(board),
            board=board,
            memory=Memory(of("own", kept), of("codec", kept)),
            rng=rng,
            change=lambda update: self._disguised(update, rng),
        )
        meta = {"board": board, "round": sent.round, "samples": sent.num_samples, "steps": sent.steps}
        tally.bytes_up += _packed(under("delta", sent.delta) | under("extra", sent.extra), meta)
        self._state.sent[board] = self._state.sent.get(board, 0) + 1
        try:
            update = receive(sent, order, self._codec, Limits())
        except UpdateRefused:
            return None, {}
        return update, under("own", memory.own) | under("codec", memory.codec)

    def _disguised(self, update: Update, rng: np.random.Generator) -> Update:
        """With noise of its own, or made up by an attacker."""
        if self.plan.noise:
            if update.extra:
                hint = "take an algorithm that sends nothing but its update"
                raise UsageError(f"'{self.plan.algorithm}' sends more, which would go without noise", hint=hint)
            delta = randomized(update.delta, clip=self.plan.clip, noise_multiplier=self.plan.noise, rng=rng)
            update = replace(update, delta=delta)
        return self._attack(update, rng) if self._attack and update.board in self._attackers else update

    def _remember(self, board: str, memory: Arrays) -> None:
        self._state.last_round[board] = self.server.round
        if memory:
            self._folder.remember(board, self.server.round, memory)
            self._state.memories[board] = self.server.round

    def _score(self, server: Server) -> float:
        if isinstance(self.algorithm, Ensemble) and server.state:
            return self.crowd.score(np.log(np.maximum(mean_opinion(server, self.crowd.logits), 1e-300)))
        return self.crowd.score(self.crowd.logits(server.weights))


@dataclass
class _Tally:
    """What is counted while a round goes on; see `Round`."""

    invited: int
    answered: int = 0
    late: int = 0
    refused: int = 0
    bytes_down: int = 0
    bytes_up: int = 0


def _drawn(boards: list[str], share: float, seed: int) -> set[str]:
    order = np.random.default_rng((seed, 3)).permutation(len(boards))
    return {boards[number] for number in order[: round(share * len(boards))]}


def _packed(arrays: Arrays, meta: object = None) -> int:
    """Bytes on the way, without what TLS and HTTP add."""
    return len(tensors.pack(arrays, meta))
