"""Submodels over HTTPS: a board tells which rows it touches, gets those, and what it sends back is theirs."""

from __future__ import annotations

import secrets
import shutil
from dataclasses import replace

import numpy as np
import pytest
import sqlalchemy as sa

from cloud_aug import db, garbage, tasks
from cloud_aug.rounds import attendance, referee, results, rows
from cloud_aug.rounds import series as all_series
from cloud_aug.simulation.plan import Plan as Simulated
from cloud_aug.simulation.play import Simulation
from edgelearn.compression.codec import Plain
from edgelearn.crowd import Crowd
from edgelearn.federated import turn
from edgelearn.federated.algorithm import LocalSettings, Order
from edgelearn.federated.catalogue import ALGORITHMS, Surroundings, make
from edgelearn.federated.splits import Part
from edgelearn.models.build import build, set_weights
from edgewire import tensors
from edgewire.errors import NotFound, Refused, UsageError
from edgewire.files import digest
from edgewire.rounds import Local, Parts, RowsMeta, UpdateMeta, pack_rows, pack_update
from tests.cloud import clicks, toys
from tests.cloud.players import PLAN, Player, move_on

BACKENDS = ("files",)
LOCAL = Local(epochs=1, batch_size=4, learning_rate=0.1)
ROWS = replace(PLAN, algorithm="fedsubavg", rounds=3, cohort=3, quorum=3, local=LOCAL, seed=11)


@pytest.fixture(scope="session")
def _shop(tmp_path_factory):
    return clicks.published(tmp_path_factory.mktemp("shop") / "cloud")


@pytest.fixture
def data(_shop, tmp_path):
    return shutil.copytree(_shop, tmp_path / "cloud")


@pytest.fixture
def players(client, cloud, clock):
    made = [Player(client, cloud, clock, samples=6) for _ in range(3)]
    return sorted(made, key=lambda player: player.id)  # the service counts in this order


def begun(cloud, clock, plan=ROWS, **changes):
    made = all_series.create(cloud, "toy", replace(plan, **changes), now=clock())
    all_series.start(cloud, made.id, now=clock())
    return made


def told(player, series, ids, *, samples=6, name=clicks.TABLE):
    """The answer, and the digest to join with."""
    body = pack_rows({name: np.asarray(ids)}, RowsMeta("toy", samples))
    return put(player, series, body), digest(body)


def put(player, series, body):
    return player.client.put(f"/v1/tasks/toy/rounds/{series}/rows", content=body, headers=player.headers())


def rows_of(number):
    return [0, 1 + number, 9, 20 + number]


def drawn(cloud, clock, made, players):
    """Everybody tells its rows, comes, and is drawn; the digests to join with, by board."""
    names = {player.id: told(player, made.id, rows_of(i))[1] for i, player in enumerate(players)}
    for player in players:
        player.join(rows=names[player.id])
    move_on(cloud, made.id, clock)
    return names


def all_joined(cloud, clock, made, players):
    """Everybody tells and is invited; each with its invitation and its rows."""
    names = drawn(cloud, clock, made, players)
    return {player.id: player.join(rows=names[player.id]) for player in players}


def answered(player, invitation, value=0.25):
    order = player.order(invitation)
    delta = {name: np.full(array.shape, value, np.float32) for name, array in order.main.items()}
    upload_id = secrets.token_hex(16)
    meta = UpdateMeta(invitation.series, invitation.number, player.id, upload_id, player.samples, 4, 0.5)
    return player.send(invitation, upload_id, pack_update(Parts(delta), meta))


def test_a_board_gets_the_rows_that_it_told_and_no_others(cloud, clock, players):
    made = begun(cloud, clock)
    answer = players[0].ask()
    assert (answer.json()["rows"], answer.json()["invitation"]) == (made.id, "")
    invitations = all_joined(cloud, clock, made, players)
    with cloud.database.reading() as connection:
        whole = all_series.load_server(cloud, all_series.last_server(connection, made), 0).weights
    assert whole[clicks.TABLE].shape[0] == clicks.ITEMS
    for number, player in enumerate(players):
        order = player.order(invitations[player.id]).main
        assert np.array_equal(order[clicks.TABLE], whole[clicks.TABLE][rows_of(number)])
        assert order.keys() == whole.keys()
        assert invitations[player.id].order.size < 0.9 * len(tensors.pack(whole))
        other = players[number - 1]
        answer = other.client.get(f"/v1/blobs/{invitations[player.id].order.digest}", headers=other.headers())
        assert answer.status_code == 404
    again = players[0].join(rows=invitations[players[0].id].rows)
    assert again.order == invitations[players[0].id].order


