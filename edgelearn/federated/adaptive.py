"""How much a board should do, how long to wait for it, and whether to wait at all: rules over what boards took before.

Whoever runs rounds measures each board's pace and asks these; nothing here looks at a clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# gain at which to change over: a late update is worth less than a fresh one
BUFFERED_FROM, SYNCHRONOUS_BELOW = 2.0, 1.5
SHARE, SLACK = 0.7, 1.2  # of a cohort that is waited for; how many times longer than they should take
LEAST_PART, SHORTEST_S = 0.01, 1e-3  # of a turn that each of its two parts takes; a turn


@dataclass(frozen=True)
class Pace:
    """How fast a board is: local steps per second, and bytes per second over its network.

    >>> pace = Pace(steps_per_s=2, bytes_per_s=100)
    >>> pace.seconds(steps=10, moved_bytes=300)  # 10/2 + 300/100
    8.0
    """

    steps_per_s: float
    bytes_per_s: float

    def seconds(self, *, steps: int, moved_bytes: float) -> float:
        return steps / self.steps_per_s + moved_bytes / self.bytes_per_s

    def learned(self, seen: Pace, *, trust: float = 0.5) -> Pace:
        """After one more turn. trust: how much the newest counts. The mean is of times, not of speeds: one fast turn
        does not hide the slow ones.

        >>> Pace(1, 10).learned(Pace(3, 30))  # 1 s and 1/3 s per step: 2/3 s on average
        Pace(steps_per_s=1.5, bytes_per_s=15.0)
        """
        return Pace(
            _harmonic(self.steps_per_s, seen.steps_per_s, trust), _harmonic(self.bytes_per_s, seen.bytes_per_s, trust)
        )

    def slowed(self, times: float) -> Pace:
        """A board that takes so many times longer for everything."""
        return Pace(self.steps_per_s / times, self.bytes_per_s / times)


def seen(*, steps: int, moved_bytes: float, span_s: float, trained_s: float | None) -> Pace:
    """What a turn tells of a board. span_s: from the order to the update, by the clock of whoever runs the rounds;
    trained_s: of that its steps took, as the board says, None: it does not (half is taken for it).

    Whatever a board says, the same turn is expected to take the same span; it can only say which part was which.

    >>> seen(steps=20, moved_bytes=600, span_s=16, trained_s=10)
    Pace(steps_per_s=2.0, bytes_per_s=100.0)
    >>> seen(steps=20, moved_bytes=600, span_s=16, trained_s=1e9).seconds(steps=20, moved_bytes=600)
    16.0
    """
    span_s = max(span_s, SHORTEST_S)
    told_s = span_s / 2 if trained_s is None else trained_s
    trained_s = min(max(told_s, LEAST_PART * span_s), (1 - LEAST_PART) * span_s)
    return Pace(steps / trained_s, moved_bytes / (span_s - trained_s))


def typical(paces: Sequence[Pace]) -> Pace:
    """What to expect of a board that never took part: the median of the others. Raises ValueError for nobody."""
    if not paces:
        raise ValueError("nobody's pace is known yet: run a first round without a deadline")
    speed, network = zip(*((pace.steps_per_s, pace.bytes_per_s) for pace in paces), strict=True)
    return Pace(float(np.median(speed)), float(np.median(network)))


def expected(board: str, known: Mapping[str, Pace]) -> Pace:
    """Its own pace, or that of the others. Raises ValueError where nobody's is known."""
    return known.get(board) or typical(list(known.values()))


def deadline_s(expected_s: Sequence[float], *, share: float = SHARE, slack: float = SLACK) -> float:
    """How long to wait for a cohort: as long as `share` of its boards should take, and some slack.

    >>> deadline_s([1, 2, 3, 100], share=0.75, slack=2)  # three of four
    6.0
    """
    if not expected_s:
        raise ValueError("a deadline for nobody")
    ordered = sorted(expected_s)
    return slack * float(ordered[max(0, math.ceil(share * len(ordered)) - 1)])


def local_steps(pace: Pace, *, wanted: int, moved_bytes: float, within_s: float) -> int:
    """How many of the wanted steps a board can do in that time, its transfers taken off; at least one: who can do
    nothing in time is the deadline's matter.

    >>> local_steps(Pace(2, 100), wanted=60, moved_bytes=300, within_s=8)
    10
    >>> local_steps(Pace(2, 100), wanted=60, moved_bytes=300, within_s=2)
    1
    """
    left_s = within_s - moved_bytes / pace.bytes_per_s
    return max(1, min(wanted, math.floor(left_s * pace.steps_per_s + 1e-9)))


def buffering_gain(expected_s: Sequence[float], *, within_s: float) -> float:
    """How many times more updates per second arrive if nobody is waited for.

    Synchronous: those that are done in time, once per round, which lasts until the slowest of them. Buffered: each
    board again and again.

    >>> buffering_gain([1, 1, 4], within_s=10)  # (1 + 1 + 1/4) a second against 3 in 4 seconds
    3.0
    """
    in_time = [taken for taken in expected_s if taken <= within_s]
    if not in_time:
        return math.inf
    length_s = within_s if len(in_time) < len(expected_s) else max(in_time)
    return sum(1 / taken for taken in expected_s) / (len(in_time) / length_s)


def buffer_now(gain: float, *, buffered: bool) -> bool:
    """Whether to go on without waiting. What was chosen stays until it clearly loses.

    >>> [buffer_now(gain, buffered=False) for gain in (1.7, 2.5)], [buffer_now(g, buffered=True) for g in (1.7, 1.2)]
    ([False, True], [True, False])
    """
    return gain >= (SYNCHRONOUS_BELOW if buffered else BUFFERED_FROM)


def _harmonic(before: float, seen: float, trust: float) -> float:
    return 1 / ((1 - trust) / before + trust / seen)
