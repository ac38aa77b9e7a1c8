"""Boards of uneven speed and network, and the service's own rounds: how long until a model is good, by what adapts?

The service is the real one (invitations, updates on disk, the referee), called without HTTP; the clock is simulated.
Sixteen boards ask as often as they are told, take their steps over their speed and move their bytes over their
network, and give signs of life. Minutes are the clock's.
"""

from __future__ import annotations

import contextlib
import heapq
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from benchmarks.figures import Figure, noted, run
from cloud_aug import cloud as clouds
from cloud_aug import db, index, pool, pretrain, tasks
from cloud_aug.cloud import Cloud
from cloud_aug.rounds import attendance, receiving, referee
from cloud_aug.rounds import series as all_series
from cloud_aug.rounds.plan import RULES, Plan, Rule, Series
from cloud_aug.rounds.status import SeriesStatus, status
from cloud_aug.simulation.paced import Clock
from edgelearn.compression.catalogue import CODECS
from edgelearn.crowd import Crowd
from edgelearn.device import use_threads
from edgelearn.federated import turn
from edgelearn.federated.adaptive import Pace
from edgelearn.federated.algorithm import LocalSettings, Order
from edgelearn.federated.fedavg import FedAvg
from edgelearn.federated.splits import shards
from edgelearn.models.build import build, set_weights
from edgewire import tensors
from edgewire.decoding import convert, encode
from edgewire.errors import Gone
from edgewire.files import digest
from edgewire.rounds import Invitation, JoinRequest, Local, Parts, Sign, UpdateMeta, pack_update, unpack_order
from edgewire.signing import open_sealed
from edgewire.tasks import InputSchema, ModelSpec, Privacy, Task

BOARDS, SAMPLES, DIMENSIONS, TARGET = 16, 200, 16, 0.80
LONGEST_S = 24 * 3600.0
SPREADS = (0.3, 1.5)  # of the logarithm of speeds: boards of one kind, and all kinds at once
LABELS = tuple("abcdefghij")
TASK = Task(
    "blobs",
    "Ten blobs",
    InputSchema((DIMENSIONS,)),
    LABELS,
    ModelSpec("mlp", width=32, embedding=16),
    privacy=Privacy(min_cohort=2, rounds=True),
)
PLAN = Plan(rounds=1000, cohort=8, quorum=4, local=Local(epochs=3, batch_size=10, learning_rate=0.05))
WAYS: dict[str, tuple[Rule, ...]] = {
    "fixed": (),
    "deadline": ("deadline",),
    "steps": ("steps",),
    "deadline and steps": ("deadline", "steps"),
    "changing over by itself": ("switch",),
    "changing over, asking less": ("switch", "frequency"),
    "all": RULES,
}


def main() -> None:
    use_threads(1)
    run((__doc__ or "").partition("\n\n")[0], measure)


