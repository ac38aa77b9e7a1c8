"""The running score and what it says of drift, on rows small enough to check by hand."""

from __future__ import annotations

import pytest

from edgectl.standing import area_under_curve, drift, standing
from edgectl.store import Score


def row(
    right: bool, *, version: int | None = 1, base: bool | None = True, recording: int = 0, at: float = 0.0
) -> Score:
    share, base_version = (0.9 if right else 0.1), (None if base is None else 1)
    return Score(recording, 1, version, right, share, base_version, base, None if base is None else 0.8, at)


def rows(*rights: bool, **options: object) -> list[Score]:
    return [row(right, recording=number, at=float(number), **options) for number, right in enumerate(rights)]  # type: ignore[arg-type]


def test_nothing_scored_is_nothing_said() -> None:
    assert standing([], metric="accuracy") is None


def test_the_last_all_and_each_version_are_told_beside_the_base() -> None:
    scores = rows(*[False] * 60, version=1) + rows(*[True] * 20, version=2)
    said = standing(scores, metric="accuracy")
    assert said is not None
    assert said["last"] == {"samples": 50, "serving": 0.4, "paired": 50, "base": 1.0}
    assert said["all"] == {"samples": 80, "serving": 0.25, "paired": 80, "base": 1.0}
    assert [(v["version"], v["samples"], v["serving"]) for v in said["versions"]] == [(1, 60, 0.0), (2, 20, 1.0)]


def test_the_base_counts_only_where_it_was_at_hand() -> None:
    said = standing([row(True, base=None), row(True, base=False)], metric="accuracy")
    assert said is not None
    assert (said["all"]["paired"], said["all"]["base"]) == (1, 0.0)


def test_where_samples_are_ranked_the_score_is_the_area_under_the_curve() -> None:
    assert area_under_curve([(0.1, 0), (0.4, 1), (0.35, 0), (0.8, 1)]) == 1.0
    assert area_under_curve([(0.5, 0), (0.5, 1)]) == 0.5
    assert area_under_curve([(0.1, 0), (0.4, 0), (0.35, 1), (0.8, 1)]) == 0.75
    assert area_under_curve([(0.5, 1)]) is None
    said = standing([Score(i, i % 2, 1, True, 0.9, None, None, None, 0.0) for i in range(4)], metric="auc")
    assert said is not None
    assert (said["all"]["serving"], said["all"]["base"]) == (1.0, None)


@pytest.mark.parametrize("metric", ["accuracy", "auc"])
def test_errors_of_the_serving_model_that_rise_are_drift_and_say_what_to_do(metric: str) -> None:
    found = drift(rows(*[True] * 40, *[False] * 40), metric=metric)
    assert (found.state, found.since) == ("drift", 40.0)
    assert "the model that serves rose" in found.detail
    assert "edgectl train" in found.hint


def test_the_base_sees_drift_that_a_new_version_is_too_young_for() -> None:
    scores = [Score(i, 0, 1 if i < 50 else 2, True, 0.9, 1, i < 40, 0.5, float(i)) for i in range(80)]
    assert "the base model rose" in drift(scores, metric="accuracy").detail


@pytest.mark.parametrize("clock", [1.0, -1.0])
def test_an_alarm_is_answered_by_a_training_on_what_raised_it_whichever_way_the_clock_went(clock: float) -> None:
    scores = [row(number < 40, recording=number, at=clock * number) for number in range(80)]
    assert drift(scores, metric="accuracy", answered=70).state == "none"
    assert drift(scores, metric="accuracy", answered=30).state == "drift"


def test_samples_of_one_recording_are_one_observation() -> None:
    good = rows(*[True] * 40)
    assert drift(good + [row(False, recording=99, at=50.0) for _ in range(60)], metric="accuracy").state == "none"


def test_too_few_recordings_tell_nothing() -> None:
    found = drift(rows(True, True, False), metric="accuracy")
    assert (found.state, found.detail) == ("unknown", "too few new recordings to tell: 3 of 20")
