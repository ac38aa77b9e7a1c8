"""Boards: the list with its filters, one board with its timeline, and shutting a lost one out."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from markupsafe import Markup
from starlette.responses import Response

from cloud_aug import auth, boards, standing, tasks, telemetry, timeline
from cloud_aug.console import charts, live, pages, words
from cloud_aug.console.charts import Series
from cloud_aug.console.visitor import Looking, Operating, PageRoute, Visitor, seeing
from cloud_aug.routes.asking import BoardPath
from cloud_aug.standing import ORDERS, STATES, Order, Standing, State, Wanted
from edgewire.errors import NotFound
from edgewire.messages import TelemetryPoint

router = APIRouter(route_class=PageRoute)
GAP_S = 600.0  # over a longer silence no energy is added up

Text = Annotated[str, Query(max_length=63)]
Page = Annotated[int, Query(ge=1, le=standing.MAX_PAGE)]


@router.get("/boards")
def list_boards(
    visitor: Looking,
    q: Text = "",
    state: State | Annotated[str, Query(pattern="^$")] = "",
    profile: Text = "",
    task: Text = "",
    order: Order = "seen",
    page: Page = 1,
) -> Response:
    """One page of the boards that are wanted."""
    mark = live.mark(visitor.cloud, "boards")
    wanted = Wanted(q, next((one for one in STATES if one == state), None), profile, task, order, page)
    found = standing.page(visitor.cloud, wanted, now=visitor.now)

    def link(**changes: object) -> str:
        chosen = {"q": q, "state": state, "profile": profile, "task": task, "order": order, **changes}
        said = {name: value for name, value in chosen.items() if value and (name, value) != ("order", "seen")}
        return f"/boards?{urlencode(said)}" if said else "/boards"

    return pages.page(
        "boards.html",
        visitor=visitor,
        mark=mark,
        wanted=wanted,
        found=found,
        link=link,
        states=STATES,
        orders=ORDERS,
        profiles=standing.profiles(visitor.cloud),
        tasks=[one.id for one in tasks.list_all(visitor.cloud)],
    )


@router.get("/boards/{board}")
def one_board(visitor: Looking, board: BoardPath) -> Response:
    """What is known of one board."""
    mark = live.mark(visitor.cloud, "board", board)
    known = _read(visitor, board)
    points = [point for message in telemetry.last(visitor.cloud, board) for point in message.points]
    return pages.page(
        "board.html",
        visitor=visitor,
        mark=mark,
        board=known.board,
        granted=known.tasks,
        groups=known.groups,
        events=known.events,
        charts=_charts(points),
        energy=_energy(points),
    )


@router.get("/boards/{board}/revoke")
def ask_to_revoke(visitor: Annotated[Visitor, seeing("operator")], board: BoardPath) -> Response:
    """Once more, before it is done: there is no way back."""
    found = _read(visitor, board).board
    return pages.page(
        "confirm.html",
        visitor=visitor,
        title=f"Revoke {found.name}?",
        says=f"{found.name} ({board}) is shut out at once: its tokens end, and its key never comes in again. "
        "What it has copied cannot be recalled.",
        action=f"/boards/{board}/revoke",
        button="Revoke this board",
        back=f"/boards/{board}",
        fields={},
    )


@router.post("/boards/{board}/revoke")
def revoke(visitor: Operating, board: BoardPath) -> Response:
    """Shut it out."""
    boards.revoke(visitor.cloud, board, actor=visitor.session.actor, now=visitor.now)
    return pages.redirect(f"/boards/{board}")


@dataclass(frozen=True)
class _Known:
    """What the database has of one board but its telemetry."""

    board: Standing
    tasks: list[str]
    groups: list[str]
    events: list[timeline.Event]


def _read(visitor: Visitor, board: str) -> _Known:
    with visitor.cloud.database.reading() as connection:
        found = standing.one(connection, board, now=visitor.now)
        if found is None:
            raise NotFound("there is no such board", hint="see the list of boards")
        held, groups = sorted(auth.granted(connection, board)), boards.groups_of(connection, board)
        return _Known(found, held, groups, timeline.of_board(connection, board))


def _charts(points: list[TelemetryPoint]) -> list[Markup]:
    heat = [(p.wall_s, p.temperature_c) for p in points if p.temperature_c is not None]
    power = [(p.wall_s, p.power_w) for p in points if p.power_w is not None]
    load = [(p.wall_s, 100 * p.cpu_load) for p in points if p.cpu_load is not None]
    return [
        charts.lines(title, [Series(title, sorted(values))], text_x=words.clock)
        for title, values in (("Temperature, °C", heat), ("Power, W", power), ("CPU load, %", load))
    ]


@dataclass(frozen=True)
class _Energy:
    """watt_hours: that readings of power add up to over covered_s, longer silences left out; modelled: some of them."""

    watt_hours: float
    covered_s: float
    modelled: bool


def _energy(points: list[TelemetryPoint]) -> _Energy | None:
    """None: no two readings of power are near enough to each other."""
    told = sorted((p.wall_s, p.power_w) for p in points if p.power_w is not None)
    pieces = [(b[0] - a[0], (a[1] + b[1]) / 2) for a, b in itertools.pairwise(told)]
    near = [(seconds, watts) for seconds, watts in pieces if seconds <= GAP_S]
    covered_s = sum(seconds for seconds, _ in near)
    if covered_s == 0:
        return None
    modelled = any(point.power_quality == "modelled" for point in points)
    return _Energy(sum(seconds * watts for seconds, watts in near) / 3600, covered_s, modelled)
