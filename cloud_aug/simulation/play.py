"""Round after round: invite, let each board take its turn (`boards.py`), count. The same seed gives the same bytes.

One update is in memory at a time, unless the algorithm wants to see all of a round together, or several processes play.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from cloud_aug.simulation.boards import Asked, Boards, OneProcess, Players
from cloud_aug.simulation.down import opened
from cloud_aug.simulation.plan import Plan, Round, algorithm_of, cohort_size
from cloud_aug.simulation.state import Folder, State
from edgelearn.crowd import Crowd
from edgelearn.federated.algorithm import Order, Server, Update
from edgelearn.federated.cohort import at_random, by_coin, longest_absent
from edgelearn.federated.ensemble import Ensemble, mean_opinion
from edgelearn.federated.mutual import FedMutual, large_of
from edgelearn.federated.turn import close
from edgelearn.privacy.accountant import gaussian_epsilon, sampled_epsilon
from edgewire.tensors import Arrays

DELTA = 1e-5  # of every ε that is told


class Simulation:
    """folder: where its state lies; one that was cut off goes on after its last round. world: a text that names data,
    model and split, so that nothing goes on in another world. players: who plays the boards, this process unless told
    otherwise; the bits are the same.

    Raises UsageError for a plan that cannot be, Conflict where the folder holds another simulation."""

    def __init__(self, crowd: Crowd, plan: Plan, folder: Path, *, world: str, players: Players | None = None) -> None:
        self.crowd, self.plan = crowd, plan
        self.algorithm = algorithm_of(plan, crowd)
        self._boards, self._players = Boards(crowd, plan, self.algorithm), players or OneProcess()
        name = hashlib.sha256(repr((replace(plan, rounds=0), world)).encode()).hexdigest()
        self._folder = Folder(folder, name)
        self._state = self._folder.restored() or State(self.algorithm.start(crowd.weights()))
        self._down = opened(plan, self.algorithm, self._state)
        self._place = {board: number for number, board in enumerate(crowd.boards)}
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
        self._down = opened(self.plan, self.algorithm, state)
        tally, kept = _Tally(len(invited)), dict[str, int]()
        server, nothing_counts = close(self.algorithm, state.server, self._answers(invited, tally, kept))
        done = Round(
            number=state.server.round, score=self._score(server), peer_score=self._peer_score(server), **vars(tally)
        )
        known = self._down.seen(state.server).weights
        recent = [*state.recent, known][-self.plan.late :] if self.plan.late else []
        self._state = replace(
            state,
            server=server,
            history=[*state.history, done],
            recent=recent,
            broadcast=self._down.broadcast,
            memories=state.memories if nothing_counts else state.memories | kept,
        )
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
        size = cohort_size(plan, self.crowd)
        if self.algorithm.invites == "coin":
            return by_coin(online, plan.share, seed=plan.seed, round_number=number)
        if self.algorithm.invites == "absent":
            return longest_absent(online, size, self._state.last_round)
        return at_random(online, size, seed=plan.seed, round_number=number)

    def _answers(self, invited: list[str], tally: _Tally, kept: dict[str, int]) -> Iterator[Update]:
        """What the server has to count, one after the other. kept: filled with the memories beside it; see `State`."""
        for board, answer in self._players.turns(self._boards, self._asked(invited, tally)):
            tally.bytes_up += answer.bytes
            self._state.sent[board] = self._state.sent.get(board, 0) + 1
            if answer.update is None:
                tally.refused += 1
            elif answer.update.round != self.server.round and not self.algorithm.takes_late:
                tally.late += 1
            else:
                tally.answered += 1
                if answer.memory:
                    self._folder.remember(board, self.server.round, answer.memory)
                    kept[board] = self.server.round
                yield answer.update

    def _asked(self, invited: list[str], tally: _Tally) -> Iterator[Asked]:
        """The turns of those who will answer. All of them got the order."""
        for board in invited:
            rng = np.random.default_rng((self.plan.seed, self.server.round, 4, self._place[board]))
            order, size = self._down.brought(self._order(board, rng), self._state.held.get(board))
            tally.bytes_down += size
            self._state.held[board] = self._state.last_round[board] = self.server.round
            if rng.random() >= self.plan.drop:
                yield Asked(board, order, self._memory(board), rng)

    def _memory(self, board: str) -> Arrays:
        at = self._state.memories.get(board)
        return {} if at is None else self._folder.memory(board, at)

    def _order(self, board: str, rng: np.random.Generator) -> Order:
        """What a board got: this round's weights, or those of the round in which it began; of tables, the rows that it
        asked for, where the algorithm has submodels."""
        server, late = self._down.seen(self.server), int(rng.integers(0, self.plan.late + 1))
        if 0 < late <= len(self._state.recent):
            server = replace(server, round=server.round - late, weights=self._state.recent[-late])
        rows = self.crowd.rows(board) if self.algorithm.submodels else None
        return self.algorithm.order(server, self.plan.settings, rows)

    def _score(self, server: Server) -> float:
        logits = partial(self._players.logits, self._boards)
        if isinstance(self.algorithm, Ensemble) and server.state:
            return self.crowd.score(np.log(np.maximum(mean_opinion(server, logits), 1e-300)))
        return self.crowd.score(logits(server.weights))

    def _peer_score(self, server: Server) -> float | None:
        return self.crowd.peer_score(large_of(server)) if isinstance(self.algorithm, FedMutual) else None


@dataclass
class _Tally:
    """What is counted while a round goes on; see `Round`."""

    invited: int
    answered: int = 0
    late: int = 0
    refused: int = 0
    bytes_down: int = 0
    bytes_up: int = 0
