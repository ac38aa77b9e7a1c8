"""What is told of rounds: scores, privacy, who is there, and what each board was worth."""

from __future__ import annotations

import threading

import pytest
import sqlalchemy as sa

from cloud_aug.rounds import results, turns
from cloud_aug.rounds.status import DELTA, status
from edgelearn.privacy.accountant import gaussian_epsilon
from edgewire.errors import NotFound, UsageError
from tests.cloud.players import PLAN, Player, begun, gathered, move_on

BACKENDS = ("files",)


@pytest.fixture
def players(client, cloud, clock):
    return [Player(client, cloud, clock) for _ in range(3)]


def test_a_model_is_judged_by_who_gets_it_also_after_a_round_that_failed(cloud, clock, players):
    made = begun(cloud, clock, rounds=3)
    for score in (0.3, None, 0.8):
        gathered(players, made.id)
        for player in players if score is not None else ():
            player.play(0.1, score=score)
        clock.now += PLAN.deadline_s if score is None else 0
        told = move_on(cloud, made.id, clock)
    assert [one.state for one in told.history[:3]] == ["closed", "failed", "closed"]
    assert [one.score for one in told.history[:3]] == [pytest.approx(0.8), None, None]
    assert told.best_round == results.fetch(cloud, made.id, "best").number == 1


def test_what_was_refused_or_late_has_reached_the_server_and_costs_privacy(cloud, clock, players):
    made = begun(cloud, clock, noise=1.0)
    assert status(cloud, made.id, now=clock()).epsilon == gaussian_epsilon(1.0, 0, DELTA)
    gathered(players, made.id)
    invitation = players[0].join()
    assert players[0].send(invitation, "0" * 32, b"rubbish" * 9).status_code == 422
    assert status(cloud, made.id, now=clock()).epsilon == gaussian_epsilon(1.0, 1, DELTA)


def test_a_board_that_tries_again_and_again_is_one_that_was_late_or_refused(cloud, clock, players):
    made = begun(cloud, clock)
    gathered(players, made.id)
    late, wrong = players[0].join(), players[1].join()
    upload = players[0].update(late)
    for _ in range(3):
        assert players[1].send(wrong, "0" * 32, b"rubbish" * 9).status_code == 422
    clock.now += PLAN.deadline_s
    move_on(cloud, made.id, clock)
    for _ in range(3):
        assert players[0].send(late, *upload).status_code == 410
    told = status(cloud, made.id, now=clock()).history[0]
    assert (told.late, told.refused) == (1, 1)


def test_only_who_came_lately_is_there(cloud, clock, players):
    made = begun(cloud, clock, quorum=3, gather_s=7200)
    players[0].join()
    assert status(cloud, made.id, now=clock()).present == 1
    assert status(cloud, made.id, now=clock() + 7200 + PLAN.silence_s + 1).present == 0


def test_what_each_board_was_worth_is_kept_and_shown(cloud, clock, players):
    made = begun(cloud, clock, algorithm="leave-one-out", rounds=1)
    gathered(players, made.id)
    for player, value in zip(players[:2], (0.0, -0.2), strict=True):
        assert player.play(value, energy_j=2.5).status_code == 200
    players[2].join()
    clock.now += PLAN.deadline_s
    move_on(cloud, made.id, clock)
    number, found = turns.of_round(cloud, made.id, "last", now=clock())
    told = {one.board: one for one in found}
    good, bad, silent = (told[player.id] for player in players)
    assert (number, good.fate, bad.fate, silent.fate) == (1, "counted", "counted", "silent")
    assert good.worth > 0 > bad.worth
    assert (silent.worth, silent.samples, good.energy_j) == (None, None, 2.5)
    with pytest.raises(NotFound, match="no round 9; cloud-aug round status"):
        turns.of_round(cloud, made.id, "9", now=clock())


def test_of_gradients_that_changed_no_model_of_a_board_is_made(cloud, clock, players):
    made = begun(cloud, clock, algorithm="fedlaavg", rounds=1)
    gathered(players, made.id)
    for player in players:
        assert player.play().status_code == 200
    assert move_on(cloud, made.id, clock).state == "finished"
    with pytest.raises(UsageError, match="no model of theirs"):
        results.fetch_of_board(cloud, made.id, "1", players[0].id)


def test_how_a_series_stands_takes_no_more_questions_the_longer_it_is(cloud, clock, players):
    made = begun(cloud, clock, algorithm="fedbuff", rounds=9)
    asked, me = [], threading.get_ident()  # the service's own thread asks, too

    def seen(*_):
        asked.append(threading.get_ident() == me)

    def questions():
        asked.clear()
        told = status(cloud, made.id, now=clock())
        return asked.count(True), len(told.history)

    sa.event.listen(cloud.database.engine, "before_cursor_execute", seen)
    try:
        few, _ = questions()
        for _ in range(3):
            for player in players[:2]:
                assert player.play().status_code == 200
            move_on(cloud, made.id, clock)
        assert questions() == (few, 4)
    finally:
        sa.event.remove(cloud.database.engine, "before_cursor_execute", seen)
