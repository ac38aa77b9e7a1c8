"""Boards that play federated rounds over any client, with made-up updates: what a round needs, without training."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from cloud_aug import tasks
from cloud_aug.cloud import Cloud
from cloud_aug.rounds import referee
from cloud_aug.rounds import series as all_series
from cloud_aug.rounds.plan import Plan, Series
from cloud_aug.rounds.status import SeriesStatus, status
from edgelearn.compression.catalogue import CODECS
from edgewire.decoding import convert, encode
from edgewire.errors import Busy
from edgewire.rounds import Invitation, JoinRequest, Parts, Sign, UpdateMeta, pack_update, unpack_order
from edgewire.signing import open_sealed
from tests.cloud import toys

PLAN = Plan(rounds=2, cohort=3, quorum=2, gather_s=60, deadline_s=600, silence_s=120, max_norm=100)


def allow_rounds(cloud: Cloud) -> None:
    """Publish the toy task with a policy that allows rounds."""
    allowed = replace(toys.TASK, privacy=replace(toys.TASK.privacy, rounds=True))
    tasks.publish(cloud, allowed, now=time.time())


def begun(cloud: Cloud, clock: toys.Clock, plan: Plan = PLAN, **changes: Any) -> Series:
    """A series that runs."""
    allow_rounds(cloud)
    made = all_series.create(cloud, "toy", replace(plan, **changes), now=clock())
    all_series.start(cloud, made.id, now=clock())
    return made


def move_on(cloud: Cloud, series: str, clock: toys.Clock) -> SeriesStatus:
    """Let the referee do what is due; how the series stands then."""
    for _ in range(100):
        try:
            referee.advance(cloud, series, clock=clock)
        except Busy:  # the service's own thread is at it
            time.sleep(0.05)
        else:
            break
    return status(cloud, series, now=clock())


@dataclass
class Player:
    """One enrolled board."""

    client: Any
    cloud: Cloud
    clock: Callable[[], float]
    board: toys.Board = field(default_factory=toys.Board)
    samples: int = 10

    def __post_init__(self) -> None:
        self.board.enroll(self.client, self.cloud, now=self.clock())

    @property
    def id(self) -> str:
        return self.board.id

    def headers(self) -> dict[str, str]:
        return self.board.headers(self.client, now=self.clock())

    def ask(self, **told: Any) -> Any:
        """The whole answer to a request to join."""
        body = encode(JoinRequest(self.samples, **told))
        return self.client.post("/v1/tasks/toy/rounds/join", content=body, headers=self.headers())

    def join(self, **told: Any) -> Invitation | None:
        answer = self.ask(**told)
        assert answer.status_code == 200, answer.text
        sealed = answer.json()["invitation"]
        if not sealed:
            return None
        keys = self.cloud.trust().signing_keys
        statement = open_sealed(sealed.encode(), keys, type="round", task="toy", now=self.clock())
        return convert(Invitation, statement.body, what="invitation")

    def order(self, invitation: Invitation) -> Parts:
        """What it starts from, as the service hands it out."""
        answer = self.client.get(f"/v1/blobs/{invitation.order.digest}", headers=self.headers())
        assert answer.status_code == 200, answer.text
        return unpack_order(answer.content, limit_bytes=1 << 20)

    def update(self, invitation: Invitation, value: float = 0.25, **changes: Any) -> tuple[str, bytes]:
        """An upload id, and an update of which every number is `value`."""
        upload_id = secrets.token_hex(16)
        order = self.order(invitation)
        delta = {name: np.full(array.shape, value, np.float32) for name, array in order.main.items()}
        extra = {name: np.full(array.shape, value, np.float32) for name, array in order.extra.items()}
        rng = np.random.default_rng(0)
        sent, _ = CODECS[invitation.compression].encode(delta, memory={}, rng=rng)
        meta = UpdateMeta(invitation.series, invitation.number, self.id, upload_id, self.samples, 4, 0.5)
        if isinstance(invitation.max_steps, int):
            meta = replace(meta, steps=min(meta.steps, invitation.max_steps))
        meta = replace(meta, **changes)
        return meta.upload_id, pack_update(Parts(sent, extra), meta)

    def send(self, invitation: Invitation, upload_id: str, body: bytes) -> Any:
        path = f"/v1/tasks/toy/rounds/{invitation.series}/{invitation.number}/updates/{upload_id}"
        return self.client.put(path, content=body, headers=self.headers())

    def sign(self, invitation: Invitation, told: Sign = Sign()) -> Any:  # noqa: B008  (frozen)
        path = f"/v1/tasks/toy/rounds/{invitation.series}/{invitation.number}/sign"
        return self.client.post(path, content=encode(told), headers=self.headers())

    def play(self, value: float = 0.25, **changes: Any) -> Any:
        """Join and send; it has to be invited."""
        invitation = self.join()
        assert invitation is not None, "not invited"
        return self.send(invitation, *self.update(invitation, value, **changes))


def gathered(players: Sequence[Player], series: str) -> None:
    """Everybody comes, and the cohort is drawn."""
    for player in players:
        player.join()
    move_on(players[0].cloud, series, players[0].clock)
