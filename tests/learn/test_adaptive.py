"""The rules by which rounds adapt, on numbers that can be checked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgelearn.federated.adaptive import Pace, buffer_now, buffering_gain, deadline_s, local_steps, seen, typical
from edgelearn.federated.algorithm import LocalSettings
from edgelearn.federated.example import Pull
from edgelearn.federated.local import local_sgd


def test_a_new_board_is_expected_to_be_like_the_median():
    assert typical([Pace(1, 30), Pace(2, 10), Pace(9, 20)]) == Pace(2, 20)
    with pytest.raises(ValueError, match="first round"):
        typical([])


@pytest.mark.parametrize("told_s", [None, 0.0, 3.0, 8.0, 1e12])
def test_whatever_a_board_says_of_its_time_the_same_turn_is_expected_to_take_what_it_took(told_s):
    pace = seen(steps=20, moved_bytes=600, span_s=8.0, trained_s=told_s)
    assert pace.seconds(steps=20, moved_bytes=600) == pytest.approx(8)
    assert pace.slowed(3).seconds(steps=20, moved_bytes=600) == pytest.approx(24)


def test_one_fast_turn_does_not_hide_slow_ones():
    pace = Pace(1, 1)
    for speed in (100, 1, 1):
        pace = pace.learned(Pace(speed, 1))
    assert pace.steps_per_s < 1.2


def test_the_deadline_waits_for_most_and_not_for_the_last():
    assert deadline_s([5, 1, 2, 3, 4, 6, 7, 8, 9, 1000], share=0.7, slack=1.0) == 7
    assert deadline_s([3], share=0.7, slack=1.0) == 3
    with pytest.raises(ValueError, match="nobody"):
        deadline_s([])


def test_a_board_is_given_what_fits_into_its_time():
    pace = Pace(steps_per_s=10, bytes_per_s=1000)
    assert local_steps(pace, wanted=300, moved_bytes=2000, within_s=12) == 100
    assert local_steps(pace, wanted=50, moved_bytes=2000, within_s=12) == 50
    assert local_steps(pace, wanted=50, moved_bytes=20_000, within_s=12) == 1


def test_buffering_gains_nothing_where_all_are_alike_and_much_where_one_is_slow():
    assert buffering_gain([2, 2, 2, 2], within_s=math.inf) == 1
    assert buffering_gain([1, 1, 1, 10], within_s=math.inf) == pytest.approx(3.1 / 0.4)
    assert buffering_gain([1, 1, 1, 10], within_s=2) == pytest.approx(3.1 / 1.5)
    assert buffering_gain([5, 6], within_s=2) == math.inf


def test_what_was_chosen_stays_until_it_clearly_loses():
    gains, buffered, seen = (1.8, 2.1, 1.8, 1.6, 1.4, 1.8), False, []
    for gain in gains:
        buffered = buffer_now(gain, buffered=buffered)
        seen.append(buffered)
    assert seen == [False, True, True, True, False, False]


def test_a_board_that_may_take_two_steps_takes_two():
    settings = LocalSettings(epochs=5, batch_size=1, learning_rate=0.5, max_steps=2)
    local, steps = local_sgd(Pull([4, 4, 4]), {"w": np.float32([0])}, settings, np.random.default_rng(0))
    assert (steps, local["w"].tolist()) == (2, [3.0])  # 0 to 2, 2 to 3
