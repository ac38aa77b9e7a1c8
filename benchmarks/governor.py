"""Does the governor keep boards that it knows nothing of below their limit, and how much training does that cost?

A thousand simulated boards train for an hour of their own time. What they are made of is drawn at random and hidden
from the governor, which is the one that `edgectl train` uses; beside each runs a clairvoyant that knows the model and
the weather to come, and trains at every moment as much as keeps the chip exactly at the limit. Then a board on a
battery trains for real, and ships the best it has when the battery's share is used up.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.figures import Figure, at_least, at_most, exactly, noted, run
from benchmarks.world import World, world
from edgectl.budget import Budget
from edgectl.governor.governor import Governor, HeatLimit
from edgectl.governor.simulated import Stage, Thermal, ThermalBoard
from edgectl.governor.watch import Watch
from edgectl.telemetry.reading import Reading

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as PlotFigure

BLUE, RED, GREEN, TEXT, SOFT, LINE = "#0067a8", "#c4500a", "#00805f", "#1c2127", "#5d6772", "#d9dee4"

HOUR_S = 3600.0
OVERSHOOT_C = 1.0
SHARE = 0.9
BOARD = "pi-4b"  # of the battery: its profile states what it draws
PLOTS = Path("docs/governor")
SHOWN = 3  # boards that are drawn


@dataclass(frozen=True)
class Case:
    """One board. limit_c: not to be passed; step_s: how long a step of training takes."""

    seed: int
    thermal: Thermal
    limit_c: float
    step_s: float


@dataclass
class Ran:
    """over_c: how far the chip itself went beyond the limit (below zero: it did not); worked_s, clairvoyant_s: time
    spent training; trace: (time, chip, sensor, share of time) at each reading, where asked for."""

    case: Case
    over_c: float
    worked_s: float
    clairvoyant_s: float
    trace: list[tuple[float, float, float, float]] = field(default_factory=list)

    @property
    def share(self) -> float:
        return self.worked_s / self.clairvoyant_s


@dataclass(frozen=True)
class Weather:
    """Air that swings, and that changes once for good: a closed door, the sun."""

    mean_c: float
    swing_c: float
    period_s: float
    phase: float
    change_c: float
    change_at_s: float
    change_s: float

    def __call__(self, now_s: float) -> float:
        changed = min(max((now_s - self.change_at_s) / self.change_s, 0.0), 1.0)
        swing = self.swing_c * math.sin(2 * math.pi * now_s / self.period_s + self.phase)
        return self.mean_c + swing + self.change_c * changed


def draw(seed: int) -> Case:
    """A board from a credit card with a heat sink to a module in a box. Between 8 and 45 °C are left for training when
    the air is at its hottest; with less there is nothing to govern, and with more nothing to do."""
    rng = random.Random(seed)

    def log_uniform(low: float, high: float) -> float:
        return math.exp(rng.uniform(math.log(low), math.log(high)))

    rise_c, quick = rng.uniform(15, 60), rng.uniform(0.1, 0.3)
    stages = (Stage(quick * rise_c, log_uniform(4, 15)), Stage((1 - quick) * rise_c, log_uniform(60, 1200)))
    air = Weather(
        mean_c=rng.uniform(0, 40), swing_c=rng.uniform(0, 8), period_s=log_uniform(600, 7200),
        phase=rng.uniform(0, 2 * math.pi), change_c=rng.uniform(-10, 10), change_at_s=rng.uniform(300, 3000),
        change_s=log_uniform(120, 900),
    )  # fmt: skip
    thermal = Thermal(
        stages, rng.uniform(5, 20), air, lag_s=log_uniform(0.2, 6), noise_c=rng.uniform(0, 0.3),
        resolution_c=rng.choice([0.05, 0.1, 0.5, 1.0]),
    )  # fmt: skip
    hottest_c = max(air(second) for second in range(0, int(HOUR_S), 10)) + thermal.idle_c
    return Case(seed, thermal, hottest_c + rng.uniform(8, 45), log_uniform(0.05, 0.3))


def govern(case: Case, *, traced: bool = False) -> Ran:
    """An hour of training under the governor."""
    board, trace = ThermalBoard(case.thermal, case.seed), list[tuple[float, float, float, float]]()

    def clock() -> float:
        return board.now_s

    def read() -> Reading:
        seen_c = board.reading_c()
        if traced:
            trace.append((board.now_s, board.temperature_c, seen_c, governor.duty if board.now_s else 0.0))
        return Reading(board.now_s, 0.0, temperature_c=seen_c)

    watch = Watch(read, clock=clock)
    governor = Governor(
        watch, Budget(clock=clock), HeatLimit(case.limit_c), clock=clock, sleep=lambda s: board.advance(s, 0.0)
    )
    while board.now_s < HOUR_S:
        board.advance(case.step_s, 1.0)
        governor.step()
    return Ran(case, board.hottest_c - case.limit_c, board.worked_s, clairvoyant(case), trace)


def clairvoyant(case: Case, *, step_s: float = 0.5) -> float:
    """Seconds of training of a controller that knows everything, in as small pieces as it likes."""
    thermal, heat, worked_s = case.thermal, [0.0 for _ in case.thermal.stages], 0.0
    kept = [math.exp(-step_s / stage.time_s) for stage in thermal.stages]
    air, worth_c = thermal.ambient_c(0.0), sum((1 - k) * s.rise_c for k, s in zip(kept, thermal.stages, strict=True))
    for i in range(1, int(HOUR_S / step_s) + 1):
        outside = thermal.ambient_c(i * step_s)
        air = outside + (air - outside) * kept[-1]
        at_rest_c = (
            air + thermal.idle_c + sum(h * k * s.rise_c for h, k, s in zip(heat, kept, thermal.stages, strict=True))
        )
        load = min(max((case.limit_c - at_rest_c) / worth_c, 0.0), 1.0)
        heat = [load + (h - load) * k for h, k in zip(heat, kept, strict=True)]
        worked_s += load * step_s
    return worked_s


def figures_of(ran: Sequence[Ran]) -> list[Figure]:
    """Of all boards."""
    limited = [one for one in ran if one.clairvoyant_s < HOUR_S - 1.0]
    over = [one for one in ran if one.over_c > OVERSHOOT_C]
    shares = sorted(one.share for one in ran)
    total = sum(one.worked_s for one in ran) / sum(one.clairvoyant_s for one in ran)
    anchor = "a clairvoyant on the same board"
    return [
        exactly("boards more than 1 °C above their limit", len(over), f"of {len(ran)}", 0, anchor="the chip itself"),
        noted("most above a limit", max(one.over_c for one in ran), "°C", anchor="the chip itself"),
        at_least("training done, all boards", total, "of", SHARE, anchor=anchor),
        at_least("training done, worst board", shares[0], "of", SHARE, anchor=anchor),
        noted("training done, median board", shares[len(shares) // 2], "of", anchor=anchor),
        noted("boards that their limit slows down", len(limited), f"of {len(ran)}", anchor="the clairvoyant's"),
    ]


def battery(place: World) -> list[Figure]:
    """Train with ever less energy than the whole training takes: what is shipped, and what was drawn. Then go on, with
    that little each time, until it is done."""
    place.edgectl("enroll", place.folder / "enrol.json")
    place.edgectl("sync")
    place.edgectl("data", "add", place.samples, "--part", "local")

    def train(*arguments: str) -> dict[str, Any]:
        return place.edgectl("train", "--simulate-board", BOARD, *arguments)

    whole = train("--force")
    share_j = max(1, round(whole["joules"] * 0.4))
    cut = train("--force", "--max-joules", str(share_j))
    runs, last = 1, cut
    while last["cut"] == "energy" and runs < 20:
        last = train("--max-joules", str(share_j))
        runs += 1
    done = "" if last["cut"] else "done"
    return [
        noted("energy of a whole training", whole["joules"], "J", anchor=f"modelled, {BOARD}"),
        at_most("drawn with 0.4 of it allowed", cut["joules"], "J", share_j, anchor="the same board"),
        exactly("then a model serves", float(_serves(place)), "", 1, anchor=f"shipped: {cut['shipped']}"),
        noted("trainings of that little until it is done", runs, "", anchor=done),
    ]


def _serves(place: World) -> bool:
    return bool(place.edgectl("infer", place.samples, "--part", "local"))


def measure(quick: bool) -> list[Figure]:
    ran = []
    count = 60 if quick else 1000
    for seed in range(count):
        ran.append(govern(draw(seed)))
        if seed % 100 == 99:
            print(f"{seed + 1} of {count} boards", file=sys.stderr, flush=True)
    if not quick:
        draw_plots(ran, PLOTS)
    with world() as place:
        return [*figures_of(ran), *battery(place)]


def draw_plots(ran: Sequence[Ran], folder: Path) -> None:
    """overshoot.png: every board's; boards.png: how a few were governed."""
    folder.mkdir(parents=True, exist_ok=True)
    _all_boards(ran, folder / "overshoot.png")
    limited = sorted((one for one in ran if one.clairvoyant_s < HOUR_S - 1.0), key=lambda one: one.share)
    chosen = [limited[round(i * (len(limited) - 1) / (SHOWN - 1))] for i in range(SHOWN)]  # worst, median, best
    _few_boards([govern(one.case, traced=True) for one in chosen], folder / "boards.png")