def test_who_did_not_fetch_its_invitation_cannot_send_whole_tables(cloud, clock, players):
    made = begun(cloud, clock)
    drawn(cloud, clock, made, players)
    before = all_series.load_server(cloud, made.start, 0).weights
    upload_id = secrets.token_hex(16)
    meta = UpdateMeta(made.id, 1, players[0].id, upload_id, 6, 4)
    body = pack_update(Parts({name: np.zeros_like(array) for name, array in before.items()}), meta)
    path = f"/v1/tasks/toy/rounds/{made.id}/1/updates/{upload_id}"
    assert players[0].client.put(path, content=body, headers=players[0].headers()).status_code == 403


def test_rounds_with_submodels_end_with_the_bits_of_the_simulation(cloud, clock, players, tmp_path):
    made = begun(cloud, clock)
    model = build(clicks.TASK)
    raw = cloud.blobs.read(made.base.weights.digest)
    set_weights(model, tensors.unpack(raw, what="base", limit_bytes=1 << 22)[0])
    data = clicks.columns(30, 5)
    x, y = data["x"], np.searchsorted(clicks.TASK.labels, data["y"]).astype(np.int64)
    crowd = Crowd(model, x, y, [Part(np.arange(6 * i, 6 * i + 6)) for i in range(3)], (x[18:], y[18:]), metric="auc")
    settings = LocalSettings(LOCAL.epochs, LOCAL.batch_size, LOCAL.learning_rate)
    plan = Simulated(algorithm="fedsubavg", rounds=ROWS.rounds, share=1.0, seed=ROWS.seed, settings=settings)
    simulation = Simulation(crowd, plan, tmp_path / "simulation", world="clicks")
    names = {}
    for place, player in enumerate(players):
        body = pack_rows(crowd.rows(f"board-{place}"), RowsMeta("toy", 6))
        assert put(player, made.id, body).json() == {"accepted": True}
        assert put(player, made.id, body).json() == {"accepted": False}
        names[player.id] = digest(body)
    for number in range(ROWS.rounds):
        for player in players:
            player.join(rows=names[player.id])
        move_on(cloud, made.id, clock)
        for place, player in enumerate(players):
            invitation = player.join(rows=names[player.id])
            rng = np.random.default_rng((ROWS.seed, number, 4, place))
            rng.integers(0, 1)  # how late the simulation lets it be
            rng.random()  # whether it drops out there
            own = crowd.rows(f"board-{place}")
            update, _ = turn.play(
                make(ALGORITHMS["fedsubavg"], Surroundings(3, 3.0, lambda _: 0.0, np.random.default_rng), {}),
                Plain(),
                Order(number, player.order(invitation).main, settings, rows=own),
                crowd.learner(f"board-{place}", own),
                board=player.id,
                memory=turn.Memory(),
                rng=rng,
            )
            upload_id = f"{number:016x}{place:016x}"
            meta = UpdateMeta(invitation.series, number + 1, player.id, upload_id, 6, update.steps)
            assert player.send(invitation, upload_id, pack_update(Parts(update.delta), meta)).status_code == 200
        assert move_on(cloud, made.id, clock).closed == number + 1
    simulation.run()
    with cloud.database.reading() as connection:
        server = all_series.load_server(cloud, all_series.last_server(connection, made), ROWS.rounds)
    for name, array in simulation.server.weights.items():
        assert server.weights[name].tobytes() == array.tobytes(), name


def test_an_update_of_other_rows_is_refused_and_a_boards_model_has_the_rows_in_their_places(cloud, clock, players):
    made = begun(cloud, clock)
    invitations = all_joined(cloud, clock, made, players)
    first = invitations[players[0].id]
    order = players[0].order(first).main
    delta = {name: np.zeros((len(array) + 1, *array.shape[1:]), np.float32) for name, array in order.items()}
    upload_id = secrets.token_hex(16)
    meta = UpdateMeta(made.id, 1, players[0].id, upload_id, 6, 4)
    assert players[0].send(first, upload_id, pack_update(Parts(delta), meta)).status_code == 422
    for player in players[1:]:
        assert answered(player, invitations[player.id]).status_code == 200
    garbage.collect(cloud, grace_s=0.0, now=clock() + 1e6)
    model = results.fetch_of_board(cloud, made.id, "1", players[1].id).weights
    got = tensors.unpack(model, what="model", limit_bytes=1 << 22)[0][clicks.TABLE]
    before = all_series.load_server(cloud, made.start, 0).weights[clicks.TABLE]
    moved = np.flatnonzero((got != before).any(axis=1))
    assert moved.tolist() == rows_of(1)


