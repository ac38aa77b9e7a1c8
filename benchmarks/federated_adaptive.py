"""Boards of uneven speed and network: how long until a model is good, on a simulated clock, by what is adaptive?

MNIST by writer, 100 boards whose steps and bytes per second differ (log-normal), ten at a time. Fixed rounds wait for
everybody; then each rule of `edgelearn/federated/adaptive.py` on its own and together. Minutes are the clock's.
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

from benchmarks.federated import World
from benchmarks.federated_cases import Case
from benchmarks.figures import Figure, answer, noted
from cloud_aug.simulation.paced import Adaptive, Clock, Moment, Paced
from cloud_aug.simulation.plan import Plan
from edgelearn.device import use_threads
from edgelearn.federated.algorithm import LocalSettings

TARGET, ROUNDS = 0.90, 100
PLAN = Plan(settings=LocalSettings(epochs=1, batch_size=10, learning_rate=0.04))
SPREADS = (0.3, 1.5)  # of the logarithm of speeds: boards of one kind, and all kinds at once
WAYS = {
    "fixed": Adaptive(),
    "deadline": Adaptive(deadline=True),
    "deadline and local steps": Adaptive(deadline=True, steps=True),
    "buffered": Adaptive(buffered=True),
    "changing over by itself": Adaptive(switch=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.federated_adaptive", description=(__doc__ or ""))
    parser.add_argument("--quick", action="store_true", help="a lower target")
    parser.add_argument("--json", type=Path, metavar="OUT")
    arguments = parser.parse_args()
    use_threads(1)
    target = 0.7 if arguments.quick else TARGET
    figures = [figure for spread in SPREADS for figure in _ways(spread, target)]
    answer((__doc__ or "").partition("\n\n")[0], figures, arguments.json)


def _ways(spread: float, target: float) -> list[Figure]:
    world, figures, fixed = World(), [], 0.0
    for name, adaptive in WAYS.items():
        crowd = world.crowd(Case("adaptive", name, "2nn", "writers", PLAN))
        moments = _until(Paced(crowd, PLAN, Clock(spread=spread), adaptive), target)
        fixed = fixed or moments[-1].seconds
        figures.append(_figure(f"spread {spread}, {name}", moments, fixed, target))
        print(figures[-1], flush=True)
    return figures


def _until(paced: Paced, target: float) -> list[Moment]:
    """All moments up to the first that is as good as that."""
    seen: list[Moment] = []
    for moment in islice(paced.moments(), ROUNDS):
        seen.append(moment)
        if moment.score >= target:
            break
    return seen


def _figure(name: str, moments: list[Moment], fixed_s: float, target: float) -> Figure:
    last = moments[-1]
    counted, late = (sum(getattr(moment, what) for moment in moments) for what in ("counted", "late"))
    anchor = f"{len(moments)} rounds, {counted} updates, {late} late; {last.seconds / fixed_s:.2f} x fixed"
    if last.score < target:
        anchor = f"not reached, {100 * last.score:.1f} %; {anchor}"
    return noted(f"{name}: minutes to {100 * target:.0f} %", last.seconds / 60, "min", anchor=anchor)


if __name__ == "__main__":
    main()
