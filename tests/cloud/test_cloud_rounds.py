"""Federated rounds: invited, counted once, closed or declared failed, whatever comes and whoever dies."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from cloud_aug import boards, db, index, pool, pretrain, tasks
from cloud_aug.cloud import Cloud
from cloud_aug.rounds import counting, judging, receiving, referee, results
from cloud_aug.rounds import series as all_series
from cloud_aug.rounds.status import list_all, status
from edgelearn.federated.median import FedMedian
from edgewire import tensors
from edgewire.errors import Busy, Conflict, NotReady, Refused, UsageError
from edgewire.rounds import Sign
from edgewire.tasks import ModelSpec
from tests.cloud import toys
from tests.cloud.players import PLAN, Player, allow_rounds, begun, gathered, move_on


@pytest.fixture
def players(client, cloud, clock):
    return [Player(client, cloud, clock) for _ in range(3)]


def weights(cloud, series, which="last"):
    raw = results.fetch(cloud, series, which).weights
    return tensors.unpack(raw, what="weights", limit_bytes=1 << 20)[0]


def a_bias(cloud, series, which="last"):
    return float(weights(cloud, series, which)["head.bias"][0])


@contextlib.contextmanager
def held(cloud, series):
    """As a process that is at it; the service's own thread may be so for a moment."""
    with contextlib.ExitStack() as stack:
        for pause_s in (*[0.05] * 100, None):
            try:
                stack.enter_context(cloud.locked(f"rounds-{series}", doing="testing"))
            except Busy:
                if pause_s is None:
                    raise
                time.sleep(pause_s)
            else:
                break
        yield


def freeze(cloud, clock, made, players):
    """Everybody answers, and a process got as far as to decide what counts."""
    invitations = [player.join() for player in players]
    all_series.stop(cloud, made.id, now=clock())  # or the service's own thread would go on
    for number, (player, invitation) in enumerate(zip(players, invitations, strict=True)):
        if invitation is not None:
            player.send(invitation, *player.update(invitation, 0.1 * (number + 1)))
    with cloud.database.writing() as connection:
        counting.freeze(connection, made, 1)
        counting.set_round(connection, made.id, 1, state="closing")


def test_three_boards_play_a_series_and_the_model_is_their_mean_by_samples(cloud, clock, players):
    made = begun(cloud, clock)
    before = None
    players[0].samples = 30
    for _ in range(PLAN.rounds):
        gathered(players, made.id)
        before = before or float(players[0].order(players[0].join()).main["head.bias"][0])
        for player, value in zip(players, (1.0, 0.0, 0.0), strict=True):
            assert player.play(value).status_code == 200
        told = move_on(cloud, made.id, clock)
    assert (told.state, told.closed, told.failed) == ("finished", 2, 0)
    assert [(r.answered, r.invited, r.samples, r.state) for r in told.history] == [(3, 3, 50, "closed")] * 2
    assert a_bias(cloud, made.id) == pytest.approx(before + 2 * 30 / 50)


def test_a_board_without_whom_the_round_would_be_better_is_left_out(cloud, clock, players):
    made = begun(cloud, clock, algorithm="leave-one-out", rounds=1)
    gathered(players, made.id)
    before = float(players[0].order(players[0].join()).main["head.bias"][0])
    for player, value in zip(players, (0.0, 0.0, -1.0), strict=True):
        assert player.play(value).status_code == 200
    assert move_on(cloud, made.id, clock).state == "finished"
    assert a_bias(cloud, made.id) == before


def test_weights_are_judged_on_one_thread_whatever_the_machine_has(cloud, clock, players):
    made = begun(cloud, clock, algorithm="leave-one-out", rounds=1)
    torch.set_num_threads(3)
    judging.judge(cloud, made)(all_series.load_server(cloud, made.start, 0).weights)
    assert torch.get_num_threads() == 1


def test_weights_are_judged_by_samples_from_all_over_the_pool(cloud, monkeypatch):
    monkeypatch.setattr(judging, "MOST_SAMPLES", 10)
    some = judging._spread(cloud, toys.TASK)
    assert (len(some), len(set(some.user.tolist()))) == (10, 6)


