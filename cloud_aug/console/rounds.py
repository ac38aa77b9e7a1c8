"""Federated rounds: the series of a task, how good each round's model is, who answered and who did not."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from starlette.responses import Response

from cloud_aug.console import charts, live, pages
from cloud_aug.console.charts import Series
from cloud_aug.console.visitor import Looking, PageRoute
from cloud_aug.rounds import status

router = APIRouter(route_class=PageRoute)
SHOWN = 200  # rounds of a series

SeriesPath = Annotated[str, Path(pattern="^[0-9a-f]{16}$")]


@router.get("/rounds")
def list_series(visitor: Looking) -> Response:
    """Every series."""
    mark = live.mark(visitor.cloud, "rounds")
    found = status.list_all(visitor.cloud, now=visitor.now)
    return pages.page("rounds.html", visitor=visitor, mark=mark, series=found)


@router.get("/rounds/{series}")
def one_series(visitor: Looking, series: SeriesPath) -> Response:
    """One series with its last rounds."""
    mark = live.mark(visitor.cloud, "rounds")
    found = status.status(visitor.cloud, series, now=visitor.now, history=SHOWN)
    scores = [(one.number, 100 * one.score) for one in found.history if one.score is not None]
    answered = [(float(one.number), float(one.answered)) for one in found.history]
    invited = [(float(one.number), float(one.invited)) for one in found.history]
    expected = [(float(one.number), one.expected_s) for one in found.history if one.expected_s is not None]
    took = [(float(one.number), one.took_s) for one in found.history if one.took_s is not None]
    down = [(float(one.number), one.bytes_down / 1024) for one in found.history]
    up = [(float(one.number), one.bytes_up / 1024) for one in found.history]
    joules = [(float(one.number), one.energy_j) for one in found.history if one.energy_j is not None]
    return pages.page(
        "series.html",
        visitor=visitor,
        mark=mark,
        series=found,
        charts=[
            charts.lines("Score of the model by round, points", [Series("score", scores)]),
            charts.lines("Boards by round", [Series("invited", invited), Series("answered", answered)]),
            charts.lines("Turn of the median board, seconds", [Series("took", took), Series("expected", expected)]),
            charts.lines("Sent by round, KiB", [Series("down", down), Series("up", up)]),
            charts.lines("Energy by round, joules, of boards that measure it", [Series("energy", joules)]),
        ],
    )
