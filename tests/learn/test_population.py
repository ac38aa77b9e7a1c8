"""What contributors say about a board, on cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from edgelearn.personalize.population import OWN_VARIANCE, Population, survey

ONE = Population(np.eye(1), np.zeros((2, 1)), np.asarray([[[2.0], [2.0]], [[-2.0], [-2.0]]]))


def test_the_best_linear_guess_by_hand() -> None:
    # prior covariance of the two class means: [[4 + v, 4], [4, 4 + v]]; one sample of class 0 at 3, noise 1
    found = ONE.guess(np.asarray([[3.0]]), np.asarray([0]))
    scale = 3.0 / (4 + OWN_VARIANCE + 1)
    assert found.ravel() == pytest.approx([(4 + OWN_VARIANCE) * scale, 4 * scale])


def test_many_samples_outweigh_the_contributors() -> None:
    found = ONE.guess(np.full((10_000, 1), 7.0), np.zeros(10_000, np.int64))
    assert found[0, 0] == pytest.approx(7.0, abs=0.01)


def test_without_samples_the_guess_is_everybodys_mean() -> None:
    assert ONE.guess(np.zeros((0, 1)), np.zeros(0, np.int64)).tolist() == [[0.0], [0.0]]


def test_the_head_is_fishers_discriminant() -> None:
    weight, bias = ONE.head(np.asarray([[1.0], [-1.0]]))
    points = np.asarray([[-2.0], [0.0], [2.0]])
    logits = points @ weight.T + bias
    # log posterior ratio of two unit-variance normals at +1 and -1 is 2x
    assert (logits[:, 0] - logits[:, 1]).tolist() == pytest.approx([-4.0, 0.0, 4.0])


def test_survey_finds_means_spread_and_deviations() -> None:
    rng = np.random.default_rng(0)
    shifts = rng.normal(0, 3, (30, 1, 2))
    centres = np.asarray([[0.0, 0.0], [10.0, 0.0]])
    y = np.repeat([0, 1], 40)
    people = [(centres[y] + shift[0] + rng.normal(0, 2.0, (80, 2)), y) for shift in shifts]
    population = survey(people, 2)
    assert population is not None
    assert np.cov((people[0][0] @ population.whiten)[:40].T) == pytest.approx(np.eye(2), abs=0.5)
    wanted = (shifts[:, 0] - shifts[:, 0].mean(axis=0)) / 2.0
    for label in (0, 1):
        back = population.deviations[:, label] @ np.linalg.inv(population.whiten) / 2.0
        assert np.abs(back - wanted).mean() < 0.3


def test_nobody_has_two_samples_of_a_class() -> None:
    assert survey([(np.zeros((2, 3)), np.asarray([0, 1]))], 2) is None
    assert survey([], 2) is None
