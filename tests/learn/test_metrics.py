"""Metrics by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edgelearn.metrics import placements, row_scores, score


def _logits(scores: list[float]) -> np.ndarray:
    return np.asarray([[0.0, value] for value in scores], np.float32)


def test_placements_of_a_hand_checked_ranking() -> None:
    y = np.asarray([1, 0, 1, 0, 0])
    placed = placements(_logits([3.0, 2.0, 2.0, 1.0, 0.0]), y)
    # the first positive beats all three; the second ties with one negative and beats two
    assert placed[[0, 2]] == pytest.approx([1.0, 2.5 / 3])
    assert placed[[1, 3, 4]] == pytest.approx([0.75, 1.0, 1.0])
    assert placed.mean() == pytest.approx((1.0 + 2.5 / 3) / 2)  # the area under the curve


def test_one_label_alone_is_chance() -> None:
    assert placements(_logits([1.0, 5.0]), np.asarray([1, 1])).tolist() == [0.5, 0.5]


def test_a_constant_added_to_all_scores_changes_no_ranking() -> None:
    rng = np.random.default_rng(0)
    values, y = rng.normal(size=40), rng.integers(0, 2, 40)
    shifted = score("auc", _logits(list(values + 3)), y)
    assert shifted == pytest.approx(score("auc", _logits(list(values)), y), abs=1e-6)


def test_accuracy_counts_hits() -> None:
    assert row_scores("accuracy", _logits([1.0, -1.0]), np.asarray([1, 1])).tolist() == [1.0, 0.0]
    with pytest.raises(ValueError, match="accuracy of no samples"):
        score("accuracy", _logits([]).reshape(0, 2), np.zeros(0, np.int64))
