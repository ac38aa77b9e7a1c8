"""Who asks, and may they? The one place where the console looks at sessions, roles and where a form came from.

Every route takes `Looking`, `Listening` or one of `acting(role)`; only the login and the static files do not.
"""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import parse_qsl, quote

import sqlalchemy as sa
from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from cloud_aug import accounts, sessions
from cloud_aug.accounts import Role
from cloud_aug.cloud import Cloud
from cloud_aug.console import pages
from cloud_aug.middleware import check_length
from cloud_aug.replies import told
from cloud_aug.sessions import Session
from edgewire.errors import EdgeError, InvalidMessage, Refused, TooLarge

_log = logging.getLogger(__name__)

COOKIE = "__Host-console"
LIVE_HEADER = "x-live"  # the page's script asks, not a person: it must not keep a session alive
FORM_LIMIT_BYTES = 16 << 10
FORM_FIELDS = 20
NEXT_LENGTH = 500  # of an address to go on to after the login
_INSIDE = re.compile(r"/(?![/\\])[!-\[\]-~]*")  # printable ASCII without a backslash
TOKEN_FIELD = "form_token"  # noqa: S105  (its name)


class LoggedOut(Exception):
    """Nobody is logged in. Not an EdgeError: the answer is the way to the login."""


@dataclass(frozen=True)
class Visitor:
    """Somebody who is logged in, and may do what they ask for."""

    cloud: Cloud
    session: Session
    secret: str
    now: float
    path: str

    def may(self, role: Role) -> bool:
        """Whether to offer what needs this role."""
        try:
            accounts.check_role(self.session.role, role)
        except Refused:
            return False
        return True


class PageRoute(APIRoute):
    """Answers errors as pages, and strangers with the way to the login."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await inner(request)
            except LoggedOut:
                return _to_login(request)
            except RequestValidationError:
                return pages.refusal(InvalidMessage("the page's address is malformed"))
            except (EdgeError, OSError, sa.exc.DBAPIError, sa.exc.TimeoutError) as error:
                return pages.refusal(told(error))
            except ClientDisconnect:
                raise
            except Exception as error:
                _log.exception("failed")
                return pages.refusal(told(error))

        return handle


def _to_login(request: Request) -> Response:
    if LIVE_HEADER in request.headers:
        return Response(status_code=401, headers=pages.HEADERS)
    there = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    forgotten = request.method != "GET" or there == "/" or len(there) > NEXT_LENGTH
    return pages.redirect("/login" if forgotten else f"/login?next={quote(there)}")


def inside(path: str) -> str:
    """A path of this site, whatever a link asked for: '//other.host' and 'https:' lead elsewhere."""
    return path if _INSIDE.fullmatch(path) else "/"


async def form(request: Request) -> dict[str, str]:
    """The fields of a form. Raises Refused for one of another site, TooLarge, InvalidMessage."""
    check_origin(request)
    check_length(request.headers.get("content-length"), FORM_LIMIT_BYTES)
    raw = b""
    async for piece in request.stream():
        raw += piece
        if len(raw) > FORM_LIMIT_BYTES:
            raise TooLarge(f"the form has more than {FORM_LIMIT_BYTES} bytes")
    try:
        fields = parse_qsl(raw.decode(), keep_blank_values=True, max_num_fields=FORM_FIELDS, errors="strict")
    except ValueError:
        raise InvalidMessage("the form is malformed") from None
    return dict(fields)


def check_origin(request: Request) -> None:
    """Raises Refused unless the browser says that the form was on a page of this site."""
    origin, host = request.headers.get("origin"), request.headers.get("host", "")
    own = {f"https://{host}".lower(), request.app.state.cloud.settings.url.lower()}
    same = origin.lower() in own if origin is not None else request.headers.get("sec-fetch-site") == "same-origin"
    if not same:
        raise Refused("this form came from another site", hint="open the console and do it there")


Form = Annotated[dict[str, str], Depends(form)]


def _admitted(request: Request, needed: Role, fields: dict[str, str] | None, *, by_script: bool = False) -> Visitor:
    """Raises LoggedOut, or Refused: the role does not allow it, or the form is not of this session. by_script: no
    person asks, however the request looks."""
    state, secret = request.app.state, request.cookies.get(COOKIE, "")
    now, used = state.clock(), not by_script and LIVE_HEADER not in request.headers
    session = sessions.find(state.cloud, secret, now=now, used=used) if secret else None
    if session is None:
        raise LoggedOut
    brought = session.form_token if fields is None else fields.get(TOKEN_FIELD, "")
    if not hmac.compare_digest(brought.encode(), session.form_token.encode()):
        raise Refused("this form is of another session", hint="load the page again, then send it again")
    accounts.check_role(session.role, needed)
    return Visitor(state.cloud, session, secret, now, request.url.path)


def looking(request: Request) -> Visitor:
    """Whoever is logged in may look."""
    return _admitted(request, "viewer", None)


def listening(request: Request) -> Visitor:
    """Whoever is logged in may; a browser opens a stream anew by itself, and cannot say so."""
    return _admitted(request, "viewer", None, by_script=True)


def seeing(needed: Role) -> Any:
    """What a page takes that only some may see."""

    def admitted(request: Request) -> Visitor:
        return _admitted(request, needed, None)

    return Depends(admitted)


def acting(needed: Role) -> Any:
    """What a route takes that changes something: a form of this session, by somebody with this role."""

    def admitted(request: Request, fields: Form) -> Visitor:
        return _admitted(request, needed, fields)

    return Depends(admitted)


Looking = Annotated[Visitor, Depends(looking)]
Listening = Annotated[Visitor, Depends(listening)]
Asked = Annotated[Visitor, acting("viewer")]
Operating = Annotated[Visitor, acting("operator")]
Administering = Annotated[Visitor, acting("admin")]
