"""Rounds against a simulated clock: boards differ in speed and network, and what is adaptive must pay in time.

The clock is arithmetic: a turn takes its steps over the board's speed and its bytes over the board's network, with
some luck. Nothing is kept on disk; a run is short.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from cloud_aug.simulation.plan import Plan, algorithm_of, codec_of, cohort_size
from edgelearn.crowd import Crowd
from edgelearn.federated.adaptive import SLACK, Pace, buffer_now, buffering_gain, deadline_s, expected, local_steps
from edgelearn.federated.algorithm import Algorithm, Order, Update
from edgelearn.federated.cohort import at_random
from edgelearn.federated.fedavg import FedAvg
from edgelearn.federated.fedbuff import FedBuff
from edgelearn.federated.local import steps_of
from edgelearn.federated.turn import Memory, close, play, receive
from edgelearn.federated.updates import Limits
from edgewire import tensors
from edgewire.errors import UsageError


@dataclass(frozen=True)
class Clock:
    """What boards take. steps_per_s, bytes_per_s: of the median board; spread: standard deviation of the logarithm of
    both between boards; luck: the same from turn to turn."""

    steps_per_s: float = 20.0
    bytes_per_s: float = 250_000.0
    spread: float = 1.0
    luck: float = 0.2

    def paces(self, boards: list[str], seed: int) -> dict[str, Pace]:
        drawn = np.exp(np.random.default_rng((seed, 8)).normal(0, self.spread, (len(boards), 2))).tolist()
        return {b: Pace(self.steps_per_s * s, self.bytes_per_s * n) for b, (s, n) in zip(boards, drawn, strict=True)}


@dataclass(frozen=True)
class Adaptive:
    """Which of the rules of `federated.adaptive` are followed; none: every round waits for everybody. buffered: never
    waits (FedBuff), whatever the others say."""

    deadline: bool = False
    steps: bool = False
    switch: bool = False
    buffered: bool = False


@dataclass(frozen=True)
class Moment:
    """The server after a round. seconds: on the simulated clock; counted, late: updates; buffered: nobody was waited
    for."""

    seconds: float
    score: float
    counted: int
    late: int
    buffered: bool


@dataclass(order=True)
class _Turn:
    """One turn under way, in the order of its end."""

    end_s: float
    number: int
    board: str = field(compare=False)
    order: Order = field(compare=False)
    seen: Pace = field(compare=False)


class Paced:
    """Of the plan, algorithm, share, settings, compression and seed count. Where nobody is waited for, FedBuff's rule
    counts the updates, whatever the algorithm.

    Raises UsageError for an algorithm that cannot be played so."""

    def __init__(self, crowd: Crowd, plan: Plan, clock: Clock, adaptive: Adaptive) -> None:
        self.crowd, self.plan, self._clock, self._adaptive = crowd, plan, clock, adaptive
        self._algorithm, self._codec = algorithm_of(plan, crowd), codec_of(plan)
        if self._algorithm.submodels or not isinstance(self._algorithm, FedAvg):
            raise UsageError(f"'{plan.algorithm}' is not played against the clock", hint="take --algorithm fedavg")
        self._server = self._algorithm.start(crowd.weights())
        self._known: dict[str, Pace]
        self._paces, self._known = clock.paces(crowd.boards, plan.seed), {}
        self._memories: dict[str, Memory] = {}
        self._moved_bytes = 2 * len(tensors.pack(self._server.weights))
        self._rng, self._turns = np.random.default_rng((plan.seed, 9)), 0
        self._now_s, self._buffered = 0.0, adaptive.buffered
        self._busy: list[_Turn] = []

    def moments(self) -> Iterator[Moment]:
        """Round after round, without end."""
        while True:
            self._buffered = self._prefers_buffered()
            yield self._buffer() if self._buffered else self._round()

    def _round(self) -> Moment:
        """Everybody starts at once; who is not done in time is late."""
        self._busy = []  # whoever is still at it from a buffered time is not waited for
        cohort = at_random(self.crowd.boards, self._size, seed=self.plan.seed, round_number=self._server.round)
        limit_s = self._limit_s(cohort)
        turns = sorted(self._turn(board, limit_s) for board in cohort)
        done = [turn for turn in turns if turn.end_s <= self._now_s + limit_s]
        self._count(self._algorithm, done)
        for turn in turns:
            self._learn(turn)  # of late ones too: they do arrive, and tell how long they took
        late = len(turns) - len(done)
        self._now_s = self._now_s + limit_s if late else max(turn.end_s for turn in turns)
        return self._moment(len(done), late)

    def _buffer(self) -> Moment:
        """As many boards as a cohort has are always under way; the server steps after half as many updates."""
        while len(self._busy) < self._size:
            self._start_another()
        arrived: list[_Turn] = []
        while len(arrived) < max(1, self._size // 2):
            arrived.append(heapq.heappop(self._busy))
            self._now_s = arrived[-1].end_s
            self._learn(arrived[-1])
            self._start_another()
        self._count(FedBuff(), arrived)
        return self._moment(len(arrived), 0)

    def _start_another(self) -> None:
        busy = {turn.board for turn in self._busy}
        free = [board for board in self.crowd.boards if board not in busy]
        board = free[int(self._rng.integers(len(free)))]
        heapq.heappush(self._busy, self._turn(board, self._limit_s([board])))

    @property
    def _size(self) -> int:
        return cohort_size(self.plan, self.crowd)

    def _turn(self, board: str, limit_s: float) -> _Turn:
        settings = self.plan.settings
        steps = wanted = self._wanted(board)
        if self._adaptive.steps and math.isfinite(limit_s):
            pace, within_s = expected(board, self._known), limit_s / SLACK
            steps = local_steps(pace, wanted=wanted, moved_bytes=self._moved_bytes, within_s=within_s)
        luck = np.exp(self._rng.normal(0, self._clock.luck, 2)).tolist()
        seen = Pace(self._paces[board].steps_per_s * luck[0], self._paces[board].bytes_per_s * luck[1])
        order = self._algorithm.order(self._server, replace(settings, max_steps=steps))
        self._turns += 1
        end_s = self._now_s + seen.seconds(steps=steps, moved_bytes=self._moved_bytes)
        return _Turn(end_s, self._turns, board, order, seen)

    def _limit_s(self, cohort: list[str]) -> float:
        """How long to wait for them: for ever, until everybody's pace can be guessed."""
        if not (self._adaptive.deadline and self._known):
            return math.inf
        return deadline_s([self._full_s(board) for board in self.crowd.boards])

    def _full_s(self, board: str) -> float:
        """What a board should take for all that is wanted of it."""
        return expected(board, self._known).seconds(steps=self._wanted(board), moved_bytes=self._moved_bytes)

    def _wanted(self, board: str) -> int:
        return steps_of(self.crowd.samples(board), self.plan.settings)

    def _prefers_buffered(self) -> bool:
        if not (self._adaptive.switch and self._known):
            return self._adaptive.buffered
        expected_s = [self._full_s(board) for board in self.crowd.boards]
        limit_s = deadline_s(expected_s) if self._adaptive.deadline else math.inf
        return buffer_now(buffering_gain(expected_s, within_s=limit_s), buffered=self._buffered)

    def _count(self, algorithm: Algorithm, turns: list[_Turn]) -> None:
        self._server, _ = close(algorithm, self._server, (self._played(turn) for turn in turns))

    def _learn(self, turn: _Turn) -> None:
        before = self._known.get(turn.board)
        self._known[turn.board] = before.learned(turn.seen) if before else turn.seen

    def _played(self, turn: _Turn) -> Update:
        rng = np.random.default_rng((self.plan.seed, turn.number, 10))
        sent, self._memories[turn.board] = play(
            self._algorithm,
            self._codec,
            turn.order,
            self.crowd.learner(turn.board),
            board=turn.board,
            memory=self._memories.get(turn.board, Memory()),
            rng=rng,
        )
        return receive(sent, turn.order, self._codec, Limits())

    def _moment(self, counted: int, late: int) -> Moment:
        score = self.crowd.score(self.crowd.logits(self._server.weights))
        return Moment(self._now_s, score, counted, late, self._buffered)
