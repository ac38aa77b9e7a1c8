"""What the rows say: users are the unit, each the mean of its seeds, and every comparison is paired."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from benchmarks.personalize.records import Peak, Row, Units
from edgelearn.personalize import recipes as product

BOOTSTRAPS = 2000
HARM = 0.01  # one point
ORACLE = "oracle"
# recipes that look at the test rows: shown, and compared with nothing
ORACLES: frozenset[str] = frozenset({ORACLE, *getattr(product, "ORACLES", ())})

ByUser = dict[str, list[Row]]
Cells = dict[tuple[str, int, str, int], ByUser]


@dataclass(frozen=True)
class Summary:
    """One recipe at one number of shots of one data set, in points (percent), over users.

    gain: mean difference to `local`, with its 95 % interval; fewer_errors: by how many percent of its errors `local` is
    beaten, for accuracy; harmed: share of users for whom the lower end of the 95 % interval of the paired difference to
    the better of `base` and `local` lies more than a point below it; clearly_harmed: the upper end; each with the same
    for the control, the recipe against itself with another training seed; efficiency: labels that `local` needs to be
    as good, per label used, efficiency_is 'at least' or 'at most' where the ladder ends before that; forwards: rows
    through the model; seconds: of one core, median and the longest; peak_mib: growth of a fresh process; chosen: what
    `auto` shipped, how often; seeds: how many. Recipes may have been measured with different ones: `mean` is over all
    of a recipe's own, whatever compares is over those that both have.
    """

    data: str
    metric: str
    shots: int
    recipe: str
    oracle: bool
    users: int
    seeds: int
    mean: float
    worst_decile: float
    gain: float
    gain_low: float
    gain_high: float
    fewer_errors: float | None
    fewer_errors_low: float | None
    fewer_errors_high: float | None
    harmed: float
    harmed_control: float | None
    clearly_harmed: float
    clearly_harmed_control: float | None
    efficiency: float | None
    efficiency_is: str
    candidates: float
    kept: float
    candidate_samples: float
    outside_samples: float
    forwards: float
    seconds: float
    seconds_most: float
    peak_mib: float | None
    chosen: dict[str, int] = field(default_factory=dict)


def group_rows(rows: Sequence[Row]) -> Cells:
    """(data, shots, recipe, training) -> user -> rows, one per seed; the oracle is made here."""
    cells: Cells = defaultdict(lambda: defaultdict(list))
    for row in sorted(rows, key=lambda row: row.seed):
        cells[row.data, row.shots, row.recipe, row.training][row.board].append(row)
    for data, shots in sorted({key[:2] for key in cells}):
        for (training, user), row_list in _oracle(cells, data, shots).items():
            cells[data, shots, ORACLE, training][user] = row_list
    return {key: dict(by_user) for key, by_user in cells.items()}


def _oracle(cells: Cells, data: str, shots: int) -> dict[tuple[int, str], list[Row]]:
    """For each user the recipe that did best on its test rows: what nobody can know, a bound for `auto`."""
    names = [r for d, s, r, t in cells if (d, s, t) == (data, shots, 0) and r != "auto" and r not in ORACLES]
    found: dict[tuple[int, str], list[Row]] = {}
    if len(names) < 2:
        return found
    for user in set.intersection(*(set(cells[data, shots, name, 0]) for name in names)):
        by_name = {name: cells[data, shots, name, 0][user] for name in names}
        shared = set.intersection(*({row.seed for row in rows} for rows in by_name.values()))
        if not shared:
            continue
        best = max(names, key=lambda name: mean_score(of_seeds(by_name[name], shared)))
        for training in (0, 1):
            if mine := of_seeds(cells.get((data, shots, best, training), {}).get(user, ()), shared):
                found[training, user] = [replace(row, recipe=ORACLE, chosen=best) for row in mine]
    return found


def of_seeds(rows: Sequence[Row], seeds: AbstractSet[int]) -> list[Row]:
    return [row for row in rows if row.seed in seeds]


def both(mine: Sequence[Row], others: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """The rows of the seeds that both have."""
    shared = {row.seed for row in mine} & {row.seed for row in others}
    return of_seeds(mine, shared), of_seeds(others, shared)


def summarize(rows: Sequence[Row], shots: Mapping[str, Sequence[int]], peaks: Sequence[Peak] = ()) -> list[Summary]:
    """Of every recipe at the shots asked for, data set by data set, `base` first."""
    cells = group_rows(rows)
    mib = {(peak.data, peak.recipe): peak.mib for peak in peaks}
    found = [
        _summary(cells, data, count, recipe, mib.get((data, recipe)))
        for data, count, recipe, training in cells
        if training == 0 and count in shots[data] and (data, count, "local", 0) in cells
        if is_whole(cells, data, count)
    ]
    datasets = list(shots)
    return sorted(found, key=lambda s: (datasets.index(s.data), s.shots, s.oracle, order_of(s.recipe)))


def is_whole(cells: Cells, data: str, count: int) -> bool:
    """Whether more than `local` was measured there."""
    return any(key[:2] == (data, count) and key[2] not in ("local", ORACLE) for key in cells)


def order_of(recipe: str) -> tuple[int, str]:
    """The product's order, then `auto`, then what is left."""
    names = [*(name for name in product.RECIPES if name not in ORACLES), "auto"]
    return (names.index(recipe) if recipe in names else len(names), recipe)


