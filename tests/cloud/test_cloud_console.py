"""What the console stands on, on each database: SQLite here, PostgreSQL and an object store there."""

from __future__ import annotations

import re

import pytest

from cloud_aug import accounts, guesses, jobs, sessions, standing
from cloud_aug.console import live
from cloud_aug.standing import ORDERS, STATES, Wanted
from edgewire.errors import RateLimited
from tests.cloud import toys
from tests.console import world

PAGES = ("/", "/boards", "/boards?state=hot&task=toy&q=board", f"/boards/b{2:016x}", "/tasks", "/tasks/toy", "/models")
MORE = (
    "/releases",
    "/releases/{release}",
    "/rounds",
    "/rounds/{series}",
    "/jobs",
    "/audit?action=log-in&before=99999",
    "/accounts",
)


@pytest.fixture
def fleet(cloud, clock) -> str:
    """Boards, accounts and a release; its id."""
    world.add_people(cloud, now=clock())
    world.add_boards(cloud, 60, now=clock())
    return world.release(cloud, now=clock())


def test_every_page_is_there(client, cloud, clock, fleet):
    ticket = re.search(r'name="form_token" value="([^"]+)"', client.get("/login").text)[1]
    fields = {"form_token": ticket, "name": "ann", "password": world.PASSWORD, "next": "/"}
    client.post("/login", data=fields, headers={"Origin": "https://localhost"})
    series = world.rounds(cloud, now=clock())
    for path in (*PAGES, *MORE):
        assert client.get(path.format(release=fleet, series=series), follow_redirects=False).status_code == 200, path


def test_boards_are_counted_and_ordered(cloud, clock, fleet):
    for order in ORDERS:
        found = standing.page(cloud, Wanted(order=order), now=clock())
        assert (len(found.boards), found.total, sum(found.counts.values())) == (50, 60, 60)
    for state in STATES:
        found = standing.page(cloud, Wanted(state=state), now=clock())
        assert {board.state for board in found.boards} <= {state}
    steps = standing.spread(cloud, "gain", step=0.05, within=(-1.0, 1.0))
    assert sum(count for _, count in steps) == 60 - standing.page(cloud, Wanted(state="revoked"), now=clock()).total


@pytest.mark.parametrize("topic", list(live._QUESTIONS))
def test_a_mark_stays_while_nothing_changes(cloud, fleet, topic):
    assert live.mark(cloud, topic, fleet) == live.mark(cloud, topic, fleet)


def test_people_come_in_guess_and_leave(cloud, clock, fleet):
    secret = sessions.log_in(cloud, "ann", world.PASSWORD, address="192.0.2.7", shown="", now=clock())
    assert sessions.find(cloud, secret, now=clock() + 100, used=True).role == "admin"
    for _ in range(5):
        guesses.spend(cloud, "ann", "192.0.2.8", now=clock())
    with pytest.raises(RateLimited):
        guesses.spend(cloud, "ann", "192.0.2.9", now=clock())
    accounts.set_password(cloud, "ann", "another long one", now=clock())
    assert sessions.find(cloud, secret, now=clock() + 100, used=True) is None
    guesses.spend(cloud, "ann", "192.0.2.9", now=clock())


def test_a_job_is_told(cloud, clock):
    with jobs.told(cloud, "index build", "toy", toys.quiet):
        pass
    assert jobs.newest(cloud, limit=1, now=clock())[0].state == "done"
