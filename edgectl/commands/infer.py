"""edgectl infer"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgectl.commands import Invocation, JsonFlag, TaskFlag, invocation
from edgectl.output import emit

if TYPE_CHECKING:
    import numpy as np

    from edgectl.serving import Serving


def register(app: typer.Typer) -> None:
    app.command("infer")(infer)


def infer(
    ctx: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE|FOLDER|-", help="NPZ, CSV with a header, an image, a WAV file, or a folder; needs no labels."
        ),
    ],
    task: TaskFlag = None,
    part: Annotated[str | None, typer.Option(help="Only rows of that part: pool, local or test.")] = None,
    top: Annotated[int, typer.Option(min=1, help="How many labels to print per sample.")] = 1,
    device: Annotated[str | None, typer.Option(metavar="cpu|cuda|auto", help="Where to run.")] = None,
    json: JsonFlag = False,
) -> None:
    """Label samples with the model that serves: one line per sample, label and probability.

    Of a folder, each line begins with the file's name. Of a recording, each window is a sample.
    """
    from edgectl.inference import Predictor, probabilities
    from edgectl.serving import serving
    from edgewire import readers

    here = invocation(ctx)
    here = Invocation(here.settings.override(device=device), here.places, here.clock)
    model = serving(here.home, here.task_id(task), here.clock())
    path = None if str(file) == "-" else file
    samples = readers.read(path, model.task, stdin=sys.stdin.buffer, part=part, labelled=False)
    settings = here.with_profile()
    providers = (settings.text("providers") or "").split(",")
    device = settings.text("device") or "auto"
    predictor = Predictor(model.model, threads=here.threads, device=device, providers=providers)
    shares = probabilities(predictor.run(samples.x)[0])
    ranked = (-shares).argsort(axis=1, kind="stable")[:, :top]
    lines = _lines(model, shares, ranked)
    if path is not None and path.is_dir():
        lines = [f"{name}\t{line}" for name, line in zip(samples.group, lines, strict=True)]
    emit(_report(model, predictor.provider, shares, ranked, samples.group), lines, as_json=json)


def _report(
    model: Serving, provider: str, shares: np.ndarray, ranked: np.ndarray, groups: np.ndarray
) -> dict[str, Any]:
    labels = model.task.labels
    return {
        "task": model.task.id,
        "version": model.version,
        "recipe": model.recipe,
        "provider": provider,
        "predictions": [
            {
                **({"group": str(group)} if group else {}),
                "label": labels[order[0]],
                "probability": round(float(row[order[0]]), 6),
                "top": [{"label": labels[k], "probability": round(float(row[k]), 6)} for k in order],
            }
            for row, order, group in zip(shares, ranked, groups, strict=True)
        ],
    }


def _lines(model: Serving, shares: np.ndarray, ranked: np.ndarray) -> list[str]:
    labels = model.task.labels
    return ["\t".join(f"{labels[k]}\t{row[k]:.4f}" for k in order) for row, order in zip(shares, ranked, strict=True)]
