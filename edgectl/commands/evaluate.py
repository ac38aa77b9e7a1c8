"""edgectl eval"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgectl.commands import Invocation, JsonFlag, TaskFlag, invocation
from edgectl.output import emit, table

if TYPE_CHECKING:
    import numpy as np

    from edgewire.samples import Samples
    from edgewire.tasks import Metric


def register(app: typer.Typer) -> None:
    app.command("eval")(evaluate)


def evaluate(
    ctx: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="FILE|FOLDER|-", help="Labelled samples that were not added; as for data add.")
    ],
    task: TaskFlag = None,
    part: Annotated[str | None, typer.Option(help="Only rows of that part: pool, local or test.")] = None,
    recipes: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME", help="Also train these recipes (needs torch) and score them; installs nothing."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="For --recipes.")] = 0,
    json: JsonFlag = False,
) -> None:
    """Score the model that serves, and the base model, on labelled samples of your own."""
    from edgectl.serving import base, serving
    from edgewire import readers

    here = invocation(ctx)
    model = serving(here.home, here.task_id(task), here.clock())
    samples = readers.read(None if str(file) == "-" else file, model.task, stdin=sys.stdin.buffer, part=part)
    metric = model.task.metric
    rows = [_score("serving", model.recipe, here, model.model, samples, metric)]
    reference = base(here.home, model.task.id, here.clock())
    rows.append(_score("base", "base", here, reference.model, samples, metric))
    if recipes:
        rows += _train_and_score(here, model.task.id, recipes.split(","), samples, seed)
    overlap = _already_known(here, samples, model.task.id)
    report = {
        "task": model.task.id,
        "metric": metric,
        "version": model.version,
        "samples": len(samples),
        "trained_on": overlap,
        "models": rows,
    }
    emit(report, _lines(rows, metric, len(samples), overlap), as_json=json)


def _score(name: str, recipe: str, here: Invocation, model: Path, samples: Samples, metric: Metric) -> dict[str, Any]:
    from edgectl.inference import Predictor

    logits, _ = Predictor(model, threads=here.threads).run(samples.x)
    return {"name": name, "recipe": recipe, **_figures(metric, logits, samples.y)}


def _figures(metric: Metric, logits: np.ndarray, y: np.ndarray) -> dict[str, float | None]:
    """Accuracy and, where samples are ranked, the area under the ROC curve; low and high: the 95 % interval of the
    task's metric. Without both labels there is nothing to rank, and None."""
    right = _accuracy(int((logits.argmax(axis=1) == y).sum()), len(y))
    return right if metric == "accuracy" else {"accuracy": right["accuracy"], **_auc(logits, y)}


def _auc(logits: np.ndarray, y: np.ndarray) -> dict[str, float | None]:
    """With Newcombe's 95 % interval ("Confidence intervals for an effect size measure based on the Mann-Whitney
    statistic, part 2", 2006, method 5), which is honest for few samples that are all ranked right."""
    from edgelearn.metrics import placements

    m, n = int((y == 1).sum()), int((y == 0).sum())
    if min(m, n) == 0:
        return {"auc": None, "low": None, "high": None}
    area = float(placements(logits, y)[y == 1].mean())

    def beyond(end: float) -> float:
        """The farthest area towards `end` of which this one is not more than 1.96 standard errors away."""
        inside, outside = area, end
        for _ in range(50):
            middle = (inside + outside) / 2
            more = ((m + n) / 2 - 1) * ((1 - middle) / (2 - middle) + middle / (1 + middle))
            error = (middle * (1 - middle) * (1 + more) / (m * n)) ** 0.5
            inside, outside = (middle, outside) if abs(area - middle) <= 1.96 * error else (inside, middle)
        return inside

    return {"auc": round(area, 6), "low": round(beyond(0.0), 6), "high": round(beyond(1.0), 6)}


def _accuracy(right: int, n: int) -> dict[str, float | None]:
    """With Wilson's 95 % interval (Wilson 1927)."""
    share, z2 = right / n, 1.96**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = 1.96 * (share * (1 - share) / n + z2 / (4 * n * n)) ** 0.5 / (1 + z2 / n)
    return {
        "accuracy": round(share, 6),
        "low": round(max(0.0, middle - half), 6),
        "high": round(min(1.0, middle + half), 6),
    }


def _train_and_score(
    here: Invocation, task_id: str, names: list[str], samples: Samples, seed: int
) -> list[dict[str, Any]]:
    """Within the memory and the scope that training may have on this board, and never beside another training."""
    from edgectl.board import memory
    from edgectl.budget import Budget, Spent, check_loadable

    head_above, settings = here.head_above, here.with_profile()
    check_loadable(memory.available_mib())
    from edgectl import enrolment, material, tasks, training
    from edgelearn.personalize.recipes import applicable
    from edgewire.errors import UsageError
    from edgewire.files import exclusive

    manifest = tasks.known_task(here.home, enrolment.load(here.home), task_id, here.clock())
    there = applicable(manifest.task)
    unknown = [name for name in names if name not in there]
    if unknown:
        raise UsageError(f"task '{task_id}' has no recipe '{unknown[0]}'", hint=f"there are: {', '.join(there)}")
    budget = Budget(memory_mib=settings.whole("train_memory_mib") or None)
    with exclusive(here.home.lock("train"), doing="training on this board"), here.store() as store:
        try:
            made = material.prepare(
                here.home, manifest, store, seed=seed, device=settings.text("device") or "auto", threads=here.threads,
                budget=budget, batch_rows=settings.whole("train_batch_rows"), head_above=head_above,
            )  # fmt: skip
            found = training.compare(made, names, samples)
        except Spent as spent:
            raise spent.refusal() from None
    return [
        {
            "name": f"trained {name}",
            "recipe": name,
            **_figures(manifest.task.metric, logits, samples.y),
            "candidates": personal.candidates,
            "candidate_samples": personal.candidate_samples,
            "kept": len(personal.kept),
            "outside_samples": personal.outside_samples,
            "seconds": round(seconds, 3),
        }
        for name, (personal, logits, seconds) in found.items()
    ]


def _already_known(here: Invocation, samples: Samples, task_id: str) -> int:
    """How many of the samples this board holds itself: a score on those says nothing."""
    from edgewire.samples import sample_digests

    with here.store() as store:
        own = store.digests(task_id)
    return sum(digest in own for digest in sample_digests(samples))


def _lines(rows: list[dict[str, Any]], metric: Metric, n: int, overlap: int) -> list[str]:
    cells = [
        (row["name"], row["recipe"], f"{100 * row[metric]:.1f} %", f"{100 * row['low']:.1f}–{100 * row['high']:.1f}")
        if row[metric] is not None
        else (row["name"], row["recipe"], "only one label", "")
        for row in rows
    ]
    warning = [f"warning: {overlap} of {n} samples are among this board's own; scores on those say nothing"]
    return [f"{n} samples", *table(("model", "recipe", metric, "95 %"), cells), *(warning if overlap else [])]
