"""How the model that serves stands: its score on new samples, each predicted before any model was trained on it, next
to the base's, and whether its errors have risen.

Plain Python on rows of the store, because `edgectl status` imports no numpy. `edgectl.scoring` makes the rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from edgectl.store import Score
from edgelearn.drift import Change, watch

WINDOW = 50
ENOUGH_RECORDINGS = 20

WHAT_TO_DO = "edgectl train makes a new model; if errors stay high, look at the sensor and the new labels"


@dataclass(frozen=True)
class _Recording:
    """number: of its first sample; mean: of its errors; scored_at: when the first of them was."""

    number: int
    mean: float
    scored_at: float


@dataclass(frozen=True)
class Drift:
    """state: 'none', 'warning', 'drift', or 'unknown' (too few recordings to tell); detail: a sentence; since: when
    the first sample after the change was scored; hint: what to do."""

    state: str
    detail: str
    since: float | None = None
    hint: str = ""


def standing(scores: Sequence[Score], *, metric: str, answered: int = 0) -> dict[str, Any] | None:
    """What `status` shows of a task, None where nothing is scored yet. scores: oldest first; answered: the newest
    sample of the last training: an alarm that no later one raised has been answered."""
    if not scores:
        return None
    return {
        "metric": metric,
        "last": _row(scores[-WINDOW:], metric),
        "all": _row(scores, metric),
        "versions": [{"version": v, **_row(rows, metric)} for v, rows in _by_version(scores)],
        "drift": vars(drift(scores, metric=metric, answered=answered)),
    }


def _row(scores: Sequence[Score], metric: str) -> dict[str, Any]:
    """samples; serving: the metric of what served; paired: samples that the base predicted too; base: on those."""
    both = [score for score in scores if score.base_right is not None]
    return {
        "samples": len(scores),
        "serving": _metric([(s.label, s.right, s.probability) for s in scores], metric),
        "paired": len(both),
        "base": _metric([(s.label, bool(s.base_right), s.base_probability or 0.0) for s in both], metric),
    }


def _by_version(scores: Iterable[Score]) -> list[tuple[int | None, list[Score]]]:
    found: dict[int | None, list[Score]] = {}
    for score in scores:
        found.setdefault(score.version, []).append(score)
    return list(found.items())


def _metric(rows: Sequence[tuple[int, bool, float]], metric: str) -> float | None:
    """rows: (label, right, probability of that label). None where they cannot tell."""
    if metric == "auc":
        ranked = [(p if label == 1 else 1.0 - p, label) for label, _, p in rows]
        return area_under_curve(ranked)
    return round(sum(right for _, right, _ in rows) / len(rows), 6) if rows else None


def area_under_curve(rows: Sequence[tuple[float, int]]) -> float | None:
    """Share of pairs of one sample of each label that are ranked right, ties count a half. rows: (score, label 0 or 1).
    None where one label is missing."""
    below: dict[float, list[int]] = {}
    for value, label in rows:
        below.setdefault(value, [0, 0])[label] += 1
    negatives, won = 0, 0.0
    for value in sorted(below):
        zeros, ones = below[value]
        won += ones * (negatives + zeros / 2)
        negatives += zeros
    pairs = negatives * (len(rows) - negatives)
    return round(won / pairs, 6) if pairs else None


def measured_gain(scores: Iterable[Score], *, version: int, base_version: int, metric: str) -> tuple[float, int] | None:
    """What a version gained over a base on new samples, and how many recordings say so; None: nothing is known."""
    both = [s for s in scores if s.version == version and s.base_version == base_version]
    serving = _metric([(s.label, s.right, s.probability) for s in both], metric)
    base = _metric([(s.label, bool(s.base_right), s.base_probability or 0.0) for s in both], metric)
    if serving is None or base is None:
        return None
    return serving - base, len({s.recording for s in both})


def drift(scores: Sequence[Score], *, metric: str, answered: int = 0) -> Drift:
    """Whether errors have risen since the last training: those of the model that serves, or of the base, which stays
    the same for longer. Samples of one recording are one observation."""
    newest = scores[-1]
    serving = [s for s in scores if s.version == newest.version]
    base = [s for s in scores if s.base_version == newest.base_version and s.base_right is not None]
    found = [
        _look("the model that serves", serving, lambda s: _error(s.right, s.probability, metric), answered),
        _look("the base model", base, lambda s: _error(bool(s.base_right), s.base_probability, metric), answered),
    ]
    return max(found, key=lambda one: ("unknown", "none", "warning", "drift").index(one.state))


def _error(right: bool, probability: float | None, metric: str) -> float:
    """0..1. Where samples are ranked, being right means little (most labels may be one): the log-loss, twice that of a
    coin or more counting as 1."""
    if metric != "auc":
        return 0.0 if right else 1.0
    return min(-math.log(max(probability or 0.0, 1e-12)) / (2 * math.log(2)), 1.0)


def _look(who: str, scores: Sequence[Score], error: Callable[[Score], float], answered: int) -> Drift:
    recordings = _recordings(scores, error)
    seen = watch([one.mean for one in recordings])
    # by number: a clock that was set back would have answered alarms to come, or never answer one
    unanswered = [change for change in seen.changes if recordings[change.at].number > answered]
    if unanswered:
        return _told("drift", who, unanswered[-1], recordings, WHAT_TO_DO)
    if seen.warning is not None:
        return _told("warning", who, seen.warning, recordings, "watch it: a few more labelled samples will tell")
    if len(recordings) < ENOUGH_RECORDINGS:
        return Drift("unknown", f"too few new recordings to tell: {len(recordings)} of {ENOUGH_RECORDINGS}")
    return Drift("none", f"no sign of drift in {len(recordings)} new recordings")


def _told(state: str, who: str, change: Change, recordings: Sequence[_Recording], hint: str) -> Drift:
    errors = f"from {100 * change.before:.0f} % to {100 * change.after:.0f} %"
    rose = "rose" if state == "drift" else "may be rising"
    return Drift(state, f"the errors of {who} {rose} {errors}", recordings[change.since].scored_at, hint)


def _recordings(scores: Iterable[Score], error: Callable[[Score], float]) -> list[_Recording]:
    """In the order in which they came."""
    found: dict[int, list[float]] = {}
    times: dict[int, float] = {}
    for score in scores:
        found.setdefault(score.recording, []).append(error(score))
        times.setdefault(score.recording, score.scored_at)
    return [_Recording(number, sum(errors) / len(errors), times[number]) for number, errors in found.items()]
