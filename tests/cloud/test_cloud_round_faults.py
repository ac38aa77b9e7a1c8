"""Rounds on two services over TLS while boards drop out, send rubbish and send twice, and services are killed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from cloud_aug import cloud as clouds
from cloud_aug import db
from cloud_aug.cloud import Cloud
from cloud_aug.rounds import results
from cloud_aug.rounds import series as all_series
from cloud_aug.rounds.status import status
from edgewire import tensors
from edgewire.rounds import Invitation
from tests.cloud import toys
from tests.cloud.players import PLAN, Player, begun
from tests.cloud.test_cloud_serve import connect
from tests.cloud.test_cloud_workers import until

BACKENDS = ("files",)
ROUNDS, BOARDS = 4, 7


@dataclass
class Crowd:
    """Boards, and what the service has acknowledged: upload id -> the number that it added to every weight."""

    players: list[Player]
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(4))
    acknowledged: dict[str, float] = field(default_factory=dict)

    def invited(self) -> list[tuple[Player, Invitation]]:
        """Everybody asks until the cohort is drawn."""
        found: dict[str, tuple[Player, Invitation]] = {}

        def everybody() -> bool:
            for player in self.players:
                if player.id not in found and (invitation := player.join()) is not None:
                    found[player.id] = (player, invitation)
            return len(found) == len(self.players)

        until(everybody)
        return list(found.values())

    def answer(self, player: Player, invitation: Invitation) -> None:
        """In time, twice, with rubbish before it, or never."""
        luck, value = self.rng.random(), float(np.float32(self.rng.normal()))
        if luck < 0.3:
            return
        upload_id, body = player.update(invitation, value)
        if luck < 0.4:
            assert player.send(invitation, upload_id, b"rubbish" * 100).status_code == 422
            assert player.send(invitation, *player.update(invitation, np.nan)).status_code == 422
            return
        for _ in range(2 if luck < 0.6 else 1):
            if player.send(invitation, upload_id, body).status_code == 200:
                self.acknowledged[upload_id] = value


@pytest.fixture
def made(data: Path) -> Iterator[Cloud]:
    opened = clouds.open_cloud(data)
    yield opened
    opened.database.close()


@contextlib.contextmanager
def two_services(data: Path, made: Cloud, crowd: Crowd | None) -> Iterator[tuple[list[toys.Server], list]]:
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(toys.serving(data)) for _ in range(2)]
        authorities = made.trust().authorities
        clients = [stack.enter_context(connect(server.url, authorities)) for server in servers]
        for number, player in enumerate(crowd.players if crowd else []):
            player.client = clients[number % 2]
        yield servers, clients


def play(crowd: Crowd, made: Cloud, series: str, *, killed: toys.Server | None, left: object) -> None:
    """A round. killed: this service dies when half have answered; whoever spoke to it goes on with the one that is
    left."""
    closed = status(made, series, now=time.time()).closed
    for number, (player, invitation) in enumerate(crowd.invited()):
        if number == BOARDS // 2 and killed is not None:
            killed.process.kill()
            for one in crowd.players:
                one.client = left
        crowd.answer(player, invitation)
    until(lambda: status(made, series, now=time.time()).closed > closed)


@pytest.mark.slow
def test_nothing_counts_twice_and_nothing_that_was_acknowledged_is_lost(data: Path, made: Cloud) -> None:
    with two_services(data, made, None) as (_, clients):
        crowd = Crowd([Player(clients[0], made, time.time) for _ in range(BOARDS)])
    plan = {"rounds": ROUNDS, "cohort": BOARDS, "quorum": 1, "silence_s": 3.0, "deadline_s": 60.0}
    series = begun(made, time.time, PLAN, **plan)
    for _ in range(ROUNDS // 2):
        with two_services(data, made, crowd) as (servers, clients):
            play(crowd, made, series.id, killed=None, left=None)
            play(crowd, made, series.id, killed=servers[0], left=clients[1])
    told = status(made, series.id, now=time.time())
    assert (told.state, told.closed, told.failed) == ("finished", ROUNDS, 0)
    with made.database.reading() as connection:
        rows = connection.execute(sa.select(db.updates)).all()
        before = all_series.load_server(made, series.start, 0).weights["head.bias"]
    assert {row.upload_id for row in rows} == set(crowd.acknowledged)
    assert all(row.counted_in == row.number and row.dropped == "" for row in rows)
    means = [[crowd.acknowledged[row.upload_id] for row in rows if row.number == n + 1] for n in range(ROUNDS)]
    after = tensors.unpack(results.fetch(made, series.id, "last").weights, what="w", limit_bytes=1 << 20)[0]
    assert after["head.bias"] == pytest.approx(before + sum(np.mean(values) for values in means), abs=1e-5)