def _all_boards(ran: Sequence[Ran], path: Path) -> None:
    figure, axes = _figure(1)
    axes[0].scatter([one.over_c for one in ran], [100 * one.share for one in ran], s=7, color=BLUE, alpha=0.5)
    axes[0].axvline(OVERSHOOT_C, color=RED, linewidth=1.2)
    axes[0].axhline(100 * SHARE, color=RED, linewidth=1.2)
    axes[0].set_xlim(left=max(-6.0, min(one.over_c for one in ran)) - 0.2)
    axes[0].set_xlabel("how far the chip went beyond its limit at the most, °C (below zero: never reached)", color=SOFT)
    title = f"training done, % of a clairvoyant's, on each of {len(ran)} boards; red: what is allowed"
    axes[0].set_title(title, loc="left", fontsize=10.5, color=TEXT)
    figure.savefig(path, dpi=140, facecolor="white", metadata={"Software": None})


def _few_boards(ran: Sequence[Ran], path: Path) -> None:
    figure, axes = _figure(len(ran))
    for one, axis in zip(ran, axes, strict=True):
        minutes = [at / 60 for at, *_ in one.trace]
        axis.plot(minutes, [sensor for _, _, sensor, _ in one.trace], color=LINE, linewidth=1.0, label="sensor")
        axis.plot(minutes, [chip for _, chip, _, _ in one.trace], color=BLUE, linewidth=1.4, label="chip")
        axis.axhline(one.case.limit_c, color=RED, linewidth=1.2, label="limit")
        axis.set_ylabel("°C", color=SOFT)
        pace = axis.twinx()
        pace.fill_between(minutes, [100 * duty for *_, duty in one.trace], color=GREEN, alpha=0.18, linewidth=0)
        pace.set_ylim(0, 100)
        pace.set_ylabel("% training", color=GREEN)
        pace.tick_params(length=0, colors=GREEN)
        for side in ("top", "right", "left"):
            pace.spines[side].set_visible(False)
        title = f"board {one.case.seed}: {100 * one.share:.0f} % of a clairvoyant's training, {one.over_c:+.1f} °C"
        axis.set_title(title, loc="left", fontsize=10.5, color=TEXT)
    axes[0].legend(loc="lower right", frameon=False, fontsize=9)
    axes[-1].set_xlabel("minutes of training", color=SOFT)
    figure.savefig(path, dpi=140, facecolor="white", metadata={"Software": None})


def _figure(rows: int) -> tuple[PlotFigure, list[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Plot

    figure = Plot(figsize=(8.2, 1.0 + 2.7 * rows), constrained_layout=True)
    FigureCanvasAgg(figure)
    found = [figure.add_subplot(rows, 1, i + 1) for i in range(rows)]
    for axes in found:
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.tick_params(length=0, colors=SOFT)
        axes.grid(axis="y", color=LINE, linewidth=0.8)
        axes.set_axisbelow(True)
    return figure, found


if __name__ == "__main__":
    run(" ".join(str(__doc__).split("\n\n", 1)[0].split()), measure)
