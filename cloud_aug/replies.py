"""Values and errors as HTTP answers. The one place of the server where an error gets its status."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from msgspec import UNSET
from starlette.responses import Response, StreamingResponse

from cloud_aug import logs
from cloud_aug.database import first_line, from_database_error
from edgewire.decoding import encode
from edgewire.errors import EdgeError, RetryLater, from_os_error
from edgewire.messages import HAVE_HEADER, PARTS_HEADER, ErrorBody, ErrorReply

BINARY = "application/octet-stream"
SENT_BYTES = 256 << 10  # at once: what a slow board takes in time (`limits.answer_idle_s`)
JSON = "application/json"

_log = logging.getLogger(__name__)


def reply(value: Any, *, headers: dict[str, str] | None = None) -> Response:
    """A dataclass as JSON. Nobody on the way may keep it: it may hold a token."""
    return Response(encode(value), media_type=JSON, headers={"cache-control": "no-store", **(headers or {})})


def sealed(envelope: bytes, *, etag: str) -> Response:
    """A signed envelope; who has it already asks with If-None-Match."""
    return Response(envelope, media_type=JSON, headers={"etag": etag, "cache-control": "private, no-cache"})


def sealed_with_parts(envelope: bytes, parts: Mapping[str, Path], *, etag: str) -> Response:
    """A signed envelope, and after it the files that it names, whose digests and sizes are in a header."""
    sizes = {name: path.stat().st_size for name, path in parts.items()}
    headers = {"etag": etag, "cache-control": "private, no-cache", "vary": HAVE_HEADER}
    headers[PARTS_HEADER] = ", ".join([str(len(envelope)), *(f"{name}:{size}" for name, size in sizes.items())])
    headers["content-length"] = str(len(envelope) + sum(sizes.values()))
    return StreamingResponse(_joined(envelope, parts.values()), media_type=BINARY, headers=headers)


def _joined(envelope: bytes, files: Iterable[Path]) -> Iterator[bytes]:
    yield envelope
    for path in files:
        with path.open("rb") as file:
            yield from iter(lambda: file.read(SENT_BYTES), b"")


def not_modified(etag: str) -> Response:
    """304: what you have is what there is."""
    return Response(status_code=304, headers={"etag": etag})


def error_reply(error: EdgeError) -> Response:
    """An error as its status, its code, what to do next, and the request's id for whoever asks the operator."""
    body = ErrorReply(ErrorBody(error.code, error.message, error.hint, logs.request_id.get() or UNSET))
    headers = {"cache-control": "no-store"}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
    if error.http_status == 401:
        headers["www-authenticate"] = "Bearer"
    if error.http_status in (413, 504):
        headers["connection"] = "close"  # the rest of the request's body is not wanted
    return Response(encode(body), status_code=error.http_status, media_type=JSON, headers=headers)


def told(error: Exception) -> EdgeError:
    """What callers are told of any failure; the log gets the rest."""
    if isinstance(error, EdgeError):
        return error
    if isinstance(error, sa.exc.TimeoutError):
        return RetryLater("the database is busy", retry_after_s=5)  # no connection was free
    found = EdgeError("the server failed", hint="its log says why")
    if isinstance(error, sa.exc.DBAPIError):
        _log.error("database: %s", first_line(error))
        of_database = from_database_error(error)
        return of_database if type(of_database) is not EdgeError else found
    if isinstance(error, OSError):
        of_system = from_os_error(error, "answering")
        _log.error("%s", of_system.message)
        return type(of_system)(of_system.message.split(" (")[0], hint=of_system.hint)  # paths are not theirs to know
    return found


def matches(if_none_match: str | None, etag: str) -> bool:
    """Whether an If-None-Match header names this strong ETag."""
    if if_none_match is None:
        return False
    return "*" in if_none_match or etag in [part.strip().removeprefix("W/") for part in if_none_match.split(",")]
