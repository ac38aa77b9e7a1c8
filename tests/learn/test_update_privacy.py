"""Noise on updates, and what the accountant says of it: published formulas, and another implementation's figures."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgelearn.federated.algorithm import Server, Update
from edgelearn.federated.arrays import norm
from edgelearn.federated.dp_fedavg import DpFedAvg
from edgelearn.privacy.accountant import (
    composed_epsilon,
    gaussian_delta,
    gaussian_epsilon,
    sampled_epsilon,
    sampled_rdp,
)
from edgelearn.privacy.clipping import clipped
from edgelearn.privacy.noise import noised, randomized

MANY = {"w": np.zeros(20_000, np.float32)}


@pytest.mark.parametrize(
    ("noise_multiplier", "share", "rounds", "epsilon", "tight"),
    [
        (1.1, 256 / 60000, 14062, 2.5969811785948815, 2.381686002234784),
        (1.0, 0.01, 1000, 2.1077530754515745, 1.8282436455855091),
        (1.0, 0.1, 50, 6.0214919768356925, 5.1482625932668755),
        (4.0, 0.01, 10000, 1.0354900660362436, 0.9469993068930963),
        (0.5, 0.1, 10, 14.418327009829337, 12.261239368030397),
    ],
)
def test_sampled_rounds_cost_what_dp_accounting_says(noise_multiplier, share, rounds, epsilon, tight):
    """dp-accounting 0.6.0 at δ = 1e-5: its Rényi accountant with our orders, and its tighter one, which is below."""
    found = sampled_epsilon(noise_multiplier, share, rounds, 1e-5)
    assert found == pytest.approx(epsilon, rel=1e-9)
    assert found > tight


@pytest.mark.parametrize(
    ("noise_multiplier", "releases", "epsilon"),
    [(1, 1, 4.37717810002493), (1, 10, 17.85658683146691), (0.5, 1, 9.99725615024243), (5, 100, 9.99725615024243)],
)
def test_a_boards_own_releases_cost_what_dp_accounting_says(noise_multiplier, releases, epsilon):
    assert gaussian_epsilon(noise_multiplier, releases, 1e-5) == pytest.approx(epsilon, rel=1e-6)


def test_rdp_of_everybody_every_time_is_that_of_the_gaussian():
    assert sampled_rdp(2.0, 1.0, 8) == 8 / (2 * 2.0**2)
    assert sampled_rdp(2.0, 1 - 1e-12, 8) == pytest.approx(1.0)


def test_rdp_of_order_two_by_hand():
    assert sampled_rdp(1.0, 0.1, 2) == pytest.approx(math.log(0.81 + 0.18 + 0.01 * math.e))


def test_epsilon_grows_with_rounds_and_share_and_shrinks_with_noise():
    base = sampled_epsilon(1.0, 0.1, 100, 1e-5)
    assert sampled_epsilon(1.0, 0.1, 200, 1e-5) > base
    assert sampled_epsilon(1.0, 0.2, 100, 1e-5) > base
    assert sampled_epsilon(2.0, 0.1, 100, 1e-5) < base
    assert sampled_epsilon(1.0, 0.1, 0, 1e-5) == sampled_epsilon(1.0, 0.0, 9, 1e-5) == 0


def test_delta_and_epsilon_of_the_gaussian_belong_together():
    assert gaussian_delta(1.5, 4, gaussian_epsilon(1.5, 4, 1e-6)) == pytest.approx(1e-6, rel=1e-6)
    assert gaussian_epsilon(1.5, 0, 1e-6) == 0
    assert gaussian_epsilon(0.01, 1, 1e-6) == math.inf


def test_releases_with_different_noise_compose_as_one_with_all_their_variance():
    assert composed_epsilon([2.0] * 7, 1e-5) == pytest.approx(gaussian_epsilon(2.0, 7, 1e-5), rel=1e-9)
    assert composed_epsilon([5.0, 5 / 2], 1e-5) == pytest.approx(gaussian_epsilon(math.sqrt(5), 1, 1e-5), rel=1e-9)
    assert composed_epsilon([3.0, 1.0], 1e-5) < gaussian_epsilon(3.0, 1, 1e-5) + gaussian_epsilon(1.0, 1, 1e-5)
    assert composed_epsilon([], 1e-5) == 0
    assert composed_epsilon([1e-200, 3.0], 1e-5) == composed_epsilon([0.001], 1e-5) == math.inf
    with pytest.raises(ValueError, match="noise"):
        composed_epsilon([1.0, 0.0], 1e-5)


@pytest.mark.parametrize(("noise_multiplier", "delta"), [(0.0, 1e-5), (-1.0, 1e-5), (1.0, 0.0), (1.0, 1.0)])
def test_no_noise_and_no_delta_have_no_epsilon(noise_multiplier, delta):
    with pytest.raises(ValueError, match=r"noise|delta"):
        gaussian_epsilon(noise_multiplier, 1, delta)
    with pytest.raises(ValueError, match=r"noise|delta"):
        sampled_epsilon(noise_multiplier, 0.1, 1, delta)


def test_clipping_keeps_the_direction_and_short_updates_as_they_are():
    delta = {"a": np.float32([3, 0]), "b": np.float32([4])}
    assert norm(clipped(delta, 1.0)) == pytest.approx(1)
    assert clipped(delta, 10.0)["b"].tolist() == [4]
    assert clipped({"a": np.zeros(2, np.float32)}, 1.0)["a"].tolist() == [0, 0]


def test_noise_has_the_deviation_it_is_given_not_its_square_root():
    drawn = noised(MANY, 3.0, np.random.default_rng(0))["w"]
    assert (drawn.mean(), drawn.std()) == (pytest.approx(0, abs=0.1), pytest.approx(3, rel=0.02))


def test_a_boards_own_noise_is_scaled_to_twice_the_clip():
    sent = randomized(MANY, clip=0.5, noise_multiplier=3.0, rng=np.random.default_rng(0))
    assert sent["w"].std() == pytest.approx(3, rel=0.02)
    assert sent["w"].dtype == np.float32


def test_the_servers_noise_is_that_of_one_board_over_the_expected_cohort():
    algorithm = DpFedAvg(clip=2.0, noise_multiplier=3.0, expected=10, rng=np.random.default_rng)
    server = algorithm.server_update(Server(7, MANY), [])
    assert server.weights["w"].std() == pytest.approx(2 * 3 / 10, rel=0.02)
    assert server.weights["w"].dtype == np.float32


def test_no_board_moves_the_model_by_more_than_its_clip_over_the_expected_cohort():
    algorithm = DpFedAvg(clip=2.0, noise_multiplier=0.0, expected=10, rng=np.random.default_rng)
    loud = Update("loud", 0, 10**6, 1, {"w": np.full(20_000, 50, np.float32)})
    moved = algorithm.server_update(Server(0, MANY), [loud]).weights
    assert norm(moved) == pytest.approx(0.2)


def test_dp_rounds_draw_their_boards_by_coin():
    assert DpFedAvg.invites == "coin"
