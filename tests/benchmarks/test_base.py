"""The benchmark of base training: what it calls a loss, and int8."""

from __future__ import annotations

import numpy as np

from benchmarks.base import Scores, _compare
from benchmarks.int8 import _dynamic, _static
from edgectl.inference import Predictor
from edgelearn.export import export_onnx
from edgelearn.models.build import build, fit_front, get_weights
from edgewire.tasks import InputSchema, ModelSpec, Task


def test_a_loss_beyond_its_error_is_shown_as_one() -> None:
    plain = Scores("plain", None, np.asarray([70.0, 80.0, 90.0, 60.0]), 1.0)
    change = np.asarray([1.0, 2.0, 1.0, 2.0])
    better = Scores("shipped", None, plain.values + change, 1.0)
    worse = Scores("shipped", None, plain.values - change, 1.0)
    assert [figure.holds for figure in _compare("toy", [plain, better, worse])] == [None, True, False]


def test_who_has_too_little_to_be_tested_on_does_not_count() -> None:
    plain = Scores("plain", 3, np.asarray([70.0, np.nan, 90.0]), 1.0)
    shipped = Scores("shipped", 3, np.asarray([71.0, np.nan, 92.0]), 1.0)
    found = list(_compare("toy", [plain, shipped]))
    assert [figure.value for figure in found] == [80.0, 81.5]
    assert "+1.50" in found[1].anchor


def test_quantised_models_answer_nearly_like_the_original() -> None:
    task = Task("t", "T", InputSchema((20, 3)), ("a", "b", "c"), ModelSpec("cnn1d", 8, 8))
    x = np.random.default_rng(0).normal(0, 30, (64, 20, 3)).astype(np.float32)
    model = build(task, seed=1)
    fit_front(model, x)
    exported = export_onnx(task, get_weights(model))
    expected, _ = Predictor(exported).run(x)
    for quantise in (_static, _dynamic):
        found, _ = Predictor(quantise(exported, x)).run(x)
        assert 0 < np.abs(found - expected).max() < 0.1 * np.abs(expected).max()
