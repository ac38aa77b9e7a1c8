"""Learning curves and gains, drawn with matplotlib: PNG files, or SVG whose colours follow the page that holds it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.personalize.plan import IN_PERCENT
from benchmarks.personalize.records import Row
from benchmarks.personalize.summary import Summary, both, group_rows, mean_score, order_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# (number of the page's colour, line, width): lines differ by more than their colour
_STYLES = {
    "auto": (0, "-", 2.6),
    "local": (7, "-", 1.6),
    "base": (7, ":", 1.6),
    "random": (8, (0, (4, 2)), 1.2),
    "oracle": (8, "-.", 1.2),
    "mpda": (1, "-", 1.4),
    "matched": (2, "-", 1.4),
}
_OTHERS = ((3, "-", 1.4), (4, "--", 1.4), (5, "--", 1.4), (6, "-", 1.4), (1, "--", 1.4), (2, ":", 1.6), (3, ":", 1.6))
_PRINT = ("#0067a8", "#c4500a", "#00805f", "#a8487f", "#8a6500", "#2b8fc4", "#5b5bb0", "#1c2126", "#7b858e")
_TEXT, _SOFT, _LINE = "#1c2127", "#5d6772", "#d9dee4"  # unlike any colour above, to be found again in the SVG
_ON_PAGE = {_TEXT: "var(--text)", _SOFT: "var(--soft)", _LINE: "var(--line)"} | {
    colour: f"var(--c{i})" for i, colour in enumerate(_PRINT)
}
_RC = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "svg.fonttype": "none",
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _SOFT,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "text.color": _TEXT,
    "figure.constrained_layout.use": False,
}


def write_pngs(rows: Sequence[Row], summary: Sequence[Summary], folder: Path) -> list[Path]:
    """A learning curve per data set, and the gains of all; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, draw in _charts(rows, summary):
        path = folder / f"{name}.png"
        figure = draw()
        figure.savefig(path, dpi=160, facecolor="white", metadata={"Software": None})
        paths.append(path)
    return paths