def _summary(cells: Cells, data: str, shots: int, recipe: str, mib: float | None) -> Summary:
    mine, local = cells[data, shots, recipe, 0], cells[data, shots, "local", 0]
    users = sorted(user for user in set(mine) & set(local) if both(mine[user], local[user])[0])
    gains = np.asarray([difference(mine[user], local[user]) for user in users])
    low, high = bootstrap(gains)
    flat = [row for user in users for row in mine[user]]
    fewer = _fewer_errors(mine, local, users) if flat[0].metric == "accuracy" else None
    harmed, clearly = _harm(cells, data, shots, recipe, users)
    harmed_control, clearly_control = _harm_of_control(cells, data, shots, recipe, users)
    efficiency, bound = _efficiency(cells, data, shots, recipe)
    scores = np.asarray([mean_score(mine[user]) for user in users])
    seconds = [row.seconds for row in flat]
    return Summary(
        data=data,
        metric=flat[0].metric,
        shots=shots,
        recipe=recipe,
        oracle=recipe in ORACLES,
        users=len(users),
        seeds=len({row.seed for row in flat}),
        mean=_points(scores.mean()),
        worst_decile=_points(np.quantile(scores, 0.1)),
        gain=_points(gains.mean()),
        gain_low=_points(low),
        gain_high=_points(high),
        fewer_errors=fewer[0] if fewer else None,
        fewer_errors_low=fewer[1] if fewer else None,
        fewer_errors_high=fewer[2] if fewer else None,
        harmed=round(harmed, 4),
        harmed_control=harmed_control,
        clearly_harmed=round(clearly, 4),
        clearly_harmed_control=clearly_control,
        efficiency=efficiency,
        efficiency_is=bound,
        candidates=_mean(row.candidates for row in flat),
        kept=_mean(row.kept for row in flat),
        candidate_samples=_mean(row.candidate_samples for row in flat),
        outside_samples=_mean(row.outside_samples for row in flat),
        forwards=_mean(row.forwards for row in flat),
        seconds=round(float(np.median(seconds)), 3),
        seconds_most=round(float(np.max(seconds)), 3),
        peak_mib=None if mib is None else round(mib, 1),
        chosen=dict(Counter(row.chosen for row in flat if row.chosen).most_common()),
    )


def _points(value: float) -> float:
    return round(100 * float(value), 3)


def _mean(values: object) -> float:
    return round(float(np.mean(list(values))), 3)  # type: ignore[call-overload]


def mean_score(rows: Sequence[Row]) -> float:
    """Over seeds."""
    return float(np.mean([row.score for row in rows]))


def difference(mine: Sequence[Row], others: Sequence[Row]) -> float:
    """Mean over the seeds that both have. NaN where there is none."""
    theirs = {row.seed: row.score for row in others}
    found = [row.score - theirs[row.seed] for row in mine if row.seed in theirs]
    return float(np.mean(found)) if found else float("nan")


