"""Releases: the waves as they move, and the hand on the brake."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path
from starlette.responses import Response

from cloud_aug.console import charts, live, pages
from cloud_aug.console.charts import Part
from cloud_aug.console.visitor import Form, Looking, Operating, PageRoute, Visitor, seeing
from cloud_aug.releases import status, steering, waves
from cloud_aug.releases.status import Counts
from edgewire.errors import InvalidMessage

router = APIRouter(route_class=PageRoute)
BOARDS = 50  # of those that failed or went back

Step = Literal["start", "pause", "resume", "abort"]
ReleasePath = Annotated[str, Path(pattern="^[0-9a-f]{16}$")]

_STEPS = {"start": steering.start, "pause": steering.pause, "resume": steering.resume, "abort": steering.abort}
_FROM: dict[Step, tuple[str, ...]] = {
    "start": ("draft",),
    "pause": ("running",),
    "resume": ("paused",),
    "abort": ("draft", "running", "paused", "done"),
}
_SAYS: dict[Step, str] = {
    "start": "It is offered to the boards of the first wave with their next sync.",
    "pause": "No board is offered it any more until it is resumed. Boards that run it go on running it.",
    "resume": "The wave is watched for its whole time again, then the next one begins.",
    "abort": "It ends for good, and boards that run it are told to go back to what they had.",
}


@router.get("/releases")
def list_releases(visitor: Looking) -> Response:
    """Every release."""
    waves.advance_all(visitor.cloud, now=visitor.now)  # there is no clockwork: whoever looks lets it go on
    mark = live.mark(visitor.cloud, "releases")
    return pages.page("releases.html", visitor=visitor, mark=mark, releases=status.list_all(visitor.cloud))


@router.get("/releases/{release}")
def one_release(visitor: Looking, release: ReleasePath) -> Response:
    """One release with its waves, and the boards that it did not suit."""
    waves.advance_all(visitor.cloud, now=visitor.now)
    mark = live.mark(visitor.cloud, "releases", release)
    found = status.find(visitor.cloud, release)
    trouble = status.boards(visitor.cloud, release, states=("failed", "reverted"), limit=BOARDS)
    return pages.page(
        "release.html",
        visitor=visitor,
        mark=mark,
        release=found,
        chart=charts.stack("Boards", _parts(found.info.counts)),
        trouble=trouble,
        steps=[step for step, states in _FROM.items() if found.info.state in states],
    )


@router.get("/releases/{release}/{step}")
def ask(visitor: Annotated[Visitor, seeing("operator")], release: ReleasePath, step: Step) -> Response:
    """Once more, before it is done."""
    found = status.find(visitor.cloud, release).info
    return pages.page(
        "confirm.html",
        visitor=visitor,
        title=f"{step.capitalize()} the release of {found.what}?",
        says=f"{found.task}: {found.counts.committed} of {found.counts.boards} boards run it. {_SAYS[step]}",
        action=f"/releases/{release}/{step}",
        button=f"{step.capitalize()} this release",
        back=f"/releases/{release}",
        fields={"revision": found.revision},
    )


@router.post("/releases/{release}/{step}")
def do(visitor: Operating, release: ReleasePath, step: Step, fields: Form) -> Response:
    """Start, pause, resume or abort it, if it still is what the operator saw."""
    revision = fields.get("revision", "")
    if not revision.isascii() or not revision.isdigit() or len(revision) > 9:
        raise InvalidMessage("the form does not say which state of the release it is about")
    _STEPS[step](visitor.cloud, release, actor=visitor.session.actor, now=visitor.now, revision=int(revision))
    return pages.redirect(f"/releases/{release}")


def _parts(counts: Counts) -> list[Part]:
    return [
        Part("run it", counts.committed, "good"),
        Part("offered", counts.offered, "c0"),
        Part("went back", counts.reverted, "warn"),
        Part("failed", counts.failed, "bad"),
        Part("waiting", counts.waiting, "rest"),
    ]
