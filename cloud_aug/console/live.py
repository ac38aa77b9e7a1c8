"""Pages that stay true: a stream of server-sent events says that something has changed, the page fetches itself anew.

Nothing is kept in the process: each stream asks the database for a *mark*, a short text that changes when what the page
shows does. So it makes no difference which worker did the deed, and which one has the stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Literal

import sqlalchemy as sa
from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from cloud_aug import db, metrics, sessions
from cloud_aug.cloud import Cloud
from cloud_aug.console import pages
from cloud_aug.console.visitor import Listening, PageRoute, Visitor
from edgewire.errors import EdgeError

router = APIRouter(route_class=PageRoute)

Topic = Literal["overview", "boards", "board", "tasks", "releases", "rounds", "jobs", "audit"]

ASK_EVERY_S = 2.0
SAY_EVERY_S = 15.0  # so that whoever is between does not think that the connection is dead
FULL_RETRY_S = 15.0


class Streams:
    """The places that streams may take in this process, so that they leave most of them to boards."""

    def __init__(self, most: int) -> None:
        self._most, self._open = most, 0
        self.closing = asyncio.Event()

    @property
    def full(self) -> bool:
        return self._open >= self._most or self.closing.is_set()

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Count a stream while it is open."""
        self._open += 1
        metrics.streams.inc()
        try:
            yield
        finally:
            self._open -= 1
            metrics.streams.dec()


def mark(cloud: Cloud, topic: Topic, key: str = "") -> str:
    """Changes when what a page shows does."""
    with cloud.database.reading() as connection:
        found = [tuple(connection.execute(question).one()) for question in _QUESTIONS[topic](key)]
    return hashlib.sha256(repr(found).encode()).hexdigest()[:16]


@router.get("/live")
async def stream(
    request: Request, visitor: Listening, of: Topic, key: Annotated[str, Query(max_length=80)] = ""
) -> Response:
    """Server-sent events: 'changed' with the new mark, 'ended' with the session."""
    streams: Streams = request.app.state.streams
    if streams.full:
        headers = {**pages.HEADERS, "retry-after": str(math.ceil(FULL_RETRY_S))}
        return Response(status_code=503, headers=headers)
    known = request.headers.get("last-event-id", "")
    body = _events(streams, visitor, lambda: mark(visitor.cloud, of, key), known, request.app.state.clock)
    return StreamingResponse(body, media_type="text/event-stream", headers={**pages.HEADERS, "x-accel-buffering": "no"})


async def _events(
    streams: Streams, visitor: Visitor, ask: Callable[[], str], known: str, clock: Callable[[], float]
) -> AsyncIterator[str]:
    said_at = time.monotonic()
    with streams.place():  # here and not in the route: an answer that is given up before it starts ends nothing
        yield "retry: 3000\n\n"
        while not await _closed(streams):
            if not await run_in_threadpool(_still_in, visitor, clock()):
                yield "event: ended\ndata: -\n\n"
                return
            now = await run_in_threadpool(_asked, ask, known)
            if now != known:
                known, said_at = now, time.monotonic()
                yield f"id: {now}\nevent: changed\ndata: {now}\n\n"
            elif time.monotonic() - said_at > SAY_EVERY_S:
                said_at = time.monotonic()
                yield ": still here\n\n"


async def _closed(streams: Streams) -> bool:
    """Wait for the next time to ask; True: the service ends."""
    try:
        await asyncio.wait_for(streams.closing.wait(), ASK_EVERY_S)
    except asyncio.TimeoutError:
        return False
    return True


def _still_in(visitor: Visitor, now: float) -> bool:
    try:
        return sessions.find(visitor.cloud, visitor.secret, now=now, used=False) is not None
    except sa.exc.SQLAlchemyError:
        return True  # the database is away: say nothing until it is back


def _asked(ask: Callable[[], str], known: str) -> str:
    try:
        return ask()
    except (EdgeError, sa.exc.SQLAlchemyError):
        return known


def _boards(_key: str) -> list[sa.Executable]:
    board, told = db.boards.c, db.board_states.c
    newest = (sa.func.max(board.last_seen_at), sa.func.max(board.revoked_at), sa.func.count())
    return [sa.select(*newest), sa.select(sa.func.max(told.told_at), sa.func.max(told.reported_at))]


def _board(key: str) -> list[sa.Executable]:
    column, seen, told = db.audit.c, db.boards.c, db.board_states.c
    released, granted = db.release_boards.c, db.grants.c
    noted = sa.select(sa.func.max(column.id)).where(sa.or_(column.subject == key, column.actor == key))
    messages = sa.select(sa.func.max(db.telemetry.c.id)).where(db.telemetry.c.board == key)
    outcomes = sa.select(sa.func.max(released.told_at), sa.func.count(released.told_at)).where(released.board == key)
    return [
        sa.select(sa.func.max(seen.last_seen_at)).where(seen.id == key),
        noted,
        messages,
        sa.select(sa.func.max(told.reported_at)).where(told.board == key),
        outcomes,
        sa.select(sa.func.max(granted.granted_at), sa.func.count()).where(granted.board == key),
    ]


def _tasks(_key: str) -> list[sa.Executable]:
    made = sa.select(sa.func.max(db.bases.c.trained_at), sa.func.count())
    published = sa.select(sa.func.max(db.publications.c.published_at), sa.func.count())
    # not the pool: it changes all the time, and counting it costs more than anything else on a page
    return [made, published, sa.select(sa.func.max(db.tasks.c.published_at), sa.func.count())]


def _jobs(_key: str) -> list[sa.Executable]:
    column = db.jobs.c
    return [sa.select(sa.func.max(column.id), sa.func.max(column.told_at), sa.func.count(column.ended_at))]


def _releases(key: str) -> list[sa.Executable]:
    """Of all releases, or of one: its own row changes with each step, its boards' with each thing they tell."""
    release, boards = db.releases.c, db.release_boards.c
    rows = sa.select(sa.func.sum(release.revision), sa.func.max(release.wave_since), sa.func.count())
    told = sa.select(sa.func.max(boards.offered_at), sa.func.max(boards.told_at), sa.func.count(boards.told_at))
    return [rows.where(release.id == key), told.where(boards.release == key)] if key else [rows, told]


def _rounds(_key: str) -> list[sa.Executable]:
    series, round_ = db.series.c, db.rounds.c
    changed = sa.select(sa.func.max(series.changed_at), sa.func.count())
    rounds = sa.select(sa.func.max(round_.begun_at), sa.func.max(round_.closed_at), sa.func.count())
    updates = sa.select(sa.func.max(db.updates.c.received_at), sa.func.count())
    return [changed, rounds, updates]


def _audit(_key: str) -> list[sa.Executable]:
    return [sa.select(sa.func.max(db.audit.c.id))]


_QUESTIONS: dict[Topic, Callable[[str], list[sa.Executable]]] = {
    "overview": lambda key: [*_boards(key), *_releases(key), *_jobs(key), *_tasks(key)],
    "boards": _boards,
    "board": _board,
    "tasks": _tasks,
    "releases": _releases,
    "rounds": _rounds,
    "jobs": _jobs,
    "audit": _audit,
}
