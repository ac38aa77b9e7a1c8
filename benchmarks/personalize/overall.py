"""All data sets together: is `auto` worth more than the one recipe that is best on average? A recipe that a task has no
use for stands for `local` there, as it would on a board."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.personalize.plan import IN_PERCENT
from benchmarks.personalize.records import Row
from benchmarks.personalize.summary import (
    BOOTSTRAPS,
    ORACLES,
    ByUser,
    Cells,
    difference,
    group_rows,
    is_whole,
    order_of,
)
from edgelearn.personalize.recipes import FOR_CLICKS


@dataclass(frozen=True)
class Overall:
    """A recipe's gain over `local` in points, the mean over data sets and shots, each with the same weight, with its
    95 % interval over users; auto_minus: `auto` minus this recipe, paired."""

    recipe: str
    oracle: bool
    gain: float
    low: float
    high: float
    auto_minus: float | None
    auto_low: float | None
    auto_high: float | None


def compare(rows: Sequence[Row], shots: Mapping[str, Sequence[int]]) -> list[Overall]:
    """Every recipe that was measured in all cells, the best first."""
    cells = group_rows(rows)
    wanted = [(data, count) for data in shots for count in shots[data] if is_whole(cells, data, count)]
    wanted = [cell for cell in wanted if (*cell, "local", 0) in cells]
    all_names = {recipe for _, _, recipe, training in cells if training == 0}
    names = {name for name in all_names if all(_played(cells, *cell, name) is not None for cell in wanted)}
    if not wanted:
        return []
    users = {data: sorted({u for d, c in wanted if d == data for u in cells[d, c, "local", 0]}) for data, _ in wanted}

    def minus(first: str, second: str) -> list[np.ndarray]:
        sides = [(_played(cells, *cell, first) or {}, _played(cells, *cell, second) or {}) for cell in wanted]
        return [_differences(*pair, users[cell[0]]) for pair, cell in zip(sides, wanted, strict=True)]

    gains = {name: minus(name, "local") for name in names}
    draws = _draw({data: len(found) for data, found in users.items()})
    found = []
    for name in sorted(names, key=order_of):
        low, high = _interval(gains[name], wanted, draws)
        against = minus("auto", name) if "auto" in names else None
        auto_low, auto_high = (None, None) if against is None else _interval(against, wanted, draws)
        found.append(
            Overall(
                recipe=name,
                oracle=name in ORACLES,
                gain=_points(_mean(gains[name])),
                low=low,
                high=high,
                auto_minus=None if against is None else _points(_mean(against)),
                auto_low=auto_low,
                auto_high=auto_high,
            )
        )
    return sorted(found, key=lambda one: -one.gain)


def best_single(found: Sequence[Overall]) -> Overall | None:
    """The recipe with the highest gain that is no oracle and not `auto`."""
    return next((one for one in found if not one.oracle and one.recipe != "auto"), None)


def _played(cells: Cells, data: str, shots: int, recipe: str) -> ByUser | None:
    """None where it was not measured."""
    foreign = recipe in FOR_CLICKS and data not in IN_PERCENT
    return cells.get((data, shots, "local" if foreign else recipe, 0))


def _differences(mine: ByUser, others: ByUser, users: Sequence[str]) -> np.ndarray:
    """(users,), NaN for those who are not in this cell."""
    return np.asarray([difference(mine.get(user, ()), others.get(user, ())) for user in users])


def _draw(sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """How often each user is drawn, (BOOTSTRAPS, users), the same for all shots of a data set."""
    rng = np.random.default_rng(0)
    return {data: rng.multinomial(n, np.full(n, 1 / n), size=BOOTSTRAPS) for data, n in sizes.items()}


def _mean(gains: Sequence[np.ndarray]) -> float:
    return float(np.mean([np.nanmean(values) for values in gains]))


def _interval(
    gains: Sequence[np.ndarray], cells: Sequence[tuple[str, int]], draws: Mapping[str, np.ndarray]
) -> tuple[float, float]:
    means = []
    for values, (data, _) in zip(gains, cells, strict=True):
        there = ~np.isnan(values)
        weights = draws[data][:, there]
        means.append((weights @ values[there]) / np.maximum(weights.sum(axis=1), 1))
    low, high = np.quantile(np.mean(means, axis=0), [0.025, 0.975])
    return _points(low), _points(high)


def _points(value: float) -> float:
    return round(100 * float(value), 3)
