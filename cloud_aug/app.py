"""The web application: all wiring visible in one function."""

from __future__ import annotations

import functools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import sqlalchemy as sa
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from cloud_aug import openapi
from cloud_aug.cloud import open_settings
from cloud_aug.console import pages, site
from cloud_aug.console.live import Streams
from cloud_aug.metrics import Report
from cloud_aug.middleware import BodyGuard, Crowd, Envelope, Watch
from cloud_aug.rates import Rates
from cloud_aug.replies import error_reply, told
from cloud_aug.rounds.referee import Referee
from cloud_aug.routes import admin, content, docs, enrolment, exchange, health, releasing, rounds, watching
from cloud_aug.search import Searcher
from cloud_aug.settings import Settings
from edgewire.errors import EdgeError, InvalidMessage, NotFound, UsageError


def create_app(settings: Settings, *, clock: Callable[[], float] = time.time) -> FastAPI:
    """The service for one data folder. Raises what opening it raises: NotFound, CorruptFile, Outdated."""
    cloud = open_settings(settings)
    rates, referee = Rates(cloud), Referee(cloud, clock)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        referee.start()
        yield
        referee.close()
        rates.close()
        cloud.database.close()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    app.state.cloud, app.state.searcher, app.state.clock = cloud, Searcher(cloud), clock
    app.state.rates, app.state.report, app.state.referee = rates, Report(cloud, clock), referee
    app.state.streams = Streams(min(settings.limits.live_streams, max(1, settings.limits.requests_at_once // 2)))
    for routes in (health, enrolment, content, exchange, rounds, releasing, admin, docs, watching, site):
        app.include_router(routes.router)
    for kind in (EdgeError, OSError, sa.exc.DBAPIError, sa.exc.TimeoutError):
        app.add_exception_handler(kind, _told)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _parameter_error)
    # the last one added is the first one asked
    app.add_middleware(BodyGuard, limits=settings.limits)
    app.add_middleware(Crowd, limits=settings.limits)
    app.add_middleware(Envelope, clock=clock)
    app.add_middleware(Watch)
    app.openapi = functools.cache(lambda: openapi.document(app))  # type: ignore[method-assign]
    return app


def _told(_request: Request, error: Exception) -> Response:
    return error_reply(told(error))


def _http_error(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 500)
    kinds: dict[int, EdgeError] = {404: NotFound("there is no such page"), 405: UsageError("the method is not allowed")}
    by_person = "text/html" in request.headers.get("accept", "")
    answer = (pages.refusal if by_person else error_reply)(kinds.get(status, EdgeError("the request failed")))
    answer.status_code = status
    answer.headers.update(getattr(error, "headers", None) or {})  # with 405: which methods are allowed
    return answer


def _parameter_error(_request: Request, error: Exception) -> Response:
    problems = error.errors() if isinstance(error, RequestValidationError) else []
    told = "; ".join(f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}" for problem in problems[:3])
    return error_reply(InvalidMessage(f"the request's address is malformed: {told}"))
