"""Weights on their way to boards: a shorter way, which ends with the bytes of the whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cloud_aug import garbage
from cloud_aug.rounds import orders
from cloud_aug.rounds.status import status
from edgelearn.compression.broadcast import followed
from edgelearn.compression.catalogue import CODECS
from edgewire.errors import UsageError
from edgewire.files import digest
from edgewire.rounds import Invitation, Parts, Shortcut, pack_order, unpack_order, unpack_short
from tests.cloud.players import PLAN, Player, begun, gathered, move_on

BACKENDS = ("files",)
CHANGES = replace(PLAN, down="changes", rounds=9, cohort=2, quorum=2)


@pytest.fixture
def players(client, cloud, clock):
    return [Player(client, cloud, clock) for _ in range(2)]


def fetched(player: Player, name: str) -> bytes:
    answer = player.client.get(f"/v1/blobs/{name}", headers=player.headers())
    assert answer.status_code == 200, answer.text
    return answer.content


def invited(players: list[Player], series: str, holds: str) -> Invitation:
    """The next round's invitation of the first player, who says what it holds."""
    gathered(players, series)
    told = players[0].join(holds=holds) if holds else players[0].join()
    assert told is not None
    return told


def answered(players: list[Player], series: str, value: float) -> None:
    for player in players:
        assert player.play(value).status_code == 200
    move_on(players[0].cloud, series, players[0].clock)


def test_a_board_that_follows_changes_holds_the_order_to_the_byte(cloud, clock, players):
    made = begun(cloud, clock, CHANGES)
    first = invited(players, made.id, "")
    assert not first.short
    held, before = fetched(players[0], first.order.digest), first
    for value in (0.25, -1.0, 0.5):
        answered(players, made.id, value)
        told = invited(players, made.id, digest(held))
        assert isinstance(told.short, Shortcut)
        assert told.short.held == before.order.digest
        [change] = told.short.blobs
        assert change.size < told.order.size
        parts, _ = unpack_short(fetched(players[0], change.digest), limit_bytes=1 << 20)
        weights = followed(unpack_order(held, limit_bytes=1 << 20).main, [parts.main], CODECS[told.short.codec])
        held, before = pack_order(replace(parts, main=weights), "toy"), told
        assert digest(held) == told.order.digest == digest(fetched(players[0], told.order.digest))


def test_who_was_away_gets_each_change_once_and_who_holds_something_else_gets_the_order(cloud, clock, players):
    made = begun(cloud, clock, CHANGES, failures=5)
    first = invited(players, made.id, "")
    answered(players, made.id, 0.25)
    clock.now += CHANGES.gather_s + 1
    assert move_on(cloud, made.id, clock).failed == 1  # nobody came: the weights stay, and so does the order
    second = invited(players, made.id, first.order.digest)
    assert second.number == 3
    assert isinstance(second.short, Shortcut)
    assert len(second.short.blobs) == 1
    assert players[0].join(holds=second.order.digest).short is not second.short
    assert not players[0].join(holds=second.order.digest).short
    assert not players[0].join(holds="0" * 64).short
    assert not players[0].join().short
    answered(players, made.id, 0.25)
    both = invited(players, made.id, first.order.digest).short
    if isinstance(both, Shortcut):  # where two changes are less than the whole
        assert len(both.blobs) == 2
        assert both.blobs[0] == second.short.blobs[0]


def test_eight_bits_are_whole_weights_that_anybody_can_start_from(cloud, clock, players):
    made = begun(cloud, clock, CHANGES, down="eight-bit")
    told = invited(players, made.id, "")
    assert isinstance(told.short, Shortcut)
    assert told.short.held == ""
    parts, meta = unpack_short(fetched(players[0], told.short.blobs[0].digest), limit_bytes=1 << 20)
    whole = unpack_order(fetched(players[0], told.order.digest), limit_bytes=1 << 20)
    assert meta.names == sorted(whole.main)
    made_of_it = CODECS["eight-bit"].decode(parts.main, whole.main)
    assert digest(pack_order(Parts(made_of_it, parts.extra), "toy")) == told.order.digest


def test_the_servers_own_weights_stay_exact(cloud, clock, players, client):
    """Boards know weights by what they were sent; each change brings what the ones before left out."""
    made = begun(cloud, clock, CHANGES, local=replace(CHANGES.local, epochs=1))
    gathered(players, made.id)
    start = players[0].order(invited(players, made.id, ""))
    answered(players, made.id, 0.25)
    known = players[0].order(invited(players, made.id, ""))
    from cloud_aug.rounds import results
    from edgewire import tensors

    model = tensors.unpack(results.fetch(cloud, made.id, "last").weights, what="model", limit_bytes=1 << 20)[0]
    off = 0
    for name, array in start.main.items():
        assert np.allclose(model[name], array + np.float32(0.25))
        off += int((known.main[name] != model[name]).sum())
    assert off > 0


def test_what_boards_fetched_is_what_is_told_and_short_ways_are_kept_by_gc(cloud, clock, players):
    made = begun(cloud, clock, CHANGES)
    first = invited(players, made.id, "")
    players[1].join()
    answered(players, made.id, 0.25)
    second = invited(players, made.id, first.order.digest)
    players[1].join()
    told = status(cloud, made.id, now=clock()).history[-1]
    assert told.number == 2
    assert told.bytes_down == second.short.blobs[0].size + second.order.size
    garbage.collect(cloud, grace_s=0.0, now=clock() + 1e6)
    assert fetched(players[0], second.short.blobs[0].digest)


def test_as_many_changes_are_sent_as_are_promised_and_rounds_that_failed_are_none(cloud, clock, players, monkeypatch):
    monkeypatch.setattr(orders, "CHANGES_AT_MOST", 2)
    made = begun(cloud, clock, CHANGES)
    held = invited(players, made.id, "").order.digest
    answered(players, made.id, 0.5)
    gathered(players, made.id)
    clock.now += CHANGES.deadline_s
    assert move_on(cloud, made.id, clock).failed == 1
    gathered(players, made.id)
    answered(players, made.id, 0.25)
    short = invited(players, made.id, held).short
    assert (short.held, len(short.blobs)) == (held, 2)


def test_there_is_no_other_way_down(cloud, clock):
    with pytest.raises(UsageError, match="no way down 'carrier-pigeon'"):
        begun(cloud, clock, CHANGES, down="carrier-pigeon")


def test_who_holds_the_order_already_is_sent_nothing(cloud, clock, players):
    made = begun(cloud, clock, CHANGES)
    first = invited(players, made.id, "")
    size = status(cloud, made.id, now=clock()).history[-1].bytes_down
    assert size == first.order.size
    players[0].join(holds=first.order.digest)  # after a kill, say: what it was sent before still counts
    assert status(cloud, made.id, now=clock()).history[-1].bytes_down == size
    players[1].join(holds=first.order.digest)
    assert status(cloud, made.id, now=clock()).history[-1].bytes_down == size
