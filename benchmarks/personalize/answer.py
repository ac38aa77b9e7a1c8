"""The answer as data, as a table, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from benchmarks.figures import Figure, at_least, at_most, exactly, machine, noted
from benchmarks.figures import table as figure_table
from benchmarks.personalize.overall import Overall, best_single, compare
from benchmarks.personalize.plan import Plan, Wanted
from benchmarks.personalize.records import Pair, Row, Spent
from benchmarks.personalize.run import Run
from benchmarks.personalize.summary import Summary, summarize

QUESTION = "Which recipe helps boards how much?"
SECONDS_PER_RECIPE, MINUTES_PER_DATA = 8.0, 15.0
CORES = 2
CONTROL_AND = 3.0  # percent of users whom `auto` may harm beyond those of the control


@dataclass(frozen=True)
class Goal:
    """Of `auto` over `local`. gain: in points, or, where `errors`, in percent of fewer errors; labels: the label
    efficiency that is dreamt of."""

    gain: float
    labels: float | None = None
    errors: bool = False

    def came_to(self, one: Summary) -> float:
        """What is measured against `gain`."""
        return one.fewer_errors or 0.0 if self.errors else one.gain


GOALS = {
    ("myo", 1): Goal(2.5, 3),
    ("myo", 3): Goal(2.5, 3),
    ("myo", 10): Goal(0.5, 2),
    ("wisdm", 1): Goal(6, 3),
    ("wisdm", 3): Goal(3, 2),
    ("wisdm", 10): Goal(0.5, 1.5),
    ("mnist", 1): Goal(15, 2, errors=True),
    ("mnist", 3): Goal(15, 2, errors=True),
    **{(data, share): Goal(0.5) for data in ("movielens", "amazon") for share in (20, 50)},
}


@dataclass(frozen=True)
class Answer:
    """rows: of this code and data, the control and the ladder included; left_out: data -> users with too few rows."""

    wanted: Wanted
    rows: list[Row]
    summary: list[Summary]
    overall: list[Overall]
    figures: list[Figure]
    pairs: list[Pair]
    left_out: dict[str, int]

    @property
    def shots(self) -> dict[str, tuple[int, ...]]:
        return {data: self.wanted.shots_of(data) for data in self.wanted.data}


def make(run: Run, plan: Plan, wanted: Wanted, pairs: list[Pair]) -> Answer:
    """What the run's journal says about the plan's games."""
    games = {(game.place.code, game.board, game.shots) for game in plan.games}
    names = {*wanted.recipes}
    rows = [row for row in run.rows.of(plan.codes) if (row.code, row.board, row.shots) in games and row.recipe in names]
    shots = {data: wanted.shots_of(data) for data in wanted.data}
    summary = summarize(rows, shots, run.peaks.of(plan.codes))
    overall = compare(rows, shots)
    left_out: dict[str, int] = {}
    for (data, _), count in plan.left_out.items():
        left_out[data] = left_out.get(data, 0) + count
    figures = _figures(summary, overall, run.spent.of(plan.codes), wanted)
    if pairs:
        figures.append(_same_through_https(pairs))
    return Answer(wanted, rows, summary, overall, figures, pairs, left_out)


def _figures(
    summary: Sequence[Summary], overall: Sequence[Overall], spent: Sequence[Spent], wanted: Wanted
) -> list[Figure]:
    found = [figure for one in summary if one.recipe == "auto" for figure in _of_auto(one)]
    auto = next((one for one in overall if one.recipe == "auto"), None)
    single = best_single(overall)
    if auto and single and single.auto_minus is not None:
        anchor = f"95 %: {single.auto_low:+.1f} to {single.auto_high:+.1f}"
        name = f"all data: auto minus the best single recipe ({single.recipe})"
        found.append(noted(name, single.auto_minus, "points", anchor=anchor))
    for data in wanted.data:
        mine = [one for one in summary if one.data == data]
        if mine:
            most = max(mine, key=lambda one: one.seconds_most)
            name, anchor = (
                f"{Path(data).stem}: the longest board and recipe",
                f"{most.recipe}, {most.shots} shots; one core",
            )
            found.append(at_most(name, most.seconds_most, "s", SECONDS_PER_RECIPE, anchor=anchor))
        minutes = sum(one.seconds for one in spent if one.data == data) / CORES / 60
        found.append(
            at_most(f"{Path(data).stem}: all of it", minutes, "min", MINUTES_PER_DATA, anchor=f"on {CORES} cores")
        )
    return found


def harm_limit(one: Summary) -> float:
    """Percent of users that `auto` may harm at most."""
    return 100 * (one.harmed_control or 0.0) + CONTROL_AND


def _of_auto(one: Summary) -> list[Figure]:
    name, goal = f"{Path(one.data).stem}, {one.shots} shots", GOALS.get((one.data, one.shots))
    gain = f"local; 95 %: {one.gain_low:+.1f} to {one.gain_high:+.1f}"
    if goal is None:
        found = [noted(f"{name}: gain of auto", one.gain, "points", anchor=gain)]
    elif goal.errors and one.fewer_errors is not None:
        fewer = f"local; 95 %: {one.fewer_errors_low:+.0f} to {one.fewer_errors_high:+.0f}"
        found = [at_least(f"{name}: fewer errors by auto", goal.came_to(one), "%", goal.gain, anchor=fewer)]
    else:
        found = [at_least(f"{name}: gain of auto", goal.came_to(one), "points", goal.gain, anchor=gain)]
    if goal and goal.labels and one.efficiency is not None:
        labels = f"labels that local needs; {one.efficiency_is}".rstrip("; ")
        found.append(at_least(f"{name}: label efficiency", one.efficiency, "x", goal.labels, anchor=labels))
    if one.harmed_control is not None:
        anchor = f"control {100 * one.harmed_control:.0f} %; clearly harmed {100 * one.clearly_harmed:.0f} %"
        found.append(at_most(f"{name}: users harmed by auto", 100 * one.harmed, "%", harm_limit(one), anchor=anchor))
    return found


def _same_through_https(pairs: Sequence[Pair]) -> Figure:
    different = sum(not pair.same for pair in pairs)
    anchor = f"the functions called directly; {len(pairs)} boards and recipes"
    return exactly("through HTTPS: accuracies that differ", different, "pairs", 0, anchor=anchor)


def text(answer: Answer) -> str:
    """For a terminal."""
    parts = [QUESTION, table(answer.summary), overall_table(answer.overall), https_table(answer.pairs)]
    parts.append(figure_table(answer.figures))
    return "\n\n".join(part for part in parts if part)


def table(summary: Sequence[Summary]) -> str:
    header = (
        "data", "shots", "recipe", "users", "mean", "worst 10 %", "gain over local (95 %)", "harmed", "control",
        "clearly", "labels", "kept", "k rows", "s", "MiB",
    )  # fmt: skip
    return layout([header] + [(Path(one.data).stem, str(one.shots), *cells(one)) for one in summary])


def cells(one: Summary) -> tuple[str, ...]:
    """One row of the table, without data and shots."""
    return (
        name_of(one.recipe, oracle=one.oracle),
        str(one.users),
        f"{one.mean:.1f}",
        f"{one.worst_decile:.1f}",
        "" if one.recipe == "local" else interval(one.gain, one.gain_low, one.gain_high),
        share(one.harmed),
        share(one.harmed_control),
        share(one.clearly_harmed),
        efficiency(one),
        f"{one.kept:.1f} of {one.candidates:.0f}" if one.candidates else "",
        f"{one.forwards / 1000:.0f}",
        f"{one.seconds:.2f}",
        "" if one.peak_mib is None else f"{one.peak_mib:.0f}",
    )


def name_of(recipe: str, *, oracle: bool) -> str:
    return f"{recipe} (sees the test)" if oracle else recipe


def interval(value: float, low: float | None, high: float | None) -> str:
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})".replace("-", "−")


def share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"


def efficiency(one: Summary) -> str:
    if one.efficiency is None:
        return ""
    sign = {"at least": "≥ ", "at most": "≤ "}.get(one.efficiency_is, "")
    return f"{sign}{one.efficiency:.1f} ×"


def overall_table(overall: Sequence[Overall]) -> str:
    header = ("all data sets together", "gain over local (95 %)", "auto minus it (95 %)")
    return layout([header] + [overall_cells(one) for one in overall]) if overall else ""


def https_table(pairs: Sequence[Pair]) -> str:
    header = ("data", "board", "shots", "recipe", "through HTTPS", "functions", "")
    return layout([header] + [https_cells(pair) for pair in pairs]) if pairs else ""


def https_cells(pair: Pair) -> tuple[str, ...]:
    verdict = "same" if pair.same else "DIFFERS"
    scores = (f"{100 * pair.https:.2f}", f"{100 * pair.direct:.2f}")
    return Path(pair.data).stem, pair.board, str(pair.shots), pair.recipe, *scores, verdict


def overall_cells(one: Overall) -> tuple[str, str, str]:
    against = "" if one.auto_minus is None else interval(one.auto_minus, one.auto_low, one.auto_high)
    gain = "" if one.recipe == "local" else interval(one.gain, one.low, one.high)
    return name_of(one.recipe, oracle=one.oracle), gain, "" if one.recipe == "auto" else against


def layout(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def write_json(answer: Answer, path: Path) -> None:
    """rows: per user, shots, seed and recipe, `base` and `local` beside each; without the scores by recording."""
    scores = {(row.data, row.board, row.shots, row.seed, row.training, row.recipe): row.score for row in answer.rows}
    rows = []
    for row in answer.rows:
        fields = {name: value for name, value in asdict(row).items() if name not in ("units", "code")}
        place = (row.data, row.board, row.shots, row.seed, row.training)
        rows.append({**fields, **{name: scores.get((*place, name)) for name in ("base", "local")}})
    report = {
        "question": QUESTION,
        "figures": [asdict(figure) for figure in answer.figures],
        "summary": [asdict(one) for one in answer.summary],
        "overall": [asdict(one) for one in answer.overall],
        "through_https": [asdict(pair) for pair in answer.pairs],
        "left_out": answer.left_out,
        "rows": rows,
        "machine": machine(),
    }
    path.write_text(json.dumps(report, indent=1) + "\n")


def need_matplotlib() -> None:
    if find_spec("matplotlib") is None:
        raise SystemExit("personalize: --html and --curves draw with matplotlib: pip install '.[bench]'")
