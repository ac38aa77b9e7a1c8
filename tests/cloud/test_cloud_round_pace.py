"""Rounds that follow boards' pace: measured here, bound into the order, and the same after a service was killed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from msgspec import UNSET
from starlette.testclient import TestClient

from cloud_aug import db, migrations, settings
from cloud_aug.app import create_app
from cloud_aug.database import Database
from cloud_aug.rounds import counting, pacing
from cloud_aug.rounds import series as all_series
from cloud_aug.rounds.plan import RULES
from cloud_aug.rounds.status import status
from edgewire.decoding import encode
from edgewire.errors import UsageError
from edgewire.rounds import UPDATE_LIMIT_BYTES, pack_update, unpack_update
from tests.cloud.players import PLAN, Player, begun, gathered, move_on

BACKENDS = ("files",)
EVEN, UNEVEN = (10.0, 10.0, 10.0, 10.0), (10.0, 10.0, 10.0, 20.0)  # seconds of a turn, a tenth of them network
PACED = replace(PLAN, rounds=20, cohort=4)
STEPS = 50  # that 100 samples make: five epochs of ten


@pytest.fixture
def players(client, cloud, clock):
    return [Player(client, cloud, clock, samples=100) for _ in range(4)]


def turns(players, invitations, clock, seconds, **told):
    """Everybody who has a time answers after it."""
    began = clock()
    for taken, player, invitation in sorted(zip(seconds, players, invitations, strict=True), key=lambda one: one[0]):
        clock.now = began + taken
        steps = invitation.max_steps if isinstance(invitation.max_steps, int) else STEPS
        said = {"steps": steps, "train_s": 0.9 * taken, **told}
        answer = player.send(invitation, *player.update(invitation, **said))
        assert answer.status_code == 200, answer.text


def played(cloud, clock, made, players, seconds=UNEVEN, **told):
    """A round that is waited for, to its end; the orders that boards had."""
    gathered(players, made.id)
    invitations = [player.join() for player in players]
    turns(players, invitations, clock, seconds, **told)
    move_on(cloud, made.id, clock)
    return [invitation.max_steps for invitation in invitations]


def last(cloud, made):
    with cloud.database.reading() as connection:
        return all_series.last_round(connection, made.id)


def paces(cloud):
    with cloud.database.reading() as connection:
        return {row.board: row for row in connection.execute(db.paces.select())}


def test_a_slow_board_is_ordered_fewer_steps_once_it_is_known(cloud, clock, players):
    made = begun(cloud, clock, PACED, adapt=("steps",))
    assert played(cloud, clock, made, players) == [UNSET] * 4
    assert played(cloud, clock, made, players) == [STEPS, STEPS, STEPS, 22]  # (10 - 2) s at 50 steps in 18 s
    told = status(cloud, made.id, now=clock()).history[1]
    assert (told.steps_least, told.steps_most, told.counts_by) == (22, STEPS, "fedavg")
    assert (told.expected_s, told.took_s) == (pytest.approx(10, abs=0.1), pytest.approx(10, abs=0.1))


def test_the_deadline_follows_what_most_need_and_never_exceeds_the_fixed_one(cloud, clock, players):
    made = begun(cloud, clock, PACED, adapt=("deadline",))
    gathered(players, made.id)
    assert last(cloud, made).deadline_at == clock() + PLAN.deadline_s  # nobody is known
    played(cloud, clock, made, players)
    gathered(players, made.id)
    assert last(cloud, made).deadline_at == pytest.approx(clock() + PLAN.silence_s + 1.2 * 10, abs=0.2)
    all_series.stop(cloud, made.id, now=clock())
    other = begun(cloud, clock, PACED, adapt=("deadline",), deadline_s=125)  # paces are the task's
    gathered(players, other.id)
    assert last(cloud, other).deadline_at == clock() + 125


def test_a_deadline_waits_for_a_quorum_and_after_a_failed_round_nothing_is_risked(cloud, clock, players):
    made = begun(cloud, clock, PACED, adapt=("deadline",), quorum=4)
    played(cloud, clock, made, players)
    gathered(players, made.id)
    assert last(cloud, made).deadline_at == pytest.approx(clock() + PLAN.silence_s + 1.2 * 20, abs=0.2)
    clock.now += PLAN.deadline_s
    assert move_on(cloud, made.id, clock).failed == 1
    gathered(players, made.id)
    assert last(cloud, made).deadline_at == clock() + PLAN.deadline_s


def test_who_is_cut_off_at_work_counts_as_slower(cloud, clock, players):
    made = begun(cloud, clock, PACED, adapt=("deadline", "steps"))
    played(cloud, clock, made, players, EVEN)
    gathered(players, made.id)
    slow = players[3].join()
    turns(players[:3], [player.join() for player in players[:3]], clock, EVEN[:3])
    clock.now += 100
    assert players[3].sign(slow).json() == {"wanted": True}
    clock.now = last(cloud, made).deadline_at
    assert move_on(cloud, made.id, clock).closed == 2
    assert played(cloud, clock, made, players, EVEN)[3] < STEPS / 2


def test_a_fixed_plan_knows_no_pace(cloud, clock, players):
    made = begun(cloud, clock, PACED)
    played(cloud, clock, made, players)
    assert len(paces(cloud)) == 4  # measured for the series after it
    gathered(players, made.id)
    assert last(cloud, made).deadline_at == clock() + PLAN.deadline_s
    assert b"max_steps" not in encode(players[3].join())
    told = status(cloud, made.id, now=clock()).history[1]
    assert (told.steps_most, told.expected_s) == (None, None)


@pytest.mark.parametrize("lie", [{"train_s": 1e9}, {"train_s": 0.0}, {"train_s": UNSET}, {"steps": 10**6}])
def test_a_board_that_lies_about_its_time_or_steps_is_expected_to_take_what_it_took(cloud, clock, players, lie):
    made = begun(cloud, clock, PACED, adapt=("deadline",))
    played(cloud, clock, made, players, EVEN, **lie)
    gathered(players, made.id)
    assert status(cloud, made.id, now=clock()).history[1].expected_s == pytest.approx(10, rel=0.05)


def test_more_steps_than_were_ordered_are_refused(cloud, clock, players, code):
    made = begun(cloud, clock, PACED, adapt=("steps",))
    played(cloud, clock, made, players)
    gathered(players, made.id)
    invitation = players[3].join()
    upload_id, body = players[3].update(invitation)
    parts, meta = unpack_update(body, limit_bytes=UPDATE_LIMIT_BYTES)
    more = pack_update(parts, replace(meta, steps=invitation.max_steps + 1))
    assert code(players[3].send(invitation, upload_id, more)) == (422, "invalid_message")


def test_another_service_after_a_kill_gives_the_same_orders(cloud, clock, players, data):
    made = begun(cloud, clock, PACED, adapt=("deadline", "steps"))
    played(cloud, clock, made, players)
    gathered(players, made.id)
    before, until = [player.join() for player in players], last(cloud, made).deadline_at
    with cloud.database.writing() as connection:  # it learned more meanwhile
        connection.execute(db.paces.update().values(steps_per_s=0.001))
    with TestClient(create_app(settings.load(data), clock=clock), base_url="https://localhost") as other:
        for player in players:
            player.client = other
        assert [player.join() for player in players] == before
        assert last(cloud, made).deadline_at == until


def test_stragglers_make_it_change_over_and_it_comes_back_when_they_are_fast(cloud, clock, players):
    made = begun(cloud, clock, PACED, adapt=("switch",))
    played(cloud, clock, made, players, (1.0, 1.0, 1.0, 10.0))
    seen = []
    while len(seen) < 8 and last(cloud, made).buffered:  # FedBuff's K is half of the cohort here
        two = (players[3], players[len(seen) % 3])
        turns(two, [player.join() for player in two], clock, (1.0, 1.0))
        seen.append(move_on(cloud, made.id, clock).history[-1].counts_by)
    assert seen == ["fedbuff"] * 3 + ["fedavg"]  # 10, 5.5, 3.2, 2.1, 1.6 s expected: a gain of 1.84, then of 1.42
    assert last(cloud, made).state == "gathering"
    assert played(cloud, clock, made, players, EVEN) == [UNSET] * 4
    assert [one.answered for one in status(cloud, made.id, now=clock()).history[:6]] == [4, 2, 2, 2, 2, 4]


def test_who_is_still_at_work_when_it_changes_over_counts_late(cloud, clock, players):
    made = begun(cloud, clock, PACED, adapt=("switch", "deadline"))
    played(cloud, clock, made, players, EVEN)
    gathered(players, made.id)
    slow, *_ = invitations = [player.join() for player in players]
    turns(players[1:], invitations[1:], clock, EVEN[1:])
    clock.now += 110
    players[0].sign(slow)
    clock.now = last(cloud, made).deadline_at
    assert move_on(cloud, made.id, clock).history[-1].counts_by == "fedbuff"
    assert players[0].sign(slow).json() == {"wanted": True}
    turns([players[0]], [slow], clock, (1.0,))
    assert last(cloud, made).number == 3


def test_what_still_waits_when_it_comes_back_is_dropped_with_its_reason(cloud, clock, players):
    made = begun(cloud, clock, PACED, adapt=("switch",))
    played(cloud, clock, made, players, (1.0, 1.0, 1.0, 10.0))
    invitations = [player.join() for player in players]
    all_series.stop(cloud, made.id, now=clock())  # or the service's own thread would go on
    turns(players[:2], invitations[:2], clock, (1.0, 1.0))
    with cloud.database.writing() as connection:
        counting.freeze(connection, made, 2)
        counting.set_round(connection, made.id, 2, state="closing")
    turns(players[2:], invitations[2:], clock, (1.0, 1.0))
    with cloud.database.writing() as connection:
        connection.execute(db.paces.update().values(steps_per_s=1.0, bytes_per_s=1e6))
    all_series.resume(cloud, made.id, now=clock())
    assert move_on(cloud, made.id, clock).history[-1].counts_by == "fedavg"
    with cloud.database.reading() as connection:
        rows = connection.execute(db.updates.select().where(db.updates.c.number == 2)).all()
    assert sorted(row.dropped for row in rows) == ["", "", "changed over", "changed over"]


def test_where_nobody_is_waited_for_a_slow_board_is_not_asked_more_often_than_it_can_answer(cloud, clock, players):
    for adapt, least, most in (((), 0.0, 1.0), (("frequency",), PLAN.gather_s / 2, PLAN.gather_s / 2)):
        made = begun(cloud, clock, PACED, algorithm="fedbuff", quorum=4, adapt=adapt)
        turns(players[:2], [player.join() for player in players[:2]], clock, (10.0, 50.0))
        clock.now -= 50
        assert least <= players[1].ask().json()["wait_s"] <= most
        clock.now += 50
        all_series.stop(cloud, made.id, now=clock())


def test_boards_that_took_no_part_for_long_or_may_not_any_more_say_nothing(cloud, clock, players):
    made = begun(cloud, clock, PACED, adapt=("deadline",))
    played(cloud, clock, made, players)
    with cloud.database.writing() as connection:
        forecast = pacing.forecast(connection, made, 1000, now=clock())
        assert set(forecast.held) == {player.id for player in players}
        connection.execute(db.grants.delete().where(db.grants.c.board == players[0].id))
        assert players[0].id not in pacing.forecast(connection, made, 1000, now=clock()).held
        assert not pacing.forecast(connection, made, 1000, now=clock() + 31 * 86400).held


def test_a_board_that_is_new_is_expected_to_be_like_the_median(client, cloud, clock, players):
    made = begun(cloud, clock, PACED, adapt=("steps",), cohort=5)
    played(cloud, clock, made, players)
    new = Player(client, cloud, clock, samples=100)
    gathered([*players, new], made.id)
    assert new.join().max_steps == STEPS


@pytest.mark.parametrize(
    ("algorithm", "rule"),
    [("dp-fedavg", "deadline"), ("fedbuff", "deadline"), ("median", "switch"), ("fedsgd", "steps")],
)
def test_what_an_algorithm_does_not_bear_is_refused_when_the_plan_is_made(cloud, clock, players, algorithm, rule):
    with pytest.raises(UsageError, match=f"'{rule}' cannot follow boards' pace"):
        begun(cloud, clock, PACED, algorithm=algorithm, adapt=(rule,))


def test_all_rules_at_once_play_a_series_to_its_end(cloud, clock, players):
    made = begun(cloud, clock, PACED, algorithm="fedprox", options={"mu": 0.1}, adapt=RULES, rounds=4)
    made_at = clock()
    while (told := move_on(cloud, made.id, clock)).state == "running" and clock() < made_at + 600:
        clock.now += 1
        for place, player in enumerate(players):
            invitation = player.join()
            if invitation is not None and (place < 3 or (clock() - made_at) % 9 >= 8):
                player.send(invitation, *player.update(invitation))
    assert (told.state, told.closed, told.failed) == ("finished", 4, 0)


def test_the_schema_before_paces_is_brought_up_and_its_buffered_rounds_are_known(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'cloud.sqlite3'}")
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with database.writing() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0008")
        connection.exec_driver_sql("INSERT INTO tasks (id, document, published_at) VALUES ('toy', '', 0)")
        for number, algorithm in enumerate(("fedavg", "fedbuff")):
            document = encode({"plan": {"algorithm": algorithm}})
            values = (str(number), document)
            connection.exec_driver_sql("INSERT INTO series VALUES (?, 'toy', ?, 'running', '', 0, 0)", values)
            row = (str(number), 1, "open", "", 0.0, 0.0, b"", "s", "o", 1)
            names = "series, number, state, reason, begun_at, deadline_at, entropy, server, order_blob, order_bytes"
            connection.exec_driver_sql(f"INSERT INTO rounds ({names}) VALUES (?,?,?,?,?,?,?,?,?,?)", row)
    migrations.bring_up_to_date(database, locks=tmp_path, backups=tmp_path / "backups")
    with database.reading() as connection:
        rounds = connection.execute(db.rounds.select().order_by(db.rounds.c.series)).all()
        assert connection.execute(db.paces.select()).all() == []
    database.close()
    assert [(row.buffered, row.within_s) for row in rounds] == [(False, None), (True, None)]