def test_told_again_and_back_a_round_is_counted_with_what_boards_were_sent(cloud, clock, players):
    made = begun(cloud, clock)
    invitations = all_joined(cloud, clock, made, players)
    for player in players:
        assert answered(player, invitations[player.id]).status_code == 200
    assert move_on(cloud, made.id, clock).closed == 1
    clock.now += rows.AGAIN_S
    assert told(players[0], made.id, [3, 30])[0].status_code == 200
    garbage.collect(cloud, grace_s=0.0, now=clock() + 1e6)  # what counted needs its rows
    old = told(players[0], made.id, rows_of(0))
    assert old[0].json() == {"accepted": False}
    invitations = all_joined(cloud, clock, made, players)
    for player in players:
        assert answered(player, invitations[player.id]).status_code == 200
    assert move_on(cloud, made.id, clock).closed == 2


def test_an_invitation_keeps_its_rows_and_other_rows_are_not_told_at_any_rate(cloud, clock, players):
    made = begun(cloud, clock)
    kept = all_joined(cloud, clock, made, players)[players[0].id]
    assert told(players[0], made.id, [3, 30])[0].status_code == 429
    clock.now += rows.AGAIN_S
    answer, other = told(players[0], made.id, [3, 30])
    assert answer.json() == {"accepted": True}
    again = players[0].join(rows=other)
    assert (again.rows, again.order) == (kept.rows, kept.order)


@pytest.mark.parametrize(
    "ids", [[], [3, 3], [4, 3], [clicks.ITEMS], np.zeros((2, 2), np.uint32)], ids=["none", "twice", "down", "far", "2d"]
)
def test_rows_that_cannot_be_are_refused(cloud, clock, players, ids):
    made = begun(cloud, clock)
    answer, _ = told(players[0], made.id, np.asarray(ids, np.uint32))
    assert answer.status_code == 422
    assert players[0].ask().json()["rows"] == made.id


def test_rows_of_other_tables_and_too_many_samples_are_refused(cloud, clock, players):
    made = begun(cloud, clock, max_samples=10)
    assert told(players[0], made.id, [1], name="head.weight")[0].status_code == 422
    assert told(players[0], made.id, [1], samples=11)[0].status_code == 422
    assert put(players[0], made.id, b"rubbish").status_code == 422
    padded = tensors.pack({clicks.TABLE: np.uint32([1])}, {"format": "rows/1", "task": "toy", "samples": 3, "pad": "x"})
    assert put(players[0], made.id, padded).status_code == 422
    assert put(players[0], "0" * 16, pack_rows({}, RowsMeta("toy", 1))).status_code == 404


def test_nobody_is_asked_for_rows_without_the_tasks_policy(cloud, clock, players):
    series = begun(cloud, clock)
    silent = replace(clicks.TASK, privacy=replace(clicks.TASK.privacy, rows=False))
    tasks.publish(cloud, silent, now=clock())
    assert told(players[0], series.id, [1])[0].status_code == 403
    with pytest.raises(Refused, match="asking boards for their rows"):
        all_series.create(cloud, "toy", ROWS, now=clock())
    other = all_series.create(cloud, "toy", replace(ROWS, algorithm="fedavg"), now=clock())
    assert told(players[0], other.id, [1])[0].status_code == 403


@pytest.mark.parametrize("changes", [{"down": "changes"}, {"compression": "topk"}])
def test_what_needs_the_same_rows_in_each_round_is_not_offered(cloud, clock, changes):
    with pytest.raises(UsageError, match="other rows"):
        all_series.create(cloud, "toy", replace(ROWS, **changes), now=clock())


def test_a_model_without_tables_has_no_part(cloud, clock):
    plain = replace(toys.TASK, id="toy-plain", privacy=replace(toys.TASK.privacy, rounds=True, rows=True))
    with pytest.raises(UsageError, match="no tables"):
        all_series._tables(plain, {})