def measure(quick: bool) -> Sequence[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        made = _cloud(Path(folder) / "cloud")
        return [figure for spread in SPREADS[quick:] for figure in _ways(made, spread)]


def _ways(made: Cloud, spread: float) -> list[Figure]:
    figures, fixed_s = list[Figure](), 0.0
    for name, adapt in WAYS.items():
        with made.database.writing() as connection:  # each way begins without knowing anybody
            connection.execute(db.paces.delete())
        fleet = Fleet(made, replace(PLAN, adapt=adapt), spread)
        taken_s, told = fleet.until_good()
        fixed_s = fixed_s or taken_s
        figures.append(_figure(f"spread {spread}, {name}", taken_s, told, fleet, fixed_s))
        print(figures[-1], flush=True)
    return figures


def _figure(name: str, taken_s: float, told: SeriesStatus, fleet: Fleet, fixed_s: float) -> Figure:
    closed = [one for one in told.history if one.state == "closed"]
    counted, buffered = sum(one.answered for one in closed), sum(one.counts_by == "fedbuff" for one in closed)
    late = sum(one.invited for one in told.history) - counted
    anchor = f"{told.closed} rounds ({buffered} buffered, {told.failed} failed), {counted} updates, "
    anchor += f"{late} late or under way; {taken_s / fixed_s:.2f} x fixed; "
    anchor += f"{fleet.asked / (BOARDS * taken_s / 3600):.0f} questions per board and hour"
    missed = "" if fleet.score >= TARGET else f"not reached, {fleet.score:.1%}; "
    return noted(f"{name}: minutes to {TARGET:.0%}", taken_s / 60, "min", anchor=missed + anchor)


@dataclass(order=True)
class _Event:
    """What a board does next. kind: 'ask', 'sign' or 'send'."""

    at: float
    number: int
    board: str = field(compare=False)
    kind: str = field(compare=False)
    invitation: Invitation | None = field(compare=False, default=None)


class Fleet:
    """Boards that play one series."""

    def __init__(self, made: Cloud, plan: Plan, spread: float) -> None:
        self._made, self.asked, self.score = made, 0, 0.0
        self._now = self._began = time.time()
        self._series = all_series.create(made, TASK.id, plan, now=self._now)
        self._crowd = _crowd(made, self._series)
        self._ids = dict(zip(_ids(), self._crowd.boards, strict=True))
        # the median board needs a minute for its 60 steps, and ten seconds for what it moves
        clock = Clock(steps_per_s=1.0, bytes_per_s=1200.0, spread=spread)
        self._paces, self._luck = clock.paces(_ids(), 0), np.random.default_rng(1)
        self._events: list[_Event] = []
        self._count = 0

    def until_good(self) -> tuple[float, SeriesStatus]:
        """Seconds until the model is good, or the time is up."""
        all_series.start(self._made, self._series.id, now=self._now)
        for board in self._ids:
            self._later(self._luck.uniform(0, 10), board, "ask")
        while self.score < TARGET and self._now - self._began < LONGEST_S:
            if self._step():
                self.score = self._judged()
        all_series.stop(self._made, self._series.id, now=self._now)
        return self._now - self._began, status(self._made, self._series.id, now=self._now)

    def _step(self) -> bool:
        """The next thing that happens: a board does something, or a round's time is up. Whether a round moved on."""
        with self._made.database.reading() as connection:
            last = all_series.last_round(connection, self._series.id)
        if last is not None and last.deadline_at <= self._events[0].at:
            self._now = max(self._now, last.deadline_at)
        else:
            event = heapq.heappop(self._events)
            self._now = event.at
            {"ask": self._ask, "sign": self._sign, "send": self._send}[event.kind](event)
        return referee.advance(self._made, self._series.id, clock=lambda: self._now)

    def _later(self, in_s: float, board: str, kind: str, invitation: Invitation | None = None) -> None:
        self._count += 1
        heapq.heappush(self._events, _Event(self._now + in_s, self._count, board, kind, invitation))

    def _ask(self, event: _Event) -> None:
        self.asked += 1
        body = encode(JoinRequest(self._crowd.samples(self._ids[event.board])))
        reply = attendance.join(self._made, event.board, TASK.id, body, now=self._now)
        if not reply.invitation:
            self._later(reply.wait_s, event.board, "ask")
            return
        keys = self._made.trust().signing_keys
        statement = open_sealed(reply.invitation.encode(), keys, type="round", task=TASK.id, now=self._now)
        invitation = convert(Invitation, statement.body, what="invitation")
        taken_s = self._turn_s(invitation)[0]
        signs = math.floor(taken_s / invitation.heartbeat_s)
        for number in range(1, signs + 1):
            self._later(number * invitation.heartbeat_s, event.board, "sign", invitation)
        self._later(taken_s, event.board, "send", invitation)

    def _turn_s(self, invitation: Invitation) -> tuple[float, float]:
        """How long this turn takes, and its training: the same whenever it is asked."""
        pace, steps = self._paces[invitation.board], self._steps(invitation)
        luck = np.exp(np.random.default_rng(invitation.seed).normal(0, 0.2, 2)).tolist()
        seen = Pace(pace.steps_per_s * luck[0], pace.bytes_per_s * luck[1])
        return seen.seconds(steps=steps, moved_bytes=2 * invitation.order.size), steps / seen.steps_per_s

    def _steps(self, invitation: Invitation) -> int:
        samples = self._crowd.samples(self._ids[invitation.board])
        wanted = PLAN.local.epochs * math.ceil(samples / PLAN.local.batch_size)
        return min(wanted, invitation.max_steps) if isinstance(invitation.max_steps, int) else wanted

    def _sign(self, event: _Event) -> None:
        invitation = event.invitation
        assert invitation is not None
        body = encode(Sign())
        args = (self._made, event.board, TASK.id, invitation.series, invitation.number, body)
        if not attendance.sign(*args, now=self._now).wanted:  # it stops its training
            self._events = [one for one in self._events if one.board != event.board]
            heapq.heapify(self._events)
            self._later(0, event.board, "ask")

    def _send(self, event: _Event) -> None:
        invitation = event.invitation
        assert invitation is not None
        upload_id = digest(f"{invitation.series} {invitation.number} {event.board}".encode())[:32]
        body = self._update(invitation, upload_id)
        args = (self._made, event.board, TASK.id, invitation.series, invitation.number, upload_id, body)
        with contextlib.suppress(Gone):  # too late: it asks again, like anybody
            receiving.receive(*args, now=self._now)
        self._later(0, event.board, "ask")

    def _update(self, invitation: Invitation, upload_id: str) -> bytes:
        raw = self._made.blobs.read(invitation.order.digest)
        order, local = unpack_order(raw, limit_bytes=1 << 24), invitation.local
        settings = LocalSettings(local.epochs, local.batch_size, local.learning_rate, self._steps(invitation))
        update, _ = turn.play(
            FedAvg(),
            CODECS["none"],
            Order(invitation.number - 1, order.main, settings),
            self._crowd.learner(self._ids[invitation.board]),
            board=invitation.board,
            memory=turn.Memory(),
            rng=np.random.default_rng(invitation.seed),
        )
        meta = UpdateMeta(
            invitation.series, invitation.number, invitation.board, upload_id, update.num_samples, update.steps
        )
        return pack_update(Parts(update.delta), replace(meta, train_s=self._turn_s(invitation)[1]))

    def _judged(self) -> float:
        with self._made.database.reading() as connection:
            blob = all_series.last_server(connection, self._series)
        weights = all_series.load_server(self._made, blob, 0).weights
        return self._crowd.score(self._crowd.logits(weights))


def _ids() -> list[str]:
    return [f"b{number:016x}" for number in range(BOARDS)]


def _samples(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """x float32 (count, DIMENSIONS), y int64 (count,)."""
    centres = np.random.default_rng(0).normal(0, 1, (len(LABELS), DIMENSIONS))
    rng = np.random.default_rng(seed)
    y = rng.integers(0, len(LABELS), count)
    return (centres[y] + rng.normal(0, 1.2, (count, DIMENSIONS))).astype(np.float32), y


def _cloud(folder: Path) -> Cloud:
    """A service with boards, and a base that has learned next to nothing."""
    now = time.time()
    made = clouds.create(folder, url="https://localhost:8443", hosts=("localhost",), offline=None, now=now)[0]
    tasks.publish(made, TASK, now=now)
    x, y = _samples(100, 1)
    users = np.asarray([f"person-{number % 5}" for number in range(len(x))])
    np.savez(folder / "people.npz", x=x, y=np.asarray(LABELS)[y], user=users)
    pool.ingest(made, folder / "people.npz", TASK.id, pool.Consent("packs", now + 1e8), now=now)
    settings = pretrain.TrainSettings(epochs=1, rehearse=False)
    pretrain.train(made, TASK.id, settings, now=now, on_progress=_quiet)
    index.build(made, TASK.id, seed=0, now=now, on_progress=_quiet)
    with made.database.writing() as connection:
        for board in _ids():
            row = {"id": board, "name": board, "profile": "generic", "public_key": board, "enrolled_at": now}
            connection.execute(db.boards.insert().values(row))
            connection.execute(db.grants.insert().values(board=board, task=TASK.id, granted_at=now))
    return made


def _crowd(made: Cloud, series: Series) -> Crowd:
    """Each board has four of ten labels."""
    model = build(TASK)
    raw = made.blobs.read(series.base.weights.digest)
    set_weights(model, tensors.unpack(raw, what="base", limit_bytes=1 << 24)[0])
    x, y = _samples(BOARDS * SAMPLES, 2)
    return Crowd(model, x, y, shards(y, BOARDS, np.random.default_rng(3), per_board=4), _samples(3000, 4))


def _quiet(_stage: str, _done: int, _total: int) -> None:
    """Progress that nobody watches."""


if __name__ == "__main__":
    main()
