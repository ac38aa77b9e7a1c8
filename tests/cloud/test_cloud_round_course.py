"""How a series goes on: what waits is never lost, who never answers keeps nobody else, and what is stuck says why."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from cloud_aug import db
from cloud_aug.rounds import attendance, counting, referee
from cloud_aug.rounds import series as all_series
from cloud_aug.rounds.plan import Plan
from cloud_aug.rounds.status import status
from edgewire.errors import CorruptFile, UsageError
from edgewire.rounds import Sign
from tests.cloud import toys
from tests.cloud.players import PLAN, Player, allow_rounds, begun, gathered, move_on
from tests.cloud.test_cloud_rounds import a_bias, freeze

BACKENDS = ("files",)


@pytest.fixture
def players(client, cloud, clock):
    made = [Player(client, cloud, clock) for _ in range(3)]
    return sorted(made, key=lambda player: player.id)


def counted(cloud):
    with cloud.database.reading() as connection:
        rows = connection.execute(db.updates.select()).all()
    return {row.board: (row.counted_in, row.dropped) for row in rows}


def give_up(player):
    player.sign(player.join(), Sign("giving-up"))


# Nothing that is acknowledged is lost where nobody is waited for


@pytest.mark.parametrize(("staleness", "code", "fate"), [(0, 410, None), (1, 200, (2, ""))])
def test_while_a_round_closes_only_what_the_next_will_count_is_taken(cloud, clock, players, staleness, code, fate):
    made = begun(cloud, clock, algorithm="fedbuff", rounds=2, staleness=staleness)
    late = players[2].join()
    freeze(cloud, clock, made, players[:2])
    assert players[2].send(late, *players[2].update(late)).status_code == code
    all_series.resume(cloud, made.id, now=clock())
    assert move_on(cloud, made.id, clock).closed == 1
    for player in players[: 2 if fate is None else 1]:
        player.play()
    assert move_on(cloud, made.id, clock).state == "finished"
    assert counted(cloud).get(players[2].id) == fate


def test_a_round_that_fails_makes_nothing_older(cloud, clock, players):
    made = begun(cloud, clock, algorithm="fedbuff", rounds=1, staleness=0)
    start = float(players[0].order(players[0].join()).main["head.bias"][0])
    assert players[0].play(1.0).status_code == 200
    clock.now += PLAN.deadline_s
    assert move_on(cloud, made.id, clock).failed == 1
    assert players[1].play(1.0).status_code == 200
    told = move_on(cloud, made.id, clock)
    assert (told.state, told.history[1].answered) == ("finished", 2)
    assert a_bias(cloud, made.id) - start == pytest.approx(1.0)  # neither counts for less


def test_where_nobody_is_waited_for_a_board_has_its_whole_time_whenever_it_comes(cloud, clock, players):
    made = begun(cloud, clock, algorithm="fedbuff", rounds=1, deadline_s=600)
    clock.now += 590
    slow = players[0].join()
    assert slow.until == clock() + 600
    clock.now += 20
    move_on(cloud, made.id, clock)
    assert players[0].join() == slow
    clock.now = slow.until - 1
    assert players[0].send(slow, *players[0].update(slow)).status_code == 200


# Who is asked


def test_who_gives_up_is_not_asked_first_again(cloud, clock, players):
    made = begun(cloud, clock, selection="absent", cohort=1, quorum=1, failures=9)
    asked = []
    for _ in players:
        gathered(players, made.id)
        [invited] = [player for player in players if player.join() is not None]
        give_up(invited)
        move_on(cloud, made.id, clock)
        asked.append(invited.id)
    assert sorted(asked) == [player.id for player in players]


def test_who_gave_up_three_times_in_a_row_is_left_out_for_three_rounds(cloud, clock, players):
    made = begun(cloud, clock, rounds=9)
    invited = []
    for _ in range(7):
        gathered(players, made.id)
        invited.append(players[2].join() is not None)
        if invited[-1]:
            give_up(players[2])
        for player in players[:2]:
            assert player.play().status_code == 200
        move_on(cloud, made.id, clock)
    assert invited == [True, True, True, False, False, False, True]


def test_who_is_too_slow_three_times_in_a_row_is_left_out_for_three_rounds(cloud, clock, players):
    made = begun(cloud, clock, rounds=9)
    invited = []
    for _ in range(7):
        gathered(players, made.id)
        slow = players[2].join()
        invited.append(slow is not None)
        for player in players[:2]:
            assert player.play().status_code == 200
        if slow is not None:
            assert players[2].sign(slow).json() == {"wanted": True}
            clock.now += PLAN.deadline_s
        move_on(cloud, made.id, clock)
    assert invited == [True, True, True, False, False, False, True]


def test_who_became_too_hot_while_boards_gather_is_not_drawn(cloud, clock, players):
    made = begun(cloud, clock, max_temperature_c=60.0)
    players[2].ask(temperature_c=50.0)
    assert "too hot" in players[2].ask(temperature_c=70.0).json()["note"]
    clock.now += 30
    for player in players[:2]:
        player.join(temperature_c=50.0)
    clock.now += PLAN.gather_s - 30
    assert move_on(cloud, made.id, clock).history[0].invited == 2


def test_while_nothing_runs_boards_ask_often_enough_for_the_first_round_of_a_series(cloud, clock, players):
    assert players[0].ask().json()["wait_s"] <= Plan().gather_s / 2


def test_who_has_more_samples_than_an_update_may_claim_does_not_train_in_vain(cloud, clock, players):
    begun(cloud, clock, max_samples=9)
    assert "more than 9 samples" in players[0].ask().json()["note"]


def test_where_too_few_would_be_left_everybody_is_asked(cloud, clock, players):
    made = begun(cloud, clock, failures=9)
    for _ in range(4):
        gathered(players, made.id)
        for player in players[1:]:
            give_up(player)
        players[0].play()
        move_on(cloud, made.id, clock)
    assert [one.invited for one in status(cloud, made.id, now=clock()).history[:4]] == [3] * 4


def test_coins_follow_from_what_only_the_service_knows(cloud, clock, players):
    made = begun(cloud, clock, algorithm="dp-fedavg", seed=5, cohort=2)
    with cloud.database.reading() as connection:
        drawn = [
            tuple(attendance.draw(connection, made, SimpleNamespace(number=1, entropy=bytes([n] * 16)), now=clock()))
            for n in [*range(16), 0]
        ]
    assert len(set(drawn)) > 1
    assert drawn[0] == drawn[-1]


def test_of_a_fleet_that_grew_no_more_boards_are_drawn_by_coin_than_their_sum_is_divided_by(cloud, clock, players):
    made = begun(cloud, clock, algorithm="dp-fedavg", cohort=9)
    for _ in range(9):
        Player(players[0].client, cloud, clock)
    with cloud.database.reading() as connection:
        sizes = [
            len(attendance.draw(connection, made, SimpleNamespace(number=1, entropy=bytes([n] * 16)), now=clock()))
            for n in range(200)
        ]
    assert sum(sizes) / len(sizes) == pytest.approx(len(players), abs=0.5)


@pytest.mark.parametrize("algorithm", ["scaffold", "fedlaavg"])
def test_no_more_boards_take_part_than_what_they_ever_sent_is_divided_by(cloud, clock, players, algorithm):
    made = begun(cloud, clock, algorithm=algorithm, rounds=3, cohort=9)
    fleet = sorted([*players, *(Player(players[0].client, cloud, clock) for _ in range(2))], key=lambda one: one.id)
    for _ in range(2):
        for player in fleet:
            player.join()
        clock.now += PLAN.gather_s
        move_on(cloud, made.id, clock)
        invited = [player for player in fleet if player.join() is not None]
        assert invited == fleet[: made.boards]
        for player in invited:
            assert player.play(memory=player.join().memory).status_code == 200
        move_on(cloud, made.id, clock)


# What stops a series, and what does not


def test_after_resume_rounds_that_failed_before_do_not_count_again(cloud, clock, players):
    made = begun(cloud, clock, failures=2)
    for _ in range(2):
        clock.now += PLAN.gather_s
        told = move_on(cloud, made.id, clock)
    assert told.state == "failed"
    clock.now += 1
    all_series.resume(cloud, made.id, now=clock())
    clock.now += PLAN.gather_s
    assert move_on(cloud, made.id, clock).state == "running"
    clock.now += PLAN.gather_s
    assert move_on(cloud, made.id, clock).state == "failed"


def test_a_count_that_cannot_go_on_says_why_and_is_tried_again_less_and_less_often(cloud, clock, players, monkeypatch):
    made = begun(cloud, clock)
    gathered(players, made.id)
    freeze(cloud, clock, made, players)
    whole, tries = counting.count, []

    def full(*arguments):
        tries.append(arguments)
        raise OSError("no space left on device")

    monkeypatch.setattr(counting, "count", full)
    with cloud.database.writing() as connection:  # the service's own thread is not woken
        all_series.set_state(connection, made.id, "running", "", now=clock())
    seconds = toys.Clock(0.0)
    stuck = referee.Stuck(1.0, seconds)
    while not stuck.rests(made.id):  # the service's own thread may be at it
        referee.advance_all(cloud, clock=clock, stuck=stuck)
        time.sleep(0.01)
    told = status(cloud, made.id, now=clock()).history[0]
    assert (told.state, told.reason) == ("closing", "waits: no space left on device")
    pauses = []
    for _ in range(8):
        before = seconds.now
        while stuck.rests(made.id):
            seconds.now += 1
        pauses.append(seconds.now - before)
        stuck.again(made.id)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert tries
    monkeypatch.setattr(counting, "count", whole)
    told = move_on(cloud, made.id, clock).history[0]
    assert (told.state, told.reason) == ("closed", "")


def test_what_kept_a_round_for_a_moment_is_not_told_for_ever(cloud, clock, players, monkeypatch):
    made = begun(cloud, clock)
    moved, seconds, here = referee.advance, toys.Clock(0.0), threading.get_ident()

    def away(*arguments, **named):
        if threading.get_ident() == here:
            raise OSError("the store is away")
        return moved(*arguments, **named)

    stuck = referee.Stuck(1.0, seconds)
    monkeypatch.setattr(referee, "advance", away)
    referee.advance_all(cloud, clock=clock, stuck=stuck)
    assert status(cloud, made.id, now=clock()).history[0].reason == "waits: the store is away"
    monkeypatch.setattr(referee, "advance", moved)
    while stuck.rests(made.id):
        seconds.now += 1
    while status(cloud, made.id, now=clock()).history[0].reason:  # the service's own thread may be at it
        referee.advance_all(cloud, clock=clock, stuck=stuck)
    assert status(cloud, made.id, now=clock()).history[0].state == "gathering"


@pytest.mark.parametrize("damaged", [False, True])
def test_a_series_that_is_stopped_while_it_counts_stays_stopped(cloud, clock, players, monkeypatch, damaged):
    made = begun(cloud, clock)
    gathered(players, made.id)
    freeze(cloud, clock, made, players)
    whole = counting.count

    def meanwhile(*arguments):
        found = whole(*arguments)
        all_series.stop(cloud, made.id, now=clock())
        if damaged:
            raise CorruptFile("weights are damaged")
        return found

    monkeypatch.setattr(counting, "count", meanwhile)
    all_series.resume(cloud, made.id, now=clock())
    told = move_on(cloud, made.id, clock)
    assert (told.state, told.history[-1].number, told.history[-1].state) == ("stopped", 1, "closing")
    monkeypatch.setattr(counting, "count", whole)
    all_series.resume(cloud, made.id, now=clock())
    assert move_on(cloud, made.id, clock).history[0].answered == 3


@pytest.mark.parametrize("algorithm", ["fedavg", "fedbuff", "dp-fedavg"])
def test_a_policy_that_was_recalled_is_what_a_round_fails_of(cloud, clock, players, algorithm):
    allow_rounds(cloud)
    made = all_series.create(cloud, "toy", replace(PLAN, algorithm=algorithm, failures=1), now=clock())
    toys.publish_changed(cloud)
    all_series.start(cloud, made.id, now=clock())
    clock.now += PLAN.deadline_s
    told = move_on(cloud, made.id, clock)
    assert told.state == "failed"
    assert told.history[0].reason == "task 'toy' does not allow federated rounds any more"


def test_a_round_in_which_no_weight_is_left_fails_with_its_reason(cloud, clock, players):
    made = begun(cloud, clock, algorithm="leave-one-out", options={"margin": -1e9}, rounds=1)
    gathered(players, made.id)
    for player in players:
        assert player.play().status_code == 200
    told = move_on(cloud, made.id, clock).history[0]
    assert (told.state, told.reason) == ("failed", "none of 3 updates is worth counting, with a margin of -1e+09")


def test_a_plan_says_what_its_algorithm_makes_nothing_of():
    krum = replace(PLAN, algorithm="multi-krum", cohort=9, quorum=5)
    assert krum.problems() == []
    assert "nothing of 4 updates" in replace(krum, quorum=4).problems()[0]
    assert "nothing of 5 updates" in replace(krum, options={"attackers": 2.0}).problems()[0]
    trimmed = replace(PLAN, algorithm="trimmed-mean", cohort=9, quorum=3)
    assert trimmed.problems() == []
    assert "nothing of 4 updates" in replace(trimmed, options={"share": 0.3}).problems()[0]
    alone = replace(PLAN, algorithm="leave-one-out", quorum=1)
    assert "nothing of 1 updates" in alone.problems()[0]
    assert "nothing to select" in replace(PLAN, algorithm="dp-fedavg", selection="absent").problems()[0]


@pytest.mark.parametrize("algorithm", ["median", "leave-one-out"])
def test_a_cohort_that_does_not_fit_into_memory_is_refused(cloud, clock, players, monkeypatch, algorithm):
    made = begun(cloud, clock)
    with cloud.database.reading() as connection:
        size = all_series.last_round(connection, made.id).order_bytes
    monkeypatch.setattr(all_series, "AT_ONCE_LIMIT_BYTES", 8 * size)
    plan = replace(PLAN, algorithm=algorithm, cohort=9)
    with pytest.raises(UsageError, match="holds all updates of a round in memory") as refused:
        all_series.create(cloud, "toy", plan, now=clock())
    assert refused.value.hint == "a cohort of 8 would do"
    all_series.create(cloud, "toy", replace(plan, cohort=8), now=clock())
    all_series.create(cloud, "toy", replace(plan, algorithm="fedavg"), now=clock())
