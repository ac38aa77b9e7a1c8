import math

import numpy as np
import pytest

from edgelearn.privacy.response import randomize, truth_probability
from edgelearn.retrieval.cohorts import merge_small
from edgelearn.retrieval.directory import describe, rank_cohorts
from edgelearn.retrieval.prototypes import class_means, residuals, similarity


def test_class_means_by_hand():
    means, counts = class_means(np.array([[1.0, 0], [3, 0], [5, 5]]), np.array([0, 0, 2]), 3)
    assert means.tolist() == [[2, 0], [0, 0], [5, 5]]
    assert counts.tolist() == [2, 0, 1]


def test_a_class_without_samples_has_no_residual():
    found = residuals(np.array([[2.0, 0], [0, 0]]), np.array([1, 0]), np.array([[1.0, 1], [9, 9]]))
    assert found.tolist() == [[1, -1], [0, 0]]


def test_equal_styles_are_as_alike_as_can_be_and_opposite_ones_as_unlike():
    style, counts = np.array([[1.0, 2], [3, 4]]), np.array([3, 3])
    assert similarity(style, counts, style, counts) == pytest.approx(1)
    assert similarity(style, counts, -style, counts) == pytest.approx(-1)


def test_contributors_without_a_common_class_are_not_alike():
    style = np.ones((2, 2))
    assert similarity(style, np.array([1, 0]), style, np.array([0, 1])) == -1


def test_no_cohort_stays_below_the_minimum():
    features = np.array([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2], [5.3]])
    merged = merge_small(features, np.array([0, 0, 1, 2, 2, 2, 3]), 3)
    assert merged.tolist() == [0, 0, 0, 1, 1, 1, 1]


def test_one_cohort_is_left_where_nobody_has_company():
    assert merge_small(np.arange(2.0)[:, None], np.array([0, 1]), 5).tolist() == [0, 0]


def test_a_board_finds_the_cohort_of_its_own_style():
    rng = np.random.default_rng(0)
    centres, styles = rng.normal(size=(3, 4)), rng.normal(size=(2, 3, 4))
    y = np.tile(np.arange(3), 40)
    cohort = np.repeat([0, 1], 60)
    embeddings = centres[y] + styles[cohort, y] + rng.normal(0, 0.1, (120, 4))
    directory = describe(embeddings.astype(np.float32), y, cohort, n_classes=3)
    mine = centres + styles[1] + rng.normal(0, 0.1, (3, 4))
    assert rank_cohorts(directory, mine.astype(np.float32), np.arange(3)).argmax() == 1


def test_truth_is_told_with_the_probability_of_the_formula():
    assert truth_probability(5, math.log(4)) == pytest.approx(0.5)
    rng = np.random.default_rng(0)
    told = np.bincount([randomize(2, 5, math.log(4), rng) for _ in range(4000)], minlength=5)
    assert told[2] / 4000 == pytest.approx(0.5, abs=0.03)
    assert told[[0, 1, 3, 4]] / 4000 == pytest.approx([0.125] * 4, abs=0.02)


def test_one_cohort_needs_no_noise():
    assert randomize(0, 1, 0.1, np.random.default_rng(0)) == 0


def test_a_truth_outside_the_range_is_an_error():
    with pytest.raises(ValueError, match="not one of"):
        randomize(5, 5, 1.0, np.random.default_rng(0))
