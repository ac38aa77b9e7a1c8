"""Pages that stay true, with the real service in two processes."""

from __future__ import annotations

import contextlib
import os
import ssl
import time
from collections.abc import Iterator

import httpx2
import pytest

from cloud_aug import boards, db, sessions, uploads
from cloud_aug.boards import Selection
from cloud_aug.console import live
from cloud_aug.console.live import Streams
from cloud_aug.console.visitor import COOKIE
from edgewire.decoding import encode
from edgewire.messages import Report
from tests.cloud import toys
from tests.console import world

BOARD = f"b{31:016x}"


@contextlib.contextmanager
def client(server: toys.Server, made) -> Iterator[httpx2.Client]:
    """Logged in as ann."""
    context = ssl.create_default_context(cadata="\n".join(made.trust().authorities))
    secret = sessions.log_in(made, "ann", world.PASSWORD, address="127.0.0.1", shown="", now=time.time())
    with httpx2.Client(base_url=server.url, verify=context, trust_env=False, timeout=60) as found:
        found.headers["Cookie"] = f"{COOKIE}={secret}"
        yield found


def events(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """(event, data) as they come."""
    event = ""
    for line in lines:
        if line.startswith("event: "):
            event = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield event, line.removeprefix("data: ")


def test_a_change_by_another_process_comes_down_the_stream(served):
    server, made = served
    with client(server, made) as ann, ann.stream("GET", f"/live?of=board&key={BOARD}") as stream:
        coming = events(stream.iter_lines())
        first = next(coming)
        boards.revoke(made, BOARD, now=time.time())  # by this process, which serves nobody
        second = next(coming)
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert (first[0], second[0]) == ("changed", "changed")
    assert first[1] != second[1]


def test_a_stream_ends_with_the_session(served):
    server, made = served
    with client(server, made) as ann, ann.stream("GET", "/live?of=jobs") as stream:
        coming = events(stream.iter_lines())
        next(coming)
        with made.database.writing() as connection:
            connection.execute(db.sessions.delete())
        assert next(coming)[0] == "ended"
        assert next(coming, None) is None


def test_the_page_of_a_board_is_told_of_a_report_an_outcome_and_a_grant(made, clock):
    release = world.release(made, now=clock())
    with made.database.reading() as connection:
        mine = connection.execute(db.release_boards.select().where(db.release_boards.c.wave == 0)).first().board
    marks = [live.mark(made, "board", mine)]
    told = Report("b" * 32, "toy", "c" * 64, "directory", "auto", "mpda", 9, 4, 2, 0.1, 3.0)
    for deed in (
        lambda: uploads.report(made, mine, "toy", told.upload_id, encode(told), now=clock()),
        lambda: world.hurry(made, release, wave=0),
        lambda: boards.recall(made, "toy", Selection((mine,)), now=clock()),
    ):
        deed()
        marks.append(live.mark(made, "board", mine))
    assert len(set(marks)) == 4


def test_streams_leave_room_for_boards(client, visit):
    visit.log_in("vic")
    client.app.state.streams = Streams(0)
    answer = client.get("/live?of=jobs")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "15")


@pytest.mark.parametrize("path", ["/live?of=everything", "/live", "/live?of=jobs&key=" + "x" * 100])
def test_a_stream_of_nothing_we_know_is_refused(visit, path):
    visit.log_in("vic")
    assert visit.client.get(path).status_code == 422


def test_the_service_ends_at_once_though_pages_are_open(data):
    made = world.cloud.open_cloud(data)
    with toys.serving(data) as server, client(server, made) as ann, ann.stream("GET", "/live?of=jobs") as stream:
        next(events(stream.iter_lines()))
        os.kill(server.pid, 15)
        server.process.wait(15)  # raises beyond that; answers under way would have 20 s