def test_a_round_begins_only_when_the_task_allows_it_and_one_at_a_time(cloud, clock, players):
    with pytest.raises(Refused, match="does not allow"):
        all_series.create(cloud, "toy", PLAN, now=clock())
    first = begun(cloud, clock)
    assert not all_series.start(cloud, first.id, now=clock())
    with pytest.raises(Conflict, match="runs already"):
        begun(cloud, clock)
    assert {one.state for one in list_all(cloud, now=clock())} == {"running", "created"}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"quorum": 9, "cohort": 9}, "3 boards may take part"),
        ({"quorum": 4}, "never reach a quorum"),
        ({"algorithm": "magic"}, "no algorithm 'magic'"),
        ({"algorithm": "ensemble"}, "no single model"),
        ({"algorithm": "fedsubavg", "down": "changes"}, "other rows"),
        ({"compression": "zip"}, "no compression 'zip'"),
        ({"options": {"speed": 1.0}}, "no option 'speed'"),
        ({"algorithm": "scaffold", "noise": 1.0}, "without noise"),
        ({"algorithm": "fedlaavg", "noise": 1.0}, "without noise"),
        ({"algorithm": "multi-krum"}, "nothing of 2 updates"),
        ({"max_norm": math.inf}, "must be finite"),
        ({"max_temperature_c": math.nan}, "must be finite"),
        ({"options": {"server_rate": math.nan}}, "from 0 up, not nan"),
        ({"algorithm": "dp-fedavg", "options": {"noise_multiplier": -1.0}}, "from 0 up, not -1"),
        ({"algorithm": "leave-one-out", "options": {"margin": math.inf}}, "a number, not inf"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_when_it_is_made(cloud, clock, players, changes, why):
    with pytest.raises(UsageError, match=why):
        begun(cloud, clock, **changes)
    assert list_all(cloud, now=clock()) == []


def test_with_fewer_boards_than_a_cohort_may_have_dp_divides_by_those_there_are(cloud, clock, players):
    made = begun(cloud, clock, algorithm="dp-fedavg", cohort=9, rounds=1, options={"noise_multiplier": 0, "clip": 90})
    move_on(cloud, made.id, clock)
    before = float(players[0].order(players[0].join()).main["head.bias"][0])
    for player in players:
        assert player.play(0.5).status_code == 200
    assert move_on(cloud, made.id, clock).state == "finished"
    assert a_bias(cloud, made.id) == pytest.approx(before + 0.5)


def test_a_task_without_a_published_base_has_nothing_to_start_from(tmp_path):
    bare = toys.filled(tmp_path / "bare")
    allow_rounds(bare)
    with pytest.raises(NotReady):
        all_series.create(bare, "toy", PLAN, now=0.0)


def test_a_board_that_comes_again_gets_the_same_invitation(cloud, clock, players):
    made = begun(cloud, clock)
    gathered(players, made.id)
    first = players[0].join()
    assert players[0].join() == first
    assert first.number == 1
    assert first.board == players[0].id
    players[0].play()
    assert players[0].join() is None  # it has answered


def test_an_update_sent_twice_counts_once_and_gets_the_same_answer(cloud, clock, players):
    made = begun(cloud, clock)
    gathered(players, made.id)
    invitation = players[0].join()
    upload = players[0].update(invitation)
    assert players[0].send(invitation, *upload).json() == {"accepted": True, "counts": 0}
    assert players[0].send(invitation, *upload).json() == {"accepted": False, "counts": 0}
    assert players[1].play().status_code == 200
    clock.now += PLAN.deadline_s
    assert move_on(cloud, made.id, clock).history[0].answered == 2
    assert players[0].send(invitation, *upload).json() == {"accepted": False, "counts": 1}  # replayed: as it was


def test_a_second_update_to_the_same_round_is_a_conflict(cloud, clock, players, code):
    made = begun(cloud, clock)
    gathered(players, made.id)
    invitation = players[0].join()
    upload_id, body = players[0].update(invitation)
    assert players[0].send(invitation, upload_id, body).status_code == 200
    assert code(players[0].send(invitation, *players[0].update(invitation))) == (409, "conflict")
    other = players[0].update(invitation, 3.0, upload_id=upload_id)
    assert code(players[0].send(invitation, *other)) == (409, "conflict")


def test_the_deadline_closes_a_round_with_its_quorum(cloud, clock, players):
    made = begun(cloud, clock)
    gathered(players, made.id)
    invitation = players[2].join()
    players[0].play()
    players[1].play()
    assert move_on(cloud, made.id, clock).history[0].state == "open"  # the third may still come
    clock.now += PLAN.deadline_s
    told = move_on(cloud, made.id, clock).history[0]
    assert (told.state, told.answered, told.silent) == ("closed", 2, 1)
    answer = players[2].send(invitation, *players[2].update(invitation))
    assert (answer.status_code, answer.json()["error"]["code"]) == (410, "gone")
    assert status(cloud, made.id, now=clock()).history[0].late == 1


def test_slow_is_not_dead(cloud, clock, players):
    made = begun(cloud, clock)
    gathered(players, made.id)
    slow = players[2].join()
    players[0].play()
    players[1].play()
    for _ in range(3):
        clock.now += PLAN.silence_s * 0.9
        assert players[2].sign(slow).json() == {"wanted": True}
        assert move_on(cloud, made.id, clock).history[0].state == "open"
    clock.now += PLAN.silence_s * 1.1  # now it is silent
    assert move_on(cloud, made.id, clock).history[0].state == "closed"
    assert players[2].sign(slow).json() == {"wanted": False}


def test_who_gives_up_is_not_waited_for(cloud, clock, players):
    made = begun(cloud, clock)
    gathered(players, made.id)
    leaving = players[2].join()
    players[0].play()
    players[1].play()
    players[2].sign(leaving, Sign("giving-up"))
    assert move_on(cloud, made.id, clock).history[0].state == "closed"


def test_rounds_without_a_quorum_fail_and_too_many_stop_the_series(cloud, clock, players):
    made = begun(cloud, clock, failures=2)
    for _ in range(2):
        gathered(players, made.id)
        players[0].play()
        clock.now += PLAN.deadline_s
        told = move_on(cloud, made.id, clock)
    assert (told.state, told.closed, told.failed) == ("failed", 0, 2)
    assert "1 of 3 invited boards" in told.reason
    assert all_series.resume(cloud, made.id, now=clock())
    gathered(players, made.id)
    assert [player.play().status_code for player in players] == [200] * 3
    assert move_on(cloud, made.id, clock).closed == 1


def test_nobody_comes_and_the_round_fails_all_the_same(cloud, clock, players):
    made = begun(cloud, clock, failures=1)
    clock.now += PLAN.gather_s
    told = move_on(cloud, made.id, clock)
    assert (told.state, told.reason) == ("failed", "1 rounds in a row failed: 0 boards came, the quorum is 2")


def test_a_stopped_series_invites_nobody_but_keeps_what_comes(cloud, clock, players):
    made = begun(cloud, clock)
    gathered(players, made.id)
    invitations = [player.join() for player in players]
    assert all_series.stop(cloud, made.id, now=clock())
    assert not all_series.stop(cloud, made.id, now=clock())
    assert players[0].join() is None
    clock.now += 10 * PLAN.deadline_s
    for player, invitation in zip(players, invitations, strict=True):
        assert player.send(invitation, *player.update(invitation)).status_code == 200
    assert move_on(cloud, made.id, clock).history[0].state == "open"
    all_series.resume(cloud, made.id, now=clock())
    assert move_on(cloud, made.id, clock).history[0].answered == 3


def test_a_revoked_boards_update_does_not_count(cloud, clock, players, code):
    made = begun(cloud, clock)
    gathered(players, made.id)
    invitation = players[2].join()
    late = players[2].update(invitation)
    headers = players[2].headers()
    for player in players[:2]:
        player.play()
    gone = players[1]
    boards.revoke(cloud, gone.id, now=clock())
    assert players[2].send(invitation, *late).status_code == 200
    told = move_on(cloud, made.id, clock)
    assert told.history[0].answered == 2
    boards.revoke(cloud, players[2].id, now=clock())
    answer = players[2].client.post("/v1/tasks/toy/rounds/join", content=b"{}", headers=headers)
    assert code(answer) == (403, "revoked")


def test_models_of_any_round_and_of_any_board_can_be_fetched(cloud, clock, players):
    made = begun(cloud, clock, rounds=3, kept_updates=1)
    for number in range(3):
        gathered(players, made.id)
        for player in players:
            player.play(0.1, score=(0.5, 0.9, 0.2)[number])
        move_on(cloud, made.id, clock)
    told = status(cloud, made.id, now=clock())
    assert [r.score for r in told.history] == [pytest.approx(0.9), pytest.approx(0.2), None]
    assert (told.best_round, results.fetch(cloud, made.id, "best").number) == (1, 1)
    assert a_bias(cloud, made.id, "2") - a_bias(cloud, made.id, "1") == pytest.approx(0.1)
    own = results.fetch_of_board(cloud, made.id, "3", players[0].id).weights
    alone = tensors.unpack(own, what="weights", limit_bytes=1 << 20)[0]["head.bias"][0]
    assert alone == pytest.approx(a_bias(cloud, made.id, "3"))
    with pytest.raises(Exception, match="not kept"):
        results.fetch_of_board(cloud, made.id, "1", players[0].id)


def test_publishing_makes_the_model_the_next_base_once(cloud, clock, players):
    made = begun(cloud, clock, rounds=1)
    gathered(players, made.id)
    for player in players:
        player.play(0.5)
    move_on(cloud, made.id, clock)
    done = results.publish(cloud, made.id, "last", now=clock())
    assert (done.changed, done.record.base.version) == (True, made.base.version + 1)
    assert not results.publish(cloud, made.id, "last", now=clock()).changed
    old = cloud.blobs.read(made.base.onnx.digest)
    assert len(cloud.blobs.read(done.record.base.onnx.digest)) == len(old)
    assert cloud.blobs.read(done.record.base.onnx.digest) != old


def test_a_server_that_dies_while_it_counts_ends_with_the_same_bits(cloud, clock, players):
    made = begun(cloud, clock, rounds=1, algorithm="dp-fedavg", cohort=3)
    move_on(cloud, made.id, clock)
    freeze(cloud, clock, made, players)
    first, second = counting.count(cloud, made, 1), counting.count(cloud, made, 1)
    assert first == second
    all_series.resume(cloud, made.id, now=clock())
    assert move_on(cloud, made.id, clock).state == "finished"
    with cloud.database.reading() as connection:
        assert all_series.last_server(connection, made) == first.server


def test_two_referees_close_a_round_once(cloud, clock, players):
    made = begun(cloud, clock)
    gathered(players, made.id)
    with held(cloud, made.id):
        assert [player.play().status_code for player in players] == [200] * 3
        with pytest.raises(Busy):
            referee.advance(cloud, made.id, clock=clock)
    told = move_on(cloud, made.id, clock)
    assert [r.state for r in told.history] == ["closed", "gathering"]


def test_buffered_rounds_count_late_updates_for_less(cloud, clock, players):
    made = begun(cloud, clock, algorithm="fedbuff", quorum=2, rounds=2)
    slow = players[2].join()
    late = players[2].update(slow, 1.0)
    for player in players[:2]:
        assert player.play(0.0).status_code == 200
    assert move_on(cloud, made.id, clock).closed == 1
    before = a_bias(cloud, made.id)
    assert players[2].send(slow, *late).status_code == 200
    players[0].play(0.0)
    told = move_on(cloud, made.id, clock)
    assert (told.state, told.history[1].answered) == ("finished", 2)
    assert a_bias(cloud, made.id) - before == pytest.approx(2**-0.5 / 2)


def test_updates_that_wait_in_a_buffer_outlive_a_failed_round(cloud, clock, players):
    made = begun(cloud, clock, algorithm="fedbuff", quorum=2, rounds=1)
    assert players[0].play(1.0).status_code == 200
    clock.now += PLAN.deadline_s
    assert move_on(cloud, made.id, clock).failed == 1
    assert players[1].play(1.0).status_code == 200
    told = move_on(cloud, made.id, clock)
    assert (told.state, told.history[1].answered) == ("finished", 2)


def test_boards_are_asked_by_profile_network_heat_and_samples(cloud, clock, players):
    begun(cloud, clock, networks=("ethernet",), max_temperature_c=60.0, min_samples=5)
    assert "not invited yet" in players[0].ask(network="ethernet", temperature_c=50.0).json()["note"]
    assert "too hot" in players[0].ask(network="ethernet", temperature_c=70.0).json()["note"]
    assert "'wifi'" in players[0].ask(network="wifi").json()["note"]
    players[0].samples = 2
    assert "less than 5" in players[0].ask(network="ethernet").json()["note"]


def test_boards_of_other_profiles_are_not_asked(cloud, clock, players):
    begun(cloud, clock, profiles=("jetson-nano",))
    assert "profile" in players[0].ask().json()["note"]


def test_a_task_that_allows_rounds_no_longer_invites_nobody(cloud, clock, players):
    begun(cloud, clock)
    toys.publish_changed(cloud)
    assert "no rounds are running" in players[0].ask().json()["note"]


def test_who_was_away_longest_is_asked_first(cloud, clock, players):
    made = begun(cloud, clock, selection="absent", cohort=2, rounds=3)
    gathered(players, made.id)
    first = [player for player in players if player.join()]
    for player in first:
        player.play()
    move_on(cloud, made.id, clock)
    gathered(players, made.id)
    left_out = next(player for player in players if player not in first)
    assert left_out.join() is not None


def test_the_same_seed_draws_the_same_cohort(cloud, clock, players):
    drawn = []
    for _ in range(2):
        made = begun(cloud, clock, cohort=2, seed=5)
        gathered(players, made.id)
        drawn.append({player.id for player in players if player.join()})
        all_series.stop(cloud, made.id, now=clock())
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 2


def test_memory_goes_with_the_last_update_that_counts(cloud, clock, players):
    made = begun(cloud, clock, algorithm="scaffold", rounds=3)
    gathered(players, made.id)
    sent = {}
    for player in players:
        invitation = player.join()
        assert invitation.memory == ""
        sent[player.id], body = player.update(invitation)
        assert player.send(invitation, sent[player.id], body).status_code == 200
    move_on(cloud, made.id, clock)
    gathered(players, made.id)
    assert {player.id: player.join().memory for player in players} == sent
    players[0].play()
    clock.now += PLAN.deadline_s
    assert move_on(cloud, made.id, clock).failed == 1  # one of three: what it sent does not count
    gathered(players, made.id)
    assert players[0].join().memory == sent[players[0].id]


def test_rounds_are_not_collected_as_garbage(cloud, clock, players):
    from cloud_aug import garbage

    made = begun(cloud, clock)
    gathered(players, made.id)
    players[0].play()
    garbage.collect(cloud, grace_s=0.0, now=clock() + 1e6)
    assert [player.play().status_code for player in players[1:]] == [200, 200]
    assert move_on(cloud, made.id, clock).closed == 1


def test_a_damaged_update_is_left_out_and_the_round_goes_on(cloud, clock, players):
    made = begun(cloud, clock)
    gathered(players, made.id)
    freeze(cloud, clock, made, players)
    with cloud.database.reading() as connection:
        row = connection.execute(db.updates.select().where(db.updates.c.board == players[0].id)).one()
    cloud.blobs.remove(row.digest)
    all_series.resume(cloud, made.id, now=clock())
    told = move_on(cloud, made.id, clock).history[0]
    assert (told.state, told.answered) == ("closed", 2)


@pytest.mark.parametrize("column", ["server", "order_blob"])
def test_weights_that_are_damaged_stop_the_series_with_a_reason_and_lose_no_update(cloud, clock, players, column):
    made = begun(cloud, clock, algorithm="scaffold")
    gathered(players, made.id)
    freeze(cloud, clock, made, players)
    with cloud.database.reading() as connection:
        digest = getattr(all_series.last_round(connection, made.id), column)
    whole = cloud.blobs.read(digest)
    receiving.shapes.cache_clear()
    cloud.blobs.remove(digest)
    with cloud.database.writing() as connection:  # as it was when its blob was lost
        all_series.set_state(connection, made.id, "running", "", now=clock())
    told = move_on(cloud, made.id, clock)
    assert (told.state, "cannot be counted" in told.reason) == ("failed", True)
    cloud.blobs.put(whole)  # a person has restored it
    all_series.resume(cloud, made.id, now=clock())
    assert move_on(cloud, made.id, clock).history[0].answered == 3


def test_an_algorithm_that_breaks_fails_the_round_and_nothing_else(cloud, clock, players, monkeypatch):
    def broken(*_arguments):
        raise ZeroDivisionError("by nobody")

    monkeypatch.setattr(FedMedian, "combine", broken)
    made = begun(cloud, clock, algorithm="median", failures=1)
    gathered(players, made.id)
    for player in players:
        player.play()
    told = move_on(cloud, made.id, clock)
    assert (told.state, told.history[0].state) == ("failed", "failed")
    assert told.history[0].reason == "the algorithm failed: ZeroDivisionError: by nobody"


def test_numbers_that_would_not_be_finite_fail_the_round(cloud, clock, players):
    made = begun(cloud, clock, max_norm=1e300, options={"server_rate": 1e38})
    gathered(players, made.id)
    for player in players:
        player.play(1e30)
    told = move_on(cloud, made.id, clock)
    assert (told.failed, told.history[0].reason) == (1, "the weights would not have been finite numbers")
    assert np.isfinite(players[0].order(players[0].join() or _invited(players, made)).main["head.bias"]).all()


def _invited(players, made):
    gathered(players, made.id)
    return players[0].join()


LARGE = replace(toys.TASK, id="toy-large", model=ModelSpec("mlp", width=24, embedding=8))


def with_large(cloud: Cloud) -> None:
    """A second task of the same samples, with a wider model and a published base."""
    now = time.time()
    tasks.publish(cloud, LARGE, now=now)
    pool.ingest(
        cloud, toys.data_file(cloud.settings.data / "large.npz"), LARGE.id, pool.Consent("packs", toys.FAR), now=now
    )
    pretrain.train(cloud, LARGE.id, pretrain.TrainSettings(epochs=2, rehearse=False), now=now, on_progress=toys.quiet)
    index.build(cloud, LARGE.id, seed=0, now=now, on_progress=toys.quiet)


def test_the_base_of_another_task_learns_with_that_of_boards_and_becomes_its_next_one(cloud, clock, players):
    with_large(cloud)
    made = begun(cloud, clock, algorithm="mutual", peer=LARGE.id, rounds=1)
    gathered(players, made.id)
    before = float(players[0].order(players[0].join()).main["head.bias"][0])
    assert set(players[0].order(players[0].join()).extra) == set()  # boards hear nothing of the other model
    for player in players:
        assert player.play(0.5).status_code == 200
    assert move_on(cloud, made.id, clock).state == "finished"
    assert a_bias(cloud, made.id) != pytest.approx(before + 0.5)  # it learned after the mean, too
    large, _ = tensors.unpack(results.fetch(cloud, made.id, "last", peer=True).weights, what="", limit_bytes=1 << 20)
    base, _ = tensors.unpack(cloud.blobs.read(made.peer.base.weights.digest), what="", limit_bytes=1 << 20)
    assert {name: array.shape for name, array in large.items()} == {name: array.shape for name, array in base.items()}
    assert (large["head.bias"] != base["head.bias"]).any()
    assert (large["front.mean"] == base["front.mean"]).all()
    done = results.publish(cloud, made.id, "last", peer=True, now=clock())
    assert (done.record.task, done.record.base.version, done.changed) == (LARGE.id, made.peer.base.version + 1, True)
    assert not results.publish(cloud, made.id, "last", peer=True, now=clock()).changed
    assert results.publish(cloud, made.id, "last", now=clock()).record.task == "toy"


def test_two_models_that_learn_end_with_the_same_bits_however_often_they_are_counted(cloud, clock, players):
    with_large(cloud)
    made = begun(cloud, clock, algorithm="mutual", peer=LARGE.id, rounds=1)
    gathered(players, made.id)
    freeze(cloud, clock, made, players)
    first, cores = counting.count(cloud, made, 1), torch.get_num_threads()
    assert not first.problem
    torch.set_num_threads(cores + 1)  # another machine
    assert counting.count(cloud, made, 1) == first
    assert torch.get_num_threads() == 1


def test_a_peer_must_be_another_task_of_the_same_samples(cloud, clock, players):
    tasks.publish(cloud, replace(LARGE, id="other", labels=("a", "b", "c")), now=clock())
    for peer, why in (("toy", "cannot learn with"), ("other", "cannot learn with"), ("", "needs a task")):
        with pytest.raises(UsageError, match=why):
            begun(cloud, clock, algorithm="mutual", peer=peer)
    with pytest.raises(UsageError, match="learns with no other model"):
        begun(cloud, clock, peer="toy-large")
    tasks.publish(cloud, LARGE, now=clock())
    with pytest.raises(NotReady):  # it has no base
        begun(cloud, clock, algorithm="mutual", peer=LARGE.id)
    made = begun(cloud, clock)
    gathered(players, made.id)
    for player in players:
        player.play(0.5)
    move_on(cloud, made.id, clock)
    with pytest.raises(UsageError, match="no other model learned"):
        results.fetch(cloud, made.id, "last", peer=True)
