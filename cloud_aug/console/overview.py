"""The first page: how the fleet is, what is being done."""

from __future__ import annotations

from fastapi import APIRouter
from markupsafe import Markup
from starlette.responses import Response

from cloud_aug import jobs, standing, tasks
from cloud_aug.cloud import Cloud
from cloud_aug.console import charts, live, pages
from cloud_aug.console.charts import Part
from cloud_aug.console.visitor import Looking, PageRoute
from cloud_aug.releases import status as releases
from cloud_aug.releases.plan import LIVE
from cloud_aug.standing import Wanted

router = APIRouter(route_class=PageRoute)
KINDS = {"well": "good", "hot": "warn", "silent": "rest", "new": "c0", "revoked": "bad"}
JOBS = 5


@router.get("/")
def page(visitor: Looking) -> Response:
    """The whole in one look."""
    mark, found = live.mark(visitor.cloud, "overview"), standing.page(visitor.cloud, Wanted(), now=visitor.now)
    parts = [Part(state, count, KINDS[state]) for state, count in found.counts.items()]
    return pages.page(
        "overview.html",
        visitor=visitor,
        mark=mark,
        total=found.total,
        counts=found.counts,
        states=charts.stack("Boards by state", parts),
        charts=_spreads(visitor.cloud),
        releases=[one for one in releases.list_all(visitor.cloud) if one.state in LIVE],
        tasks=tasks.list_all(visitor.cloud),
        jobs=jobs.newest(visitor.cloud, limit=JOBS, now=visitor.now),
    )


def _spreads(cloud: Cloud) -> list[Markup]:
    heat = standing.spread(cloud, "temperature_c", step=5.0, within=(-40.0, 125.0))
    gains = standing.spread(cloud, "gain", step=0.05, within=(-1.0, 1.0))
    return [
        charts.columns("Boards by temperature, °C", [(f"{start:.0f}", count) for start, count in _whole(heat, 5.0)]),
        charts.columns(
            "Boards by personal gain, points of accuracy",
            [(f"{100 * start:+.0f}", count) for start, count in _whole(gains, 0.05)],
        ),
    ]


def _whole(found: list[tuple[float, int]], step: float) -> list[tuple[float, int]]:
    """With the steps between that nobody is in."""
    if not found:
        return []
    counts = {round(start / step): count for start, count in found}
    return [(number * step, counts.get(number, 0)) for number in range(min(counts), max(counts) + 1)]
