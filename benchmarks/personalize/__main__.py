"""Which recipe helps boards how much? Every recipe on real users, with the product's own functions, paired by user."""

from __future__ import annotations

import argparse
import math
import os
import time
from pathlib import Path

import numpy as np

from benchmarks.personalize import answer, curves, document, https, report
from benchmarks.personalize.answer import Answer
from benchmarks.personalize.plan import Wanted, make_plan
from benchmarks.personalize.run import Run, say
from demo import data
from edgelearn.personalize.recipes import RECIPES
from edgewire.errors import EdgeError


def main() -> None:
    arguments = _arguments()
    wanted = Wanted(
        arguments.data,
        arguments.shots,
        arguments.seeds,
        arguments.boards,
        arguments.folds,
        arguments.recipes,
    )
    unknown = set(wanted.recipes) - {*RECIPES, "auto"}
    if unknown:
        raise SystemExit(f"unknown recipe '{min(unknown)}'; there are: {', '.join((*RECIPES, 'auto'))}")
    drawn = [path for path in (arguments.html, arguments.curves) if path]
    if drawn:
        answer.need_matplotlib()
    try:
        plan = make_plan(wanted)
    except (ValueError, OSError, EdgeError) as error:
        raise SystemExit(f"personalize: {error}") from None
    run = Run(arguments.work, wanted.recipes, arguments.processes)
    until = time.monotonic() + 60 * arguments.minutes
    run.play(plan, until=until)
    if not arguments.quick:
        run.weigh(plan, until=until)
    pairs = https.play(plan, arguments.through_https, arguments.work) if arguments.through_https else []
    found = answer.make(run, plan, wanted, pairs)
    _show(found, arguments)


def _show(found: Answer, arguments: argparse.Namespace) -> None:
    print(answer.text(found))
    if arguments.json:
        answer.write_json(found, arguments.json)
        say(f"written: {arguments.json}")
    if arguments.html:
        report.write(found, arguments.html)
        say(f"written: {arguments.html}")
    if arguments.curves:
        paths = curves.write_pngs(found.rows, found.summary, arguments.curves)
        say(f"written: {', '.join(map(str, paths))}")
    if arguments.markdown:
        document.write(found, arguments.markdown)
        say(f"written: {arguments.markdown}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.personalize", description=__doc__)
    parser.add_argument(
        "--data", type=_names, help="comma separated: myo, wisdm, mnist, amazon, movielens, or an NPZ file with `part`"
    )
    parser.add_argument(
        "--shots", type=_numbers, help="samples per class; of amazon and movielens, percent of the user's earliest rows"
    )
    parser.add_argument("--seeds", type=int, help="how many")
    parser.add_argument("--boards", type=int, help="at most so many per fold; 0: all")
    parser.add_argument("--folds", type=int, help="at most so many per data set; 0: all")
    parser.add_argument("--recipes", type=_names, help="default: all, and auto")
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, help="one thread each; default: the cores"
    )
    parser.add_argument(
        "--through-https", type=int, nargs="?", const=2, default=0, metavar="BOARDS",
        help="also play so many boards (2) through a real service and the commands, and compare",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="a rough answer within three minutes")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin nothing new after so many")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write rows, summary and figures there")
    parser.add_argument("--html", type=Path, metavar="OUT", help="write a report for people there")
    parser.add_argument("--curves", type=Path, metavar="DIR", help="write learning curves there, PNG")
    parser.add_argument("--markdown", type=Path, metavar="OUT", help="write docs/personalization.md there")
    parser.add_argument("--work", type=Path, default=Path("bench-personalize"), help="kept between runs: resumes")
    arguments = parser.parse_args()
    ordinary = Wanted(("wisdm",), None, seeds=3, boards=0, folds=0, recipes=(*RECIPES, "auto"))
    default = _quick(arguments.work) if arguments.quick else ordinary
    for name in ("data", "shots", "seeds", "boards", "folds", "recipes"):
        if getattr(arguments, name) is None:
            setattr(arguments, name, getattr(default, name))
    # what gains and harm are measured against
    arguments.recipes = tuple(dict.fromkeys(("base", "local", *arguments.recipes)))
    return arguments


def _quick(work: Path) -> Wanted:
    """A few real users, or the demo's simulated ones where the data is not at hand."""
    source = "wisdm"
    try:
        data.find("wisdm.npz")
    except ValueError as error:
        say(f"{error}; the demo's digits stand in, whose styles are simulated")
        work.mkdir(parents=True, exist_ok=True)
        source = str(work / "digits.npz")
        np.savez(source, **data.load("digits", boards=4, seed=0).rows)
    return Wanted((source,), (3,), seeds=1, boards=4, folds=1, recipes=(*RECIPES, "auto"))


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part for part in text.split(",") if part))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(sorted({int(part) for part in text.split(",")}))


if __name__ == "__main__":
    main()