def svgs(rows: Sequence[Row], summary: Sequence[Summary]) -> dict[str, str]:
    """The same as SVG elements, in colours of the page."""
    import matplotlib as mpl

    found = {}
    for name, draw in _charts(rows, summary):
        out = StringIO()
        with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
            draw().savefig(out, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator")))
        found[name] = _on_page(out.getvalue(), name)
    return found


def _on_page(svg: str, name: str) -> str:
    """Without prologue and metadata, with the page's fonts and colours; ids that no other chart has."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font(-family)?: [^;\"]*(;|(?=\"))", lambda found: _font(found[0]), svg)
    for colour, variable in _ON_PAGE.items():
        svg = svg.replace(colour, variable)
    for attribute in ('id="', 'xlink:href="#', "url(#"):
        svg = svg.replace(attribute, f"{attribute}{slug(name)}-")
    label = f'<svg role="img" aria-label="{name}"'
    return svg.replace("<svg", label, 1)


def _font(rule: str) -> str:
    """Size stays, family is the page's."""
    size = re.search(r"[\d.]+px", rule)
    return f"font-size: {size[0]}; font-family: inherit;" if size else "font-family: inherit;"


def slug(name: str) -> str:
    """A file or id name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _charts(rows: Sequence[Row], summary: Sequence[Summary]) -> list[tuple[str, Any]]:
    datasets = list(dict.fromkeys(one.data for one in summary))
    curves = [(f"learning-curve-{slug(Path(data).stem)}", data) for data in datasets]
    charts: list[tuple[str, Any]] = [
        (name, lambda data=data: _curve(rows, [one for one in summary if one.data == data], data))
        for name, data in curves
    ]
    return [*charts, ("gains", lambda: _gains(summary))]


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(_RC):
        figure = Figure(figsize=(width, height))
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0)
    axes.grid(axis="y", color=_LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def style_of(recipe: str, names: Sequence[str]) -> tuple[int, Any, float]:
    """Colour, line and width of a recipe."""
    if recipe in _STYLES:
        return _STYLES[recipe]
    others = [name for name in names if name not in _STYLES]
    return _OTHERS[others.index(recipe) % len(_OTHERS)]


def _curve(rows: Sequence[Row], summary: Sequence[Summary], data: str) -> Figure:
    """Mean score over shots, the same users everywhere; `local` at the other rungs of its ladder, too."""
    lines = _points_of(rows, summary, data)
    figure, axes = _figure(8.2, 4.3)
    figure.subplots_adjust(left=0.075, right=0.79, top=0.9, bottom=0.13)
    ticks = sorted({shots for points in lines.values() for shots in points})
    measured = {one.shots for one in summary}
    ends = []
    for name, points in lines.items():
        colour, line, width = style_of(name, list(lines))
        at = sorted(points)
        values = [points[shots] for shots in at]
        axes.plot(
            at,
            values,
            color=_PRINT[colour],
            linestyle=line,
            linewidth=width,
            marker="o",
            markersize=4 if width < 2 else 5,
        )
        asked = [shots for shots in at if shots in measured]
        ends.append((points[asked[-1]], name, _PRINT[colour], width > 2))
    axes.set_xscale("log")
    axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
    axes.minorticks_off()
    unit = "percent of the user's earliest rows" if data in IN_PERCENT else "samples per class"
    axes.set_xlabel(f"{unit} that are the board's own; the figures on the right are at {max(measured)}", color=_SOFT)
    metric = "AUC" if summary[0].metric == "auc" else "right answers"
    users = max(one.users for one in summary)
    axes.set_title(
        f"{Path(data).stem}: {metric} on held-out rows, in % (mean of up to {users} users)",
        loc="left", fontsize=10.5, color=_TEXT,
    )  # fmt: skip
    _label_ends(axes, ends)
    return figure


def _points_of(rows: Sequence[Row], summary: Sequence[Summary], data: str) -> dict[str, dict[int, float]]:
    cells = group_rows([row for row in rows if row.data == data])
    names = sorted({one.recipe for one in summary}, key=order_of)
    asked = sorted({one.shots for one in summary})
    users = set.intersection(*(set(cells[data, shots, "local", 0]) for shots in asked))
    if not users:  # nobody was measured at all of them
        return {n: {s.shots: s.mean for s in summary if s.recipe == n} for n in names}
    found: dict[str, dict[int, float]] = {name: {} for name in names}
    for (_, shots, name, training), by_user in cells.items():
        if training == 0 and name in found and users <= set(by_user):
            local = cells[data, shots, "local", 0]
            scores = [_beside(by_user[user], local[user]) for user in sorted(users) if user in local]
            found[name][shots] = 100 * float(np.mean(scores))
    return {name: points for name, points in found.items() if set(points) & set(asked)}


def _beside(mine: Sequence[Row], local: Sequence[Row]) -> float:
    """A user's mean over all seeds of `local`, also for a recipe that was measured with fewer: `local`, and what the
    recipe is better in the seeds that both have."""
    ours, theirs = both(mine, local)
    return mean_score(local) + mean_score(ours) - mean_score(theirs)


def _label_ends(axes: Axes, ends: Sequence[tuple[float, str, str, bool]]) -> None:
    """Names beside the right edge, as near to their lines' last point as they can be without touching."""
    low, high = axes.get_ylim()
    step = (high - low) / 21
    order = sorted(ends, key=lambda end: end[0])
    places = [value for value, *_ in order]
    for _ in range(200):
        for i in range(1, len(places)):
            gap = places[i] - places[i - 1]
            if gap < step:
                places[i - 1] -= (step - gap) / 2
                places[i] += (step - gap) / 2
    for place, (value, name, colour, strong) in zip(places, order, strict=True):
        axes.annotate(
            f"{name} {value:.1f}", xy=(1.0, place), xytext=(8, 0), xycoords=("axes fraction", "data"),
            textcoords="offset points", va="center", color=colour, fontsize=9.5, annotation_clip=False,
            fontweight="bold" if strong else "normal",
        )  # fmt: skip


def _gains(summary: Sequence[Summary]) -> Figure:
    """Gain over `local` with its interval, a block per data set and shots."""
    shown = [one for one in summary if one.recipe != "local" and not one.oracle]
    blocks = list(dict.fromkeys((one.data, one.shots) for one in shown))
    height = 0.6 + 0.19 * len(shown) + 0.3 * len(blocks)
    figure, axes = _figure(8.2, max(2.0, height))
    figure.subplots_adjust(left=0.2, right=0.96, top=1 - 0.1 / height, bottom=0.5 / height)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=_LINE, linewidth=0.8)
    axes.axvline(0, color=_SOFT, linewidth=1)
    names = sorted({one.recipe for one in shown}, key=order_of)
    at, ticks, labels = 0.0, [], []
    for block in blocks:
        at += 0.5
        ticks.append(at)
        unit = "%" if block[0] in IN_PERCENT else "shots" if block[1] > 1 else "shot"
        labels.append(f"{Path(block[0]).stem}, {block[1]} {unit}")
        for one in (one for one in shown if (one.data, one.shots) == block):
            at += 0.6
            colour, _, width = style_of(one.recipe, names)
            axes.plot([one.gain_low, one.gain_high], [at, at], color=_PRINT[colour], linewidth=width, alpha=0.9)
            axes.plot([one.gain], [at], marker="o", markersize=5, color=_PRINT[colour])
            ticks.append(at)
            labels.append(one.recipe)
        at += 0.5
    axes.set_yticks(ticks, labels)
    for label in axes.get_yticklabels():
        if label.get_text() not in names:
            label.set(fontweight="bold", color=_TEXT)
    axes.set_ylim(at, 0)
    axes.set_xlabel("gain over local in points, 95 % interval over users", color=_SOFT)
    return figure
