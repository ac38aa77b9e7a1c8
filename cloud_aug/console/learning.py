"""Tasks and models: what is learned, from whom, at what price, and which model came of which."""

from __future__ import annotations

from typing import Any

import numpy as np
from fastapi import APIRouter
from markupsafe import Markup
from starlette.responses import Response

from cloud_aug import bases, census, lineage, publications, tasks
from cloud_aug.cloud import Cloud
from cloud_aug.console import charts, cohorts, live, pages
from cloud_aug.console.charts import Series
from cloud_aug.console.visitor import Looking, PageRoute
from cloud_aug.publications import Publication
from cloud_aug.routes.asking import TaskPath
from edgewire.errors import EdgeError
from edgewire.messages import RecipeFigure
from edgewire.tasks import Task

router = APIRouter(route_class=PageRoute)
LABELS, COHORTS = 40, 20  # in the table of who covers what


@router.get("/tasks")
def list_tasks(visitor: Looking) -> Response:
    """Every task."""
    mark = live.mark(visitor.cloud, "tasks")
    return pages.page("tasks.html", visitor=visitor, mark=mark, tasks=tasks.list_all(visitor.cloud))


@router.get("/tasks/{task}")
def one_task(visitor: Looking, task: TaskPath) -> Response:
    """One task: pool, cohorts, coverage, what asking costs, and what recipes gained in the rehearsal."""
    mark, cloud = live.mark(visitor.cloud, "tasks"), visitor.cloud
    known = tasks.load(cloud, task)
    with cloud.database.reading() as connection:
        publication, base = publications.current(connection, task), bases.find(connection, task)
    drawn, trouble = _cohorts(cloud, known, publication)
    figures = base.figures if base is not None else ()
    pool = census.stats(cloud, task, now=visitor.now)
    labels = [(label, float(pool.labels.get(label, 0))) for label in known.labels[:LABELS]]
    return pages.page(
        "task.html",
        visitor=visitor,
        mark=mark,
        task=known,
        pool=pool,
        publication=publication,
        base=base,
        label_chart=charts.bars("Usable samples by label", labels),
        cohort_charts=drawn,
        trouble=trouble,
        price=_price(cloud, known),
        prior_charts=_prior(figures),
        figures=sorted(figures, key=lambda one: (one.shots, one.recipe)),
    )


@router.get("/models")
def models(visitor: Looking) -> Response:
    """Every base with what was made of it."""
    mark, cloud = live.mark(visitor.cloud, "tasks"), visitor.cloud
    found = [(task, lineage.of_task(cloud, task.id)) for task in tasks.list_all(cloud)]
    return pages.page("models.html", visitor=visitor, mark=mark, found=found)


def _cohorts(cloud: Cloud, task: Task, publication: Publication | None) -> tuple[list[Markup], str]:
    """The map and who covers what, or why there is none."""
    if publication is None:
        return [], "nothing is published yet"
    try:
        drawn = cohorts.drawn(cloud, publication)
    except EdgeError as error:
        return [], error.message
    names = list(task.labels[:LABELS])
    rows = np.asarray(drawn.coverage)[:COHORTS, : len(names)].tolist()
    cells = float((np.asarray(drawn.coverage) > 0).mean())
    return [
        charts.scatter(f"Cohorts: near is alike ({drawn.told:.0%} of it shown)", drawn.dots),
        charts.grid(
            f"Labels that cohorts cover ({cells:.0%})", [f"cohort {k}" for k in drawn.numbers[:COHORTS]], names, rows
        ),
    ], ""


def _price(cloud: Cloud, task: Task) -> dict[str, Any]:
    """The most that a board can have spent of its ε by asking about every directory that was published.

    Boards keep the ledger and tell nobody; but an answer is asked for once per directory, and never where all is small
    enough to be fetched whole. Of publications that are too old to be listed the size is not looked up.
    """
    sizes = [
        (made.publication.directory.digest, made.pack_bytes > task.privacy.fetch_all_below_bytes)
        for one in lineage.of_task(cloud, task.id)
        for made in one.published
    ]
    small = {digest for digest, _ in sizes} - {digest for digest, large in sizes if large}
    asked = lineage.directories(cloud, task.id) - small
    budget, counted = task.privacy.epsilon_budget, "bits" not in task.privacy.modes
    most = min(budget, len(asked) * task.privacy.epsilon) if counted else budget
    parts = [charts.Part("spent at most", most, "warn"), charts.Part("left at least", budget - most, "good")]
    return {"most": most, "asked": len(asked), "counted": counted, "chart": charts.stack("ε of one board", parts)}


def _prior(figures: tuple[RecipeFigure, ...]) -> list[Markup]:
    recipes = sorted({one.recipe for one in figures})
    found = []
    for title, name in (("Gain over the base, points", "gain"), ("Boards harmed, %", "harm")):
        series = [
            Series(recipe, sorted((one.shots, 100 * getattr(one, name)) for one in figures if one.recipe == recipe))
            for recipe in recipes
        ]
        found.append(charts.lines(f"{title}, by samples per class", series))
    return found if figures else []
