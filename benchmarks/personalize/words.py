"""The answer in sentences, from the figures alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.personalize.answer import GOALS, Answer, efficiency, harm_limit, interval, overall_cells, share
from benchmarks.personalize.overall import Overall, best_single
from benchmarks.personalize.plan import IN_PERCENT
from benchmarks.personalize.summary import ORACLE, Summary, order_of


def verdict(answer: Answer) -> str:
    """One sentence or two: does `auto` help, and would one recipe for everybody have done better?"""
    found = {one.recipe: one for one in answer.overall}
    auto, single = found.get("auto"), best_single(answer.overall)
    if auto is None or single is None:
        return "`auto` was not measured on everything, so nothing is said about all data sets together."
    first = (
        f"Averaged over {_of(answer)}, `auto` {_gains(auto.gain, auto.low, auto.high)} over training on the board's "
        "own samples alone (`local`)"
    )
    if single.auto_minus is None or single.auto_low is None or single.auto_high is None:
        return f"{first}."
    against = interval(single.auto_minus, single.auto_low, single.auto_high)
    if single.auto_low > 0:
        second = f"which is more than any single recipe for everybody: {against} points against `{single.recipe}`"
    elif single.auto_high < 0:
        second = f"but `{single.recipe}` for everybody would have done better: auto is {against} points from it"
    else:
        second = f"about as much as the best single recipe for everybody, `{single.recipe}` ({against} points)"
    return f"{first}, {second}."


def _of(answer: Answer) -> str:
    cells = len({(one.data, one.shots) for one in answer.summary if one.recipe == "auto"})
    data = len({one.data for one in answer.summary})
    return f"{data} data set{'s' * (data > 1)} and {cells} number{'s' * (cells > 1)} of samples"


def _gains(gain: float, low: float, high: float) -> str:
    does = "gains" if low > 0 else "loses" if high < 0 else "neither clearly gains nor loses, with"
    return f"{does} {interval(gain, low, high)} points"


def harm(answer: Answer) -> str:
    """What `auto` does to users whom it does not help."""
    mine = [one for one in answer.summary if one.recipe == "auto"]
    local = [one for one in answer.summary if one.recipe == "local"]
    if not mine:
        return "`auto` was not measured."
    control = [one.harmed_control for one in mine if one.harmed_control is not None]
    beside = f"; the same recipe against itself with another seed gives {_range(control)}" if control else ""
    return (
        f"For {_range([one.harmed for one in mine])} of the users (depending on data and shots) harm by `auto` cannot "
        "be ruled out: the interval of their own difference to the better of `base` and `local` reaches more than a "
        f"point below it{beside}. Clearly harmed, with the whole interval more than a point below, are "
        f"{_range([one.clearly_harmed for one in mine])} (by `local`: {_range([one.clearly_harmed for one in local])})."
    )


def _range(shares: Sequence[float]) -> str:
    low, high = round(100 * min(shares)), round(100 * max(shares))
    return f"{low}\u00a0%" if low == high else f"{low} to {high}\u00a0%"


def block_title(data: str, shots: int, summary: Sequence[Summary]) -> str:
    """Of the table of a data set and a number of shots."""
    unit = "% of the user's earliest rows" if data in IN_PERCENT else f"sample{'s' * (shots > 1)} per class"
    metric = "AUC" if summary[0].metric == "auc" else "accuracy"
    users = max(one.users for one in summary)
    return f"{Path(data).stem}: {shots} {unit} ({metric} in %, {users} users)"


def blocks(answer: Answer) -> list[tuple[str, list[Summary]]]:
    """The summary in tables: (title, rows)."""
    keys = list(dict.fromkeys((one.data, one.shots) for one in answer.summary))
    found = []
    for data, shots in keys:
        mine = [one for one in answer.summary if (one.data, one.shots) == (data, shots)]
        found.append((block_title(data, shots, mine), mine))
    return found


HEADER = (
    "recipe", "users", "mean", "worst 10 %", "gain over local (95 %)", "harmed", "control", "clearly",
    "labels", "kept", "1000 rows", "seconds", "MiB",
)  # fmt: skip


def goals(answer: Answer) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows of the goals: gain or fewer errors, label efficiency, harm; and how far the oracle is."""
    found = {(one.data, one.shots, one.recipe): one for one in answer.summary}
    rows = []
    for one in answer.summary:
        goal = GOALS.get((one.data, one.shots))
        if one.recipe != "auto" or goal is None:
            continue
        bound = found.get((one.data, one.shots, ORACLE))
        gain, unit = goal.came_to(one), " %" if goal.errors else ""
        best = goal.came_to(bound) if bound else None
        held = [gain >= goal.gain, goal.labels is None or (one.efficiency or 0) >= goal.labels]
        held.append(100 * one.harmed <= harm_limit(one))
        rows.append((
            f"{Path(one.data).stem}, {one.shots}{' %' if one.data in IN_PERCENT else ''}",
            f"{gain:+.1f}{unit}".replace("-", "−"),
            f"{goal.gain:g}{unit}{' fewer errors' if goal.errors else ''}",
            _holds(held[0]),
            "" if best is None else f"{best:+.1f}{unit}".replace("-", "−"),
            efficiency(one),
            "" if goal.labels is None else f"{goal.labels:g} ×",
            "" if goal.labels is None else _holds(held[1]),
            share(one.harmed),
            share(harm_limit(one) / 100),
            _holds(held[2]),
            share(one.clearly_harmed),
        ))  # fmt: skip
    header = ("data", "gain", "goal", "", "oracle", "labels", "dream", "", "harmed", "at most", "", "clearly")
    return header, rows