def bootstrap(values: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean over users (percentile bootstrap)."""
    picks = np.random.default_rng(0).integers(len(values), size=(BOOTSTRAPS, len(values)))
    low, high = np.quantile(values[picks].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def _fewer_errors(mine: ByUser, local: ByUser, users: Sequence[str]) -> tuple[float, float, float] | None:
    """Percent fewer errors than `local`, of errors averaged over users, with its interval."""
    pairs = [both(mine[user], local[user]) for user in users]
    ours, theirs = (np.asarray([1 - mean_score(rows) for rows in side]) for side in zip(*pairs, strict=True))
    if theirs.mean() == 0:
        return None
    picks = np.random.default_rng(0).integers(len(users), size=(BOOTSTRAPS, len(users)))
    below = theirs[picks].mean(axis=1)
    shares = 1 - ours[picks].mean(axis=1) / np.where(below == 0, np.nan, below)
    low, high = np.nanquantile(shares, [0.025, 0.975])
    return _points(1 - ours.mean() / theirs.mean()), _points(low), _points(high)


# Harm


def _harm(cells: Cells, data: str, shots: int, recipe: str, users: Sequence[str]) -> tuple[float, float]:
    """Shares of users harmed, and clearly so, against the better of `base` and `local`, the one with the higher mean
    over the user's seeds."""
    mine, local = cells[data, shots, recipe, 0], cells[data, shots, "local", 0]
    base = cells.get((data, shots, "base", 0), {})
    intervals = []
    for user in users:
        seeds = {row.seed for row in mine[user]}
        rivals = [rows for found in (local, base) if (rows := of_seeds(found.get(user, ()), seeds))]
        intervals.append(paired_interval(mine[user], max(rivals, key=mean_score)))
    return _shares(intervals)


def _harm_of_control(
    cells: Cells, data: str, shots: int, recipe: str, users: Sequence[str]
) -> tuple[float | None, float | None]:
    """The same shares where the recipe is compared with itself, trained with another seed."""
    mine, again = cells[data, shots, recipe, 0], cells.get((data, shots, recipe, 1), {})
    intervals = [paired_interval(again[user], mine[user]) for user in users if user in again]
    if not intervals:
        return None, None
    harmed, clearly = _shares(intervals)
    return round(harmed, 4), round(clearly, 4)


def _shares(intervals: Sequence[tuple[float, float]]) -> tuple[float, float]:
    ends = np.asarray(intervals)
    return float((ends[:, 0] < -HARM).mean()), float((ends[:, 1] < -HARM).mean())


def paired_interval(mine: Sequence[Row], others: Sequence[Row]) -> tuple[float, float]:
    """95 % interval of one user's mean difference. The unit is the recording (a row of its own where nothing is known
    of it), with its rows in all seeds: what is tested on twice counts once."""
    theirs = {row.seed: row for row in others}
    total: dict[int, float] = defaultdict(float)
    count: dict[int, int] = defaultdict(int)
    for row in mine:
        if row.seed in theirs:
            a, b = read_units(row.units), read_units(theirs[row.seed].units)
            for unit, change, rows in zip(a.id.tolist(), (a.total - b.total).tolist(), a.rows.tolist(), strict=True):
                total[unit] += change
                count[unit] += rows
    sums, rows_of = np.asarray(list(total.values())), np.asarray(list(count.values()))
    n, k = rows_of.sum(), len(sums)
    mean = sums.sum() / n
    if k < 2:
        return float("-inf"), float("inf")
    error = np.sqrt(k / (k - 1) * ((sums - mean * rows_of) ** 2).sum()) / n  # a ratio's, recordings being unequal
    half = _student_975(k - 1) * error
    return float(mean - half), float(mean + half)


@lru_cache(maxsize=100_000)
def read_units(text: str) -> Units:
    return Units.read(text)


def _student_975(freedom: int) -> float:
    """Quantile of Student's t by its expansion around the normal one (Abramowitz and Stegun 26.7.5)."""
    z = NormalDist().inv_cdf(0.975)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


# Label efficiency


def _efficiency(cells: Cells, data: str, shots: int, recipe: str) -> tuple[float | None, str]:
    """Labels that `local` needs to be as good, per label used: on the same users and seeds at every rung, on rows that
    are held out at all of them, interpolated on the logarithm of the number of labels."""
    if recipe == "local":
        return 1.0, ""
    ladder = {count: by_user for (d, count, r, t), by_user in cells.items() if (d, r, t) == (data, "local", 0)}
    mine = cells[data, shots, recipe, 0]
    rungs = sorted(count for count in ladder if 2 * len(set(ladder[count]) & set(mine)) >= len(mine))
    users = set(mine).intersection(*(set(ladder[count]) for count in rungs))
    seeds = {
        user: set.intersection(*({row.seed for row in found[user]} for found in (mine, *(ladder[c] for c in rungs))))
        for user in users
    }
    users = {user for user in users if seeds[user]}
    if len(rungs) < 2 or not users:
        return None, ""

    def over(by_user: ByUser, name: str) -> float:
        means = [np.mean([getattr(row, name) for row in of_seeds(by_user[u], seeds[u])]) for u in sorted(users)]
        return float(np.mean(means))

    labels = np.asarray([over(ladder[count], "labels") for count in rungs])
    scores = np.asarray([over(ladder[count], "common") for count in rungs])
    wanted, used = over(mine, "common"), over(mine, "labels")
    needed, bound = labels_needed(labels, scores, wanted)
    return round(needed / used, 3), bound


def rising(scores: np.ndarray) -> np.ndarray:
    """The rising curve that is nearest in squares: neighbours that fall are averaged until none do (pool adjacent
    violators; Ayer et al., 1955)."""
    blocks: list[tuple[float, int]] = []
    for score in scores.tolist():
        blocks.append((score, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, m), (b, n) = blocks[-2:]
            blocks[-2:] = [((a * m + b * n) / (m + n), m + n)]
    return np.repeat([value for value, _ in blocks], [count for _, count in blocks])


def labels_needed(labels: np.ndarray, scores: np.ndarray, wanted: float) -> tuple[float, str]:
    """Where a curve first reaches a score, and '', 'at least' or 'at most' if that is beyond its ends. labels: rising.

    More labels help: what falls in between is noise, and is evened out.
    """
    best = rising(scores)
    if wanted > best[-1]:
        return float(labels[-1]), "at least"
    if wanted <= best[0]:
        return float(labels[0]), "" if wanted == best[0] else "at most"
    after = int(np.searchsorted(best, wanted))
    share = (wanted - best[after - 1]) / (best[after] - best[after - 1])
    logs = np.log(labels)
    return float(np.exp(logs[after - 1] + share * (logs[after] - logs[after - 1]))), ""
