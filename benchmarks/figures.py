"""What every benchmark prints: figures against anchors and goals, as a table and as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Figure:
    """anchor: what it was compared with, measured in the same run; goal: as text; holds: None where there is no
    goal."""

    name: str
    value: float
    unit: str
    anchor: str
    goal: str
    holds: bool | None


def at_most(name: str, value: float, unit: str, limit: float, *, anchor: str) -> Figure:
    return Figure(name, round(value, 4), unit, anchor, f"<= {limit:g}", value <= limit)


def at_least(name: str, value: float, unit: str, limit: float, *, anchor: str) -> Figure:
    return Figure(name, round(value, 4), unit, anchor, f">= {limit:g}", value >= limit)


def exactly(name: str, value: float, unit: str, wanted: float, *, anchor: str) -> Figure:
    return Figure(name, value, unit, anchor, f"= {wanted:g}", value == wanted)


def noted(name: str, value: float, unit: str, *, anchor: str = "") -> Figure:
    return Figure(name, round(value, 4), unit, anchor, "", None)


def ratio_in_turn(ours: Callable[[], float], anchor: Callable[[], float], *, rounds: int) -> tuple[float, float, float]:
    """Measure both in turn, so that a drifting machine touches both alike. Medians: ratio of each pair, ours,
    anchor."""
    pairs = [(ours(), anchor()) for _ in range(rounds)]
    return (
        statistics.median(a / b for a, b in pairs),
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
    )


def run(question: str, measure: Callable[[bool], Sequence[Figure]]) -> None:
    """The command line of one benchmark."""
    parser = argparse.ArgumentParser(description=question)
    parser.add_argument("--quick", action="store_true", help="a rough answer within three minutes")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures there, too")
    arguments = parser.parse_args()
    answer(question, list(measure(arguments.quick)), arguments.json)


def answer(question: str, figures: Sequence[Figure], file: Path | None) -> None:
    """Print the figures, and write them to the file, too, where one is given."""
    print(f"{question}\n\n{table(figures)}")
    if file:
        report = {"question": question, "figures": [asdict(figure) for figure in figures], "machine": machine()}
        file.write_text(json.dumps(report, indent=2) + "\n")


def table(figures: Sequence[Figure]) -> str:
    header = ("figure", "value", "unit", "goal", "holds", "anchor")
    holds = {True: "yes", False: "NO", None: ""}
    rows = [(f.name, f"{f.value:g}", f.unit, f.goal, holds[f.holds], f.anchor) for f in figures]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in [header, *rows]]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def machine() -> dict[str, Any]:
    """What the figures were measured on, without names of anybody or any place."""
    return {"arch": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