def costs(answer: Answer) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows of what measuring took."""
    shown = [figure for figure in answer.figures if figure.unit in ("s", "min")]
    rows = [(f.name, f"{f.value:.1f} {f.unit}", f.goal, _holds(bool(f.holds)), f.anchor) for f in shown]
    return ("", "took", "goal", "", ""), rows


def _holds(held: bool) -> str:
    return "yes" if held else "**no**"


def measured(answer: Answer) -> str:
    """With how many seeds which recipes were measured, data set by data set."""
    found = []
    for data in answer.wanted.data:
        mine = [one for one in answer.summary if one.data == data and not one.oracle]
        by_seeds: dict[int, list[str]] = {}
        for name in sorted({one.recipe for one in mine}, key=order_of):
            by_seeds.setdefault(max(one.seeds for one in mine if one.recipe == name), []).append(name)
        parts = [
            f"{count} seed{'s' * (count > 1)} of {', '.join(f'`{name}`' for name in by_seeds[count])}"
            for count in sorted(by_seeds, reverse=True)
        ]
        found.append(f"**{Path(data).stem}**: {'; '.join(parts)}")
    return ". ".join(found)


def chosen(answer: Answer) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows of what `auto` shipped, in percent of boards and seeds."""
    autos = [one for one in answer.summary if one.recipe == "auto" and one.chosen]
    names = sorted({name for one in autos for name in one.chosen}, key=order_of)
    rows = []
    for one in autos:
        total = sum(one.chosen.values())
        unit = " %" if one.data in IN_PERCENT else ""
        shares = [f"{100 * one.chosen.get(name, 0) / total:.0f} %" if name in one.chosen else "–" for name in names]
        rows.append((f"{Path(one.data).stem}, {one.shots}{unit}", *shares))
    return ("data, shots", *names), rows


def fewer_errors(answer: Answer) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows: by how many percent of its errors each recipe beats `local`, for data sets with accuracy."""
    shown = [one for one in answer.summary if one.fewer_errors is not None and not one.oracle and one.recipe != "local"]
    found = {(one.data, one.shots, one.recipe): one for one in shown}
    columns = list(dict.fromkeys((one.data, one.shots) for one in shown))
    names = sorted({one.recipe for one in shown}, key=order_of)
    rows = [(name, *(_errors(found.get((*column, name))) for column in columns)) for name in names]
    return ("recipe", *(f"{Path(data).stem}, {shots}" for data, shots in columns)), rows


def _errors(one: Summary | None) -> str:
    if one is None or one.fewer_errors is None:
        return "–"
    return f"{one.fewer_errors:+.0f} ({one.fewer_errors_low:+.0f} to {one.fewer_errors_high:+.0f})".replace("-", "−")


def overall_rows(found: Sequence[Overall]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows of all data sets together."""
    return ("recipe", "gain over local (95 %)", "auto minus it (95 %)"), [overall_cells(one) for one in found]


def seeds(answer: Answer) -> str:
    """How many seeds were measured: "3", or "3 (wisdm, myo) or 1 (mnist)" where a data set was not finished."""
    found: dict[int, list[str]] = {}
    for data in answer.wanted.data:
        count = len({row.seed for row in answer.rows if row.data == data and row.recipe != "local"})
        found.setdefault(count, []).append(Path(data).stem)
    if len(found) == 1:
        return str(*found)
    return " or ".join(f"{count} ({', '.join(found[count])})" for count in sorted(found, reverse=True))
