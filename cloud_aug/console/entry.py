"""In and out: the login, the logout, and the files that pages need before anybody is logged in."""

from __future__ import annotations

import hmac
import re
import secrets
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import FileResponse, Response

from cloud_aug import sessions
from cloud_aug.console import pages, visitor
from cloud_aug.console.visitor import COOKIE, TOKEN_FIELD, Asked, Form, PageRoute
from edgewire.errors import NotFound, RateLimited, Refused, RetryLater, Unauthorized

router = APIRouter(route_class=PageRoute)
LOGIN_COOKIE = "__Host-login"  # ties the form to the browser that asked for it; it opens nothing
_TICKET = re.compile(r"[A-Za-z0-9_-]{32}")
_FILES = {"console.css": "text/css", "console.js": "text/javascript", "icon.svg": "image/svg+xml"}

Next = Annotated[str, Query(max_length=visitor.NEXT_LENGTH)]


@router.get("/login")
def ask(request: Request, next: Next = "/") -> Response:
    """The form; whoever is logged in goes on."""
    secret, state = request.cookies.get(COOKIE, ""), request.app.state
    if secret and sessions.find(state.cloud, secret, now=state.clock(), used=False):
        return pages.redirect(visitor.inside(next))
    return _form(request, next)


@router.post("/login")
def log_in(request: Request, fields: Form) -> Response:
    """A new session, under a new secret, whatever cookie came along."""
    ticket, state = request.cookies.get(LOGIN_COOKIE, ""), request.app.state
    if not ticket or not hmac.compare_digest(ticket.encode(), fields.get(TOKEN_FIELD, "").encode()):
        raise Refused("this form is of another browser", hint="load the login page again")
    address, there = request.client.host if request.client else "", visitor.inside(fields.get("next", "/"))
    name, password, shown = fields.get("name", "")[:80], fields.get("password", ""), request.cookies.get(COOKIE, "")
    try:
        secret = sessions.log_in(state.cloud, name, password, address=address, shown=shown, now=state.clock())
    except (Unauthorized, RateLimited, RetryLater) as error:
        return _form(request, there, name=name, error=error)
    answer = pages.redirect(there)
    _set(answer, COOKIE, secret)
    return answer


@router.post("/logout")
def log_out(visitor: Asked) -> Response:
    """End the session."""
    sessions.log_out(visitor.cloud, visitor.secret, visitor.session, now=visitor.now)
    answer = pages.redirect("/login")
    _drop(answer, COOKIE)
    answer.headers["clear-site-data"] = '"cache"'
    return answer


@router.get("/console/{name}")
def file(name: str) -> Response:
    """Style, script and icon."""
    if name not in _FILES:
        raise NotFound("there is no such page")
    headers = {"cache-control": "max-age=600", "cross-origin-resource-policy": "same-origin"}
    return FileResponse(pages.STATIC / name, media_type=_FILES[name], headers=headers)


def _form(request: Request, there: str, *, name: str = "", error: Unauthorized | RetryLater | None = None) -> Response:
    held = request.cookies.get(LOGIN_COOKIE, "")
    # one for all tabs of a browser: else only the form that was loaded last would be taken
    ticket = held if _TICKET.fullmatch(held) else secrets.token_urlsafe(24)
    values = {"token": ticket, "next": visitor.inside(there), "name": name, "error": error, "visitor": None}
    answer = pages.page("login.html", status=error.http_status if error else 200, **values)
    if error is not None and error.retry_after_s is not None:
        answer.headers["retry-after"] = str(int(error.retry_after_s) + 1)
    _set(answer, LOGIN_COOKIE, ticket)
    return answer


def _set(answer: Response, name: str, value: str) -> None:
    answer.set_cookie(name, value, path="/", secure=True, httponly=True, samesite="strict")


def _drop(answer: Response, name: str) -> None:
    answer.delete_cookie(name, path="/", secure=True, httponly=True, samesite="strict")
