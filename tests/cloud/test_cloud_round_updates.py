"""Updates that must not count: each is refused with its reason, and the round goes on without it."""

from __future__ import annotations

import json
import secrets
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy

from cloud_aug import boards, db
from cloud_aug.rounds import receiving
from cloud_aug.rounds.status import status
from edgewire import tensors
from edgewire.decoding import plain
from edgewire.errors import Revoked
from edgewire.rounds import UPDATE_LIMIT_BYTES, Parts, Sign, pack_update, unpack_update
from tests.cloud.players import PLAN, Player, begun, gathered, move_on

BACKENDS = ("files",)


@pytest.fixture
def players(client, cloud, clock):
    return [Player(client, cloud, clock) for _ in range(3)]


def _renamed(parts):
    return replace(parts, main={f"x{name}": array for name, array in parts.main.items()})


def _first(change):
    def changed(parts):
        name = min(parts.main)
        return replace(parts, main={**parts.main, name: change(parts.main[name])})

    return changed


BROKEN = {
    "other names": (_renamed, "other names"),
    "a missing array": (lambda parts: replace(parts, main=dict(list(parts.main.items())[1:])), "other names"),
    "another shape": (_first(lambda array: array.reshape(-1)[:1]), "expected float32"),
    "another dtype": (_first(lambda array: array.astype(np.float64)), "expected float32"),
    "integers": (_first(lambda array: array.astype(np.int64)), "expected float32"),
    "not a number": (_first(lambda array: np.full_like(array, np.nan)), "not finite"),
    "infinity": (_first(lambda array: np.full_like(array, np.inf)), "not finite"),
    "a huge norm": (_first(lambda array: np.full_like(array, 1e30)), "the norm of delta"),
    "something extra": (lambda parts: replace(parts, extra={"w": np.zeros(3, np.float32)}), "extra"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_an_update_that_does_not_fit_the_order_is_refused_and_counted_as_such(cloud, clock, players, what):
    made = begun(cloud, clock)
    gathered(players, made.id)
    change, why = BROKEN[what]
    invitation = players[0].join()
    upload_id, body = players[0].update(invitation)
    parts, meta = unpack_update(body, limit_bytes=UPDATE_LIMIT_BYTES)
    answer = players[0].send(invitation, upload_id, pack_update(change(parts), meta))
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_message")
    assert why in answer.json()["error"]["message"]
    players[1].play()
    players[2].play()
    told = move_on(cloud, made.id, clock).history[0]  # who sent rubbish is not waited for
    assert (told.state, told.answered, told.refused) == ("closed", 2, 1)


@pytest.mark.parametrize(
    "lie",
    [
        {"samples": 10**9},
        {"samples": 2**53},
        {"steps": 10**9},
        {"number": 7},
        {"series": "0" * 16},
        {"board": "b" + "0" * 16},
        {"upload_id": "0" * 32},
    ],
)
def test_an_update_that_lies_about_itself_is_refused(cloud, clock, players, code, lie):
    made = begun(cloud, clock)
    gathered(players, made.id)
    invitation = players[0].join()
    _, body = players[0].update(invitation, **lie)
    assert code(players[0].send(invitation, secrets.token_hex(16), body)) == (422, "invalid_message")


@pytest.mark.parametrize("samples", [0, -5, 1.5, True, "10", None, 1e300])
def test_a_number_of_samples_that_is_none_is_refused(cloud, clock, players, code, samples):
    made = begun(cloud, clock)
    gathered(players, made.id)
    invitation = players[0].join()
    upload_id, body = players[0].update(invitation)
    parts, meta = unpack_update(body, limit_bytes=UPDATE_LIMIT_BYTES)
    raw = tensors.pack(tensors.under("delta", parts.main), {**plain(meta), "samples": samples})
    assert code(players[0].send(invitation, upload_id, raw)) == (422, "invalid_message")


@pytest.mark.parametrize("cut", [0, 4, 8, 100, -1])
def test_a_truncated_update_is_refused_and_the_whole_one_taken(cloud, clock, players, code, cut):
    made = begun(cloud, clock)
    gathered(players, made.id)
    invitation = players[0].join()
    upload_id, body = players[0].update(invitation)
    assert code(players[0].send(invitation, upload_id, body[:cut])) == (422, "invalid_message")
    assert players[0].send(invitation, upload_id, body).json()["accepted"]


def test_a_bomb_cannot_unfold_beyond_the_model(cloud, clock, players, code):
    made = begun(cloud, clock, compression="topk")
    gathered(players, made.id)
    invitation = players[0].join()
    upload_id, body = players[0].update(invitation)
    _, meta = unpack_update(body, limit_bytes=UPDATE_LIMIT_BYTES)
    far = Parts({"places": np.asarray([2**32 - 1], np.uint32), "values": np.ones(1, np.float32)})
    many = Parts({"places": np.arange(5000, dtype=np.uint32), "values": np.ones(5000, np.float32)})
    large = Parts({"places": np.arange(10**6, dtype=np.uint32), "values": np.ones(10**6, np.float32)})
    for parts, status_code in ((far, 422), (many, 422), (large, 413)):
        assert players[0].send(invitation, upload_id, pack_update(parts, meta)).status_code == status_code


@pytest.mark.parametrize("compression", ["topk", "eight-bit", "one-bit"])
def test_compressed_updates_count_as_they_unfold(cloud, clock, players, compression):
    made = begun(cloud, clock, compression=compression)
    gathered(players, made.id)
    assert [player.play(0.5).status_code for player in players] == [200] * 3
    assert move_on(cloud, made.id, clock).history[0].state == "closed"


@pytest.mark.parametrize("name", ["score", "train_s", "energy_j"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_a_figure_that_is_none_is_refused(cloud, clock, players, code, name, value):
    made = begun(cloud, clock)
    gathered(players, made.id)
    invitation = players[0].join()
    upload_id, body = players[0].update(invitation)
    parts, meta = unpack_update(body, limit_bytes=UPDATE_LIMIT_BYTES)
    arrays = tensors.under("delta", parts.main)
    raw = safetensors.numpy.save(arrays, metadata={"meta": json.dumps({**plain(meta), name: value})})
    assert code(players[0].send(invitation, upload_id, raw)) == (422, "invalid_message")


def test_a_body_is_judged_by_what_it_says_of_its_size_before_it_is_read(cloud, clock, players, code):
    made = begun(cloud, clock)
    gathered(players, made.id)
    invitation = players[0].join()
    path = f"/v1/tasks/toy/rounds/{made.id}/1/updates/{'0' * 32}"
    headers = {**players[0].headers(), "content-length": str(1 << 20)}
    assert code(players[0].client.put(path, content=b"not that much", headers=headers)) == (413, "too_large")
    assert status(cloud, made.id, now=clock()).history[0].refused == 1
    assert players[0].send(invitation, *players[0].update(invitation)).status_code == 200


def test_nothing_of_a_board_that_was_revoked_is_taken(cloud, clock, players, code, monkeypatch):
    made = begun(cloud, clock)
    gathered(players, made.id)
    invitation = players[0].join()
    upload_id, body = players[0].update(invitation)
    headers = players[0].headers()
    boards.revoke(cloud, players[0].id, now=clock())
    path = f"/v1/tasks/toy/rounds/{made.id}/1/updates/{upload_id}"
    assert code(players[0].client.put(path, content=body, headers=headers)) == (403, "revoked")
    with pytest.raises(Revoked):  # as it is if that happens while its update is checked
        receiving.receive(cloud, players[0].id, "toy", made.id, 1, upload_id, body, now=clock())
    with cloud.database.reading() as connection:
        assert connection.execute(db.updates.select()).all() == []


@pytest.mark.parametrize(("algorithm", "lost"), [("fedlaavg", 422), ("scaffold", 422), ("fedavg", 200)])
def test_an_update_that_forgot_the_last_one_is_refused_where_that_would_count_twice(
    cloud, clock, players, algorithm, lost
):
    made = begun(cloud, clock, algorithm=algorithm, rounds=3)
    gathered(players, made.id)
    assert [player.play(memory="").status_code for player in players] == [200] * 3
    move_on(cloud, made.id, clock)
    gathered(players, made.id)
    invitation = players[0].join()
    assert players[0].send(invitation, *players[0].update(invitation, memory="")).status_code == lost
    assert players[1].play(memory=players[1].join().memory).status_code == 200
    assert players[2].play().status_code == 200  # an older board does not tell


def test_nobody_sends_to_a_round_that_is_not_its_own(client, cloud, clock, players, code):
    made = begun(cloud, clock)
    gathered(players, made.id)
    stranger, invitation = Player(client, cloud, clock), players[0].join()
    upload_id, body = stranger.update(invitation)
    assert code(stranger.send(invitation, upload_id, body)) == (403, "refused")
    assert code(stranger.sign(invitation)) == (403, "refused")
    elsewhere = replace(invitation, series="0" * 16)
    assert code(players[0].send(elsewhere, upload_id, body)) == (404, "not_found")
    later = replace(invitation, number=5)
    assert code(players[0].send(later, upload_id, body)) == (403, "refused")


def test_without_a_token_nothing_is_read(client, cloud, clock, players, code):
    made = begun(cloud, clock)
    path = f"/v1/tasks/toy/rounds/{made.id}/1/updates/{'0' * 32}"
    assert code(client.put(path, content=b"x" * 1000)) == (401, "unauthorized")
    assert code(client.post("/v1/tasks/toy/rounds/join", content=b"{}")) == (401, "unauthorized")


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"samples": 0}', b'{"samples": 1, "network": "pigeon"}', b"\x00" * 5000]
)
def test_a_request_to_join_that_says_nothing_sensible_is_refused(cloud, clock, players, body):
    begun(cloud, clock)
    answer = players[0].client.post("/v1/tasks/toy/rounds/join", content=body, headers=players[0].headers())
    assert answer.status_code in (413, 422)


def test_after_the_end_nothing_counts_any_more(cloud, clock, players, code):
    made = begun(cloud, clock, rounds=1)
    gathered(players, made.id)
    late = players[2].join()
    upload = players[2].update(late)
    players[0].play()
    players[1].play()
    clock.now += PLAN.deadline_s
    assert move_on(cloud, made.id, clock).state == "finished"
    assert code(players[2].send(late, *upload)) == (410, "gone")
    assert players[2].sign(late, Sign()).json() == {"wanted": False}
    assert "no rounds are running" in players[2].ask().json()["note"]


def test_metrics_tell_of_rounds(client, cloud, clock, players):
    from cloud_aug import auth

    made = begun(cloud, clock, rounds=1)
    gathered(players, made.id)
    players[0].play()
    players[1].play()
    clock.now += PLAN.deadline_s
    move_on(cloud, made.id, clock)
    assert status(cloud, made.id, now=clock()).history[0].silent == 1
    secret = auth.make_administrator(cloud, "p", metrics_only=True, now=clock(), valid_for_s=600)
    text = client.get("/metrics", headers={"Authorization": f"Bearer {secret}"}).text
    assert 'cloud_rounds{state="closed",task="toy"} 1.0' in text
    assert 'cloud_round_updates{fate="missing",task="toy"} 1.0' in text
    assert 'cloud_round_updates{fate="counted",task="toy"} 2.0' in text


def test_energy_is_summed_over_the_boards_that_tell_it(client, cloud, clock, players):
    from cloud_aug import auth
    from cloud_aug.rounds.status import tally

    made = begun(cloud, clock, rounds=1)
    gathered(players, made.id)
    players[0].play(energy_j=12.5)
    told = status(cloud, made.id, now=clock()).history[0]
    assert (told.energy_j, told.energy_told) == (12.5, 1)
    players[1].play(energy_j=0.25)
    players[2].play()
    told = move_on(cloud, made.id, clock).history[0]
    assert (told.energy_j, told.energy_told, told.answered) == (12.75, 2, 3)
    with cloud.database.reading() as connection:
        assert (tally(connection, "toy").energy_j, tally(connection, "toy").energy_told) == (12.75, 2)
    secret = auth.make_administrator(cloud, "p", metrics_only=True, now=clock(), valid_for_s=600)
    text = client.get("/metrics", headers={"Authorization": f"Bearer {secret}"}).text
    assert 'cloud_round_energy_joules{task="toy"} 12.75' in text
    assert 'cloud_round_energy_updates{task="toy"} 2.0' in text


def test_energy_that_nobody_tells_is_not_known_and_one_that_cannot_be_is_refused(cloud, clock, players, code):
    made = begun(cloud, clock, rounds=1)
    gathered(players, made.id)
    players[0].play()
    told = status(cloud, made.id, now=clock()).history[0]
    assert (told.energy_j, told.energy_told) == (None, 0)
    assert code(players[1].play(energy_j=1.5e6)) == (422, "invalid_message")
