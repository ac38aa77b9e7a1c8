"""What holds for every request: clock and wire version on it, how many at once, how large and slow a body may be.

Plain ASGI, because bodies must be judged while they stream, before anything is buffered.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Callable

import anyio.to_thread
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloud_aug import logs, metrics
from cloud_aug.replies import error_reply, told
from cloud_aug.settings import Limits
from edgewire import WIRE_VERSION
from edgewire.errors import EdgeError, RetryLater, TimedOut, TooLarge, UpgradeRequired
from edgewire.messages import CLOCK_HEADER, SAMPLES_LIMIT_BYTES, WIRE_HEADER

MAX_BODY_BYTES = SAMPLES_LIMIT_BYTES  # no request has a larger body; single routes allow less
BUSY_RETRY_S = 2.0
_ALWAYS_ANSWERED = ("/healthz", "/readyz", "/metrics")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE"})  # others are told as one: strangers make them up
_GONE = 499  # in the log and the metrics: who asked went away before there was an answer
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
REQUEST_ID_HEADER = "x-request-id"
SAID = "edge-said"  # in a request's scope: headers that its answer shall have

_log = logging.getLogger("cloud_aug.requests")


class Watch:
    """Gives each request an id, or takes the one it came with, and tells logs and metrics how it went."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        came = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        request = came if _REQUEST_ID.fullmatch(came) else secrets.token_hex(6)
        token, started, status, size = logs.request_id.set(request), time.perf_counter(), _GONE, 0

        async def noted(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request
            size += len(message.get("body", b""))
            await send(message)

        metrics.inside.inc()
        metrics.waiting.set(anyio.to_thread.current_default_thread_limiter().statistics().tasks_waiting)
        try:
            await self._app(scope, receive, noted)
        except Exception:
            status = 500
            raise
        finally:
            metrics.inside.dec()
            self._tell(scope, status, size, time.perf_counter() - started)
            logs.request_id.reset(token)

    def _tell(self, scope: Scope, status: int, size: int, took_s: float) -> None:
        # the route's pattern: an address may name a board, and would make a series of its own
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if route != "other" and scope["method"] in _METHODS else "other"
        metrics.requests.labels(method, route, status).inc()
        metrics.seconds.labels(method, route).observe(took_s)
        fields = {"method": method, "route": route, "status": status, "bytes": size, "ms": round(1000 * took_s, 1)}
        _log.log(logging.WARNING if status >= 500 else logging.INFO, "answered", extra={"fields": fields})


class Envelope:
    """Puts the server's clock and what routes say on every answer, and refuses other wire versions."""

    def __init__(self, app: ASGIApp, clock: Callable[[], float]) -> None:
        self._app = app
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        said: dict[str, str] = {}
        scope[SAID] = said

        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(said)
                headers[CLOCK_HEADER] = str(int(self._clock()))
                headers["x-content-type-options"] = "nosniff"
            await send(message)

        wire = Headers(scope=scope).get(WIRE_HEADER)
        if wire is not None and wire != str(WIRE_VERSION):
            error = UpgradeRequired(
                f"this service speaks wire version {WIRE_VERSION}, the request is of version {wire[:20]!r}",
                hint="update edgectl; inference goes on working meanwhile",
            )
            await error_reply(error)(scope, receive, stamped)
            return
        await self._app(scope, receive, stamped)


class Crowd:
    """Answers 503 at once beyond a number of requests, instead of making everybody wait."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app = app
        self._limit = limits.requests_at_once
        self._inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _ALWAYS_ANSWERED:
            await self._app(scope, receive, send)
            return
        if self._inside >= self._limit:
            metrics.shed.inc()
            error = RetryLater("the server is busy", hint="try again shortly", retry_after_s=BUSY_RETRY_S)
            await error_reply(error)(scope, receive, send)
            return
        self._inside += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._inside -= 1


class BodyGuard:
    """Ends a request whose body is too large (413) or too slow (504), one that fails as nobody foresaw (500), and an
    answer that nobody takes."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            try:
                await asyncio.wait_for(send(message), self._limits.answer_idle_s)
            except asyncio.TimeoutError:
                raise _Stalled from None

        try:
            check_length(Headers(scope=scope).get("content-length"), MAX_BODY_BYTES)
            await self._app(scope, _Guarded(receive, self._limits), noted)
        except (_Stalled, ClientDisconnect):
            return  # half an answer: the server closes the connection; else a few idle readers would hold every place
        except Exception as error:
            if started or not isinstance(error, EdgeError):
                _log.exception("failed")  # here, where the request's id is known
            if not started:
                await error_reply(told(error))(scope, receive, send)


class _Stalled(Exception):
    """The client has stopped reading. Not an EdgeError: nobody is there to be told."""


class _Guarded:
    """A `receive` that counts bytes and watches the clock until the body is whole."""

    def __init__(self, receive: Receive, limits: Limits) -> None:
        self._receive = receive
        self._limits = limits
        self._started = time.monotonic()
        self._received = 0
        self._whole = False

    async def __call__(self) -> Message:
        if self._whole:
            return await self._receive()  # waits for a disconnect, however long the answer takes
        try:
            message = await asyncio.wait_for(self._receive(), self._patience_s())
        except asyncio.TimeoutError:
            raise TimedOut("the request's body came too slowly", hint="try again over a better connection") from None
        self._received += len(message.get("body", b""))
        self._whole = message["type"] != "http.request" or not message.get("more_body", False)
        if self._received > MAX_BODY_BYTES:
            raise TooLarge(f"the request's body has more than {MAX_BODY_BYTES} bytes")
        return message

    def _patience_s(self) -> float:
        """A pause of body_idle_s at most, and over the whole body no slower than body_min_bytes_per_s beyond that."""
        idle = self._limits.body_idle_s
        deadline = self._started + idle + self._received / self._limits.body_min_bytes_per_s
        return max(0.0, min(idle, deadline - time.monotonic()))


def check_length(content_length: str | None, limit: int) -> None:
    """Raises TooLarge for a body that announces more than the limit, before any of it is read."""
    if content_length is not None and content_length.isdigit() and int(content_length) > limit:
        raise TooLarge(f"the request's body has {content_length} bytes, the limit is {limit}")