def test_rows_that_an_open_round_was_sent_survive_gc_after_others_were_told(cloud, clock, players):
    made = begun(cloud, clock)
    invitations = all_joined(cloud, clock, made, players)
    clock.now += rows.AGAIN_S
    assert told(players[0], made.id, [3, 30])[0].status_code == 200
    with cloud.database.writing() as connection:  # what a board told is not all that names them
        connection.execute(db.touched.delete().where(db.touched.c.board == players[0].id))
    garbage.collect(cloud, grace_s=0.0, now=clock() + 1e6)
    for player in players:
        assert answered(player, invitations[player.id]).status_code == 200
    assert move_on(cloud, made.id, clock).closed == 1


def test_a_fault_in_one_series_does_not_keep_the_others(cloud, clock, players, monkeypatch):
    seen = []

    def advance(_cloud, series, *, clock):
        seen.append(series)
        raise TypeError("a fault of ours")

    made = begun(cloud, clock)
    monkeypatch.setattr(referee, "advance", advance)
    monkeypatch.setattr(referee.all_series, "running", lambda _: [made, replace(made, id="f" * 16)])
    referee.advance_all(cloud, clock=clock, stuck=referee.Stuck())
    assert seen == [made.id, "f" * 16]


def test_a_board_that_is_invited_while_it_asks_comes_again_for_its_part(cloud, clock, players, monkeypatch):
    made = begun(cloud, clock)
    names = drawn(cloud, clock, made, players)
    with monkeypatch.context() as early:
        early.setattr(attendance, "_cut", lambda *_: None)  # as before the round began
        answer = players[0].ask(rows=names[players[0].id]).json()
    assert answer["invitation"] == ""
    assert 0 < answer["wait_s"] < 5
    assert players[0].join(rows=names[players[0].id]).rows == names[players[0].id]


def test_rows_that_the_disk_lost_are_asked_for_again_and_heal(cloud, clock, players):
    made = begun(cloud, clock)
    names = drawn(cloud, clock, made, players)
    first = players[0]
    cloud.blobs.remove(names[first.id])
    rows._read.cache_clear()
    assert first.ask(rows=names[first.id]).json()["rows"] == made.id
    answer, name = told(first, made.id, rows_of(0))
    assert (answer.status_code, name) == (200, names[first.id])
    assert first.join(rows=name).rows == name


def test_rows_told_again_are_on_disk_again(cloud, clock, players):
    made = begun(cloud, clock)
    _, name = told(players[0], made.id, rows_of(0))
    cloud.blobs.remove(name)
    assert told(players[0], made.id, rows_of(0))[0].json() == {"accepted": False}
    assert cloud.blobs.read(name)


def test_rows_that_are_lost_when_they_count_stop_the_series_and_say_whose_they_were(cloud, clock, players):
    made = begun(cloud, clock)
    invitations = all_joined(cloud, clock, made, players)
    all_series.stop(cloud, made.id, now=clock())
    for player in players:
        assert answered(player, invitations[player.id]).status_code == 200
    cloud.blobs.remove(invitations[players[0].id].rows)
    rows._read.cache_clear()
    all_series.resume(cloud, made.id, now=clock())
    stood = move_on(cloud, made.id, clock)
    assert stood.state == "failed"
    assert f"the rows that board {players[0].id} told are gone or damaged" in stood.reason


def test_gc_forgets_what_boards_told_for_a_series_that_is_over(cloud, clock, players):
    made = begun(cloud, clock, rounds=1)
    invitations = all_joined(cloud, clock, made, players)
    for player in players:
        assert answered(player, invitations[player.id]).status_code == 200
    garbage.collect(cloud, grace_s=0.0, now=clock() + 1e6)
    assert cloud.blobs.read(invitations[players[0].id].rows)
    assert move_on(cloud, made.id, clock).closed == 1
    with cloud.database.writing() as connection:  # a plan that keeps no updates
        connection.execute(db.updates.update().values(kept=False))
    garbage.collect(cloud, grace_s=0.0, now=clock() + 1e6)
    with cloud.database.reading() as connection:
        assert connection.execute(sa.select(db.touched)).all() == []
    with pytest.raises(NotFound):
        cloud.blobs.read(invitations[players[0].id].rows)
