"""What `edgectl eval` says of answers, by the task's metric."""

from __future__ import annotations

import numpy as np
import pytest

from edgectl.commands.evaluate import _figures


def ranked(*score: float) -> np.ndarray:
    """Logits (n, 2) that rank samples by these."""
    return np.column_stack([np.zeros(len(score)), np.asarray(score)])


def test_accuracy_has_wilsons_interval() -> None:
    found = _figures("accuracy", np.eye(2)[[0, 1, 1, 1]], np.asarray([0, 1, 1, 0]))
    assert found == {"accuracy": 0.75, "low": pytest.approx(0.3006, abs=1e-3), "high": pytest.approx(0.9544, abs=1e-3)}


def test_where_samples_are_ranked_it_is_the_area_under_the_curve_and_accuracy_beside_it() -> None:
    """All are called by the second label; five of six pairs are in the right order."""
    found = _figures("auc", ranked(1, 2, 3, 4, 2.5), np.asarray([0, 0, 1, 1, 0]))
    assert (found["accuracy"], found["auc"]) == (0.4, 1.0)
    found = _figures("auc", ranked(1, 2, 3, 4, 3.5), np.asarray([0, 0, 1, 1, 0]))
    assert found["auc"] == pytest.approx(5 / 6, abs=1e-6)
    assert 0 < found["low"] < 5 / 6 < found["high"] < 1


def test_two_samples_of_each_label_in_the_right_order_prove_little() -> None:
    found = _figures("auc", ranked(1, 2, 3, 4), np.asarray([0, 0, 1, 1]))
    assert (found["auc"], found["high"]) == (1.0, 1.0)
    assert found["low"] < 0.5
    many = _figures("auc", ranked(*range(200)), np.arange(200) // 100)
    assert many["low"] > 0.95


def test_one_label_alone_cannot_be_ranked() -> None:
    found = _figures("auc", ranked(1, 2), np.asarray([1, 1]))
    assert (found["auc"], found["low"], found["high"]) == (None, None, None)
