"""Rounds against a simulated clock: who waits for whom, and what the adaptive rules save."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from cloud_aug.simulation.paced import Adaptive, Clock, Moment, Paced
from cloud_aug.simulation.plan import Plan
from edgelearn.crowd import Crowd
from edgelearn.federated.algorithm import LocalSettings
from edgelearn.federated.splits import iid
from edgelearn.models.build import build
from edgewire.errors import UsageError
from tests.cloud.toys import TASK

PLAN = Plan(share=0.5, settings=LocalSettings(epochs=2, batch_size=3, learning_rate=0.1))
UNEVEN, FIXED = Clock(spread=1.5), Adaptive()


def played(rounds: int, adaptive: Adaptive = FIXED, clock: Clock = UNEVEN, plan: Plan = PLAN) -> list[Moment]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 400)
    x = (rng.normal(size=(400, *TASK.input.shape)) + 4 * y.reshape(-1, 1)).astype(np.float32)
    crowd = Crowd(build(TASK, seed=0), x, y, iid(300, 10, rng), (x[300:], y[300:]))
    return list(islice(Paced(crowd, plan, clock, adaptive).moments(), rounds))


def test_the_same_seed_takes_the_same_time_and_learns_the_same():
    assert played(3) == played(3)


def test_without_rules_a_round_waits_for_its_slowest_board():
    alike = Clock(steps_per_s=2, bytes_per_s=1e12, spread=0, luck=0)
    assert [round(moment.seconds, 3) for moment in played(2, clock=alike)] == [10.0, 20.0]  # 2 epochs of 10 steps
    assert all(moment.late == 0 and moment.counted == 5 for moment in played(3))


def test_a_deadline_leaves_stragglers_behind_from_the_second_round_on():
    first, *later = played(8, Adaptive(deadline=True))
    assert (first.counted, first.late) == (5, 0)
    assert sum(moment.late for moment in later) > 0
    assert later[-1].seconds < played(8)[-1].seconds / 2


def test_with_fewer_steps_slow_boards_are_in_time():
    late = sum(moment.late for moment in played(9, Adaptive(deadline=True)))
    assert sum(moment.late for moment in played(9, Adaptive(deadline=True, steps=True))) <= late / 2


def test_buffered_rounds_wait_for_nobody_and_learn():
    moments = played(20, Adaptive(buffered=True))
    assert all(moment.buffered for moment in moments)
    assert moments[-1].seconds < played(10)[-1].seconds / 2
    assert moments[-1].score > 0.8


def test_stragglers_make_it_change_over_and_equal_boards_do_not():
    assert [moment.buffered for moment in played(3, Adaptive(switch=True))] == [False, True, True]
    alike = Clock(spread=0.1)
    assert not any(moment.buffered for moment in played(6, Adaptive(switch=True), clock=alike))


def test_an_algorithm_that_cannot_be_played_so_says_what_can():
    with pytest.raises(UsageError, match="not played against the clock"):
        played(1, plan=replace(PLAN, algorithm="scaffold"))
