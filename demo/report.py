"""The demo's results: a table for people, a few sentences, report.json and report.html."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path

from demo import page

RECIPES = ("base", "local", "random", "mpda")


@dataclass(frozen=True)
class BoardResult:
    """One board. base..mpda, shipped: accuracy on held-out samples, as a fraction; shipped_recipe: what `auto` chose;
    candidates, kept: samples that matching proposed and that the gate accepted; contributors: the same, counted by
    whose they are, as 'kept of candidates'; bytes_down: of bodies, over all its syncs."""

    board: str
    mode: str
    base: float
    local: float
    random: float
    mpda: float
    shipped: float
    shipped_recipe: str
    candidates: int
    kept: int
    contributors: str
    bytes_down: int
    seconds: float
    local_samples: int
    test_samples: int


def mean(results: list[BoardResult], field: str) -> float:
    return sum(getattr(result, field) for result in results) / len(results)


def write(results: list[BoardResult], title: str, about: str, folder: Path) -> Path:
    """Write report.json, and report.html, whose path is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    report = {
        "schema_version": 1,
        "data": title,
        "boards": [asdict(result) for result in results],
        "mean": {name: round(mean(results, name), 6) for name in (*RECIPES, "shipped")},
    }
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    path = folder / "report.html"
    path.write_text(page.page(f"Personal models: {title}", _html(results, title, about)))
    return path


def _html(results: list[BoardResult], title: str, about: str) -> list[str]:
    header, *rows = cells(results)
    return [
        f"<h1>Personal models: {escape(title)}</h1>",
        page.paragraph(about, kind="soft"),
        page.paragraph(answer(results), kind="answer"),
        "<h2>Every board</h2>",
        page.table(header, rows, caption="Accuracy on held-out samples, in %", strong=[len(rows) - 1]),
        page.paragraph(caveats(results)),
        page.paragraph(
            "Each board enrolled with a one-time token, synced over TLS, and trained with its sockets closed. `base` "
            "is the shared model as it is, `local` is trained on the board's own samples alone, `random` also on "
            "contributors picked blindly, `mpda` also on those that the board's gate accepted; `shipped` is what "
            "`auto` chose.",
            kind="soft",
        ),
    ]


def cells(results: list[BoardResult]) -> list[tuple[str, ...]]:
    """The table: a header, a row per board, and the means."""
    header = ("board", "mode", "base", "local", "random", "mpda", "shipped", "kept samples", "KiB down", "seconds")
    rows = [
        (
            result.board,
            result.mode,
            *(f"{100 * getattr(result, name):.1f}" for name in RECIPES),
            f"{100 * result.shipped:.1f} {result.shipped_recipe}",
            f"{result.kept} of {result.candidates}",
            f"{result.bytes_down / 1024:.0f}",
            f"{result.seconds:.1f}",
        )
        for result in results
    ]
    means = ("mean", "", *(f"{100 * mean(results, name):.1f}" for name in (*RECIPES, "shipped")), "", "", "")
    return [header, *rows, means]


def table(results: list[BoardResult]) -> str:
    shown = cells(results)
    widths = [max(len(row[i]) for row in shown) for i in range(len(shown[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown]
    rule = "-" * max(map(len, lines))
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def sentences(results: list[BoardResult]) -> str:
    """What happened, from the figures alone."""
    return f"{answer(results)} {caveats(results)}"


def answer(results: list[BoardResult]) -> str:
    base, shipped = mean(results, "base"), mean(results, "shipped")
    worse = [result.board for result in results if result.shipped < result.base]
    rows = sum(result.test_samples for result in results)
    harmed = f"{len(worse)} of {len(results)} boards got worse than the base ({', '.join(worse)})"
    if not worse:
        harmed = "no board got worse than the base model"
    return (
        f"The base model alone is right in {100 * base:.1f} %, the models that the boards shipped in "
        f"{100 * shipped:.1f} % of {rows} held-out samples; {harmed}."
    )


def caveats(results: list[BoardResult]) -> str:
    best = max(RECIPES, key=lambda name: mean(results, name))
    kept = sum(result.kept for result in results)
    looked = sum(result.candidates for result in results)
    return (
        f"As a single recipe for all boards, '{best}' would have done best ({100 * mean(results, best):.1f} %). Of "
        f"{looked} candidate samples, the gate of `mpda` accepted {kept}."
        " In mode embedding, 'random' draws from what the search returned, which is not random."
        " Few boards and few samples: differences of a point or two are luck."
    )
