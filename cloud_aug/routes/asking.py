"""What a route gets of its request: the cloud, the time, who asks, and a body no larger than allowed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Path, Request

from cloud_aug import auth
from cloud_aug.auth import Caller
from cloud_aug.cloud import Cloud
from cloud_aug.middleware import SAID, check_length
from cloud_aug.rates import Rates
from cloud_aug.search import Searcher
from edgewire.decoding import JSON_LIMIT_BYTES
from edgewire.errors import Revoked, TooLarge, Unauthorized
from edgewire.messages import (
    QUERIES_LIMIT_BYTES,
    SAMPLES_LIMIT_BYTES,
    TASKS_HEADER,
    TELEMETRY_LIMIT_BYTES,
    WANTED_LIMIT_BYTES,
    tasks_digest,
)
from edgewire.rounds import ROWS_LIMIT_BYTES

STATEMENT_LIMIT_BYTES = 64 << 10


@dataclass(frozen=True)
class Asked:
    """One request."""

    cloud: Cloud
    searcher: Searcher
    rates: Rates
    now: float
    authorization: str
    headers: dict[str, str]
    address: str
    say: Callable[[str, str], None]  # a header of the answer, whatever it will be

    def caller(self) -> Caller:
        """The board behind the access token. Raises Unauthorized, Revoked, or RateLimited if it asks too often."""
        with self._known():
            caller = auth.caller(self.cloud, self._bearer(), now=self.now)
        self.rates.spend(caller.board, now=self.now)
        self.say(TASKS_HEADER, tasks_digest(caller.granted))
        return caller

    def board(self, task: str) -> str:
        """The calling board's id, if it may use the task. Raises NotGranted too."""
        caller = self.caller()
        caller.require(task)
        return caller.board

    def administrator(self) -> str:
        """The administrator's name. Raises Unauthorized."""
        with self._known():
            return auth.administrator(self.cloud, self._bearer(), now=self.now)

    def watcher(self) -> str:
        """Who may read the metrics. Raises Unauthorized."""
        with self._known():
            return auth.watcher(self.cloud, self._bearer(), now=self.now)

    def stranger(self) -> None:
        """Count a request that needs no token. Raises RateLimited if its address asks too often."""
        self.rates.spend_stranger(self.address, now=self.now)

    @contextlib.contextmanager
    def _known(self) -> Iterator[None]:
        """Who shows no valid token is a stranger. Raises what the block raises, or RateLimited."""
        try:
            yield
        except (Unauthorized, Revoked):
            self.stranger()
            raise

    def _bearer(self) -> str:
        scheme, _, secret = self.authorization.partition(" ")
        if scheme.lower() != "bearer" or not secret:
            raise Unauthorized("this needs an 'Authorization: Bearer' header", hint="ask for a token at /v1/access")
        return secret.strip()


async def _asked(request: Request) -> Asked:
    state, headers = request.app.state, request.headers
    told = headers.get("authorization", "")
    address, said = request.client.host if request.client else "", request.scope[SAID]
    now, say = state.clock(), said.__setitem__
    return Asked(state.cloud, state.searcher, state.rates, now, told, dict(headers), address, say)


async def body_of(request: Request, limit: int) -> bytes:
    """Raises TooLarge."""
    check_length(request.headers.get("content-length"), limit)
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > limit:
            raise TooLarge(f"the request's body has more than {limit} bytes")
        pieces.append(piece)
    return b"".join(pieces)


def _body(limit: int) -> Callable[[Request], Coroutine[Any, Any, bytes]]:
    async def read(request: Request) -> bytes:
        return await body_of(request, limit)

    return read


def _granted(asked: AskedNow, task: TaskPath) -> str:
    return asked.board(task)


def _known(asked: AskedNow) -> str:
    return asked.caller().board


def _stranger(asked: AskedNow) -> None:
    asked.stranger()


AskedNow = Annotated[Asked, Depends(_asked)]
TaskPath = Annotated[str, Path(pattern="^[a-z0-9][a-z0-9-]{0,62}$")]
# The calling board, which may use the task of the address. Named before a body, it is judged before any of that is
# read: strangers must not fill the memory.
Granted = Annotated[str, Depends(_granted)]

Stranger = Annotated[None, Depends(_stranger)]  # nobody in particular, but not too often; judged before a body, too
Known = Annotated[str, Depends(_known)]  # the calling board, whatever task it may use; judged before a body, too

StatementBody = Annotated[bytes, Depends(_body(STATEMENT_LIMIT_BYTES))]
JsonBody = Annotated[bytes, Depends(_body(JSON_LIMIT_BYTES))]
TelemetryBody = Annotated[bytes, Depends(_body(TELEMETRY_LIMIT_BYTES))]
QueriesBody = Annotated[bytes, Depends(_body(QUERIES_LIMIT_BYTES))]
RowsBody = Annotated[bytes, Depends(_body(ROWS_LIMIT_BYTES))]
WantedBody = Annotated[bytes, Depends(_body(WANTED_LIMIT_BYTES))]
SamplesBody = Annotated[bytes, Depends(_body(SAMPLES_LIMIT_BYTES))]

DigestPath = Annotated[str, Path(pattern="^[0-9a-f]{64}$")]
UploadPath = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]
BoardPath = Annotated[str, Path(pattern="^b[0-9a-f]{16}$")]
