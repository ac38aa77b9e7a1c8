"""Would int8 make a board's inference faster? Static quantisation (QDQ, calibrated on pool samples) and dynamic,
against the float32 model in the same run. Part of `python -m benchmarks.base`."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx

from benchmarks.figures import Figure, noted, ratio_in_turn
from benchmarks.protocols import Fold
from edgectl.inference import Predictor
from edgelearn.export import export_onnx
from edgelearn.metrics import accuracy
from edgelearn.pretrain import train_base

CALIBRATION_ROWS, TRAIN_ROWS, TEST_ROWS = 512, 6000, 2000
BATCHES = {1: 200, 64: 20}  # rows in a call: calls per measurement


def int8_figures(data: str, fold: Fold, *, quick: bool) -> Iterator[Figure]:
    """Per kind of quantisation: the latency of one sample and of a batch as a ratio to float32, and the accuracy."""
    order = np.random.default_rng(0).permutation(len(fold.y))
    train, test = order[:TRAIN_ROWS], order[-TEST_ROWS:]
    weights = train_base(fold.task, fold.x[train], fold.y[train], fold.user[train], seed=0, epochs=4)
    exported = export_onnx(fold.task, weights)
    plain = Predictor(exported)
    x, y = fold.x[test], fold.y[test]
    right = accuracy(plain.run(x)[0], y)
    for kind, quantise in {"static": _static, "dynamic": _dynamic}.items():
        small = Predictor(quantise(exported, fold.x[train[:CALIBRATION_ROWS]]))
        for rows, calls in BATCHES.items():
            batch = np.ascontiguousarray(x[:rows])
            ours, anchor = _latency(small, batch, calls), _latency(plain, batch, calls)
            ours(), anchor()  # warm up
            ratio, _, ms = ratio_in_turn(ours, anchor, rounds=5 if quick else 15)
            yield noted(f"{data}, int8 {kind}: {rows} at once", ratio, "ratio", anchor=f"float32: {ms:.3f} ms")
        change = 100 * (accuracy(small.run(x)[0], y) - right)
        yield noted(f"{data}, int8 {kind}: accuracy", change, "points", anchor=f"float32: {100 * right:.1f} %")


def _latency(model: Predictor, x: np.ndarray, calls: int) -> Callable[[], float]:
    """Milliseconds per call."""

    def measure() -> float:
        started = time.perf_counter()
        for _ in range(calls):
            model.run(x)
        return 1000 * (time.perf_counter() - started) / calls

    return measure


def _static(exported: bytes, x: np.ndarray) -> bytes:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Samples(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter([{"x": x[i : i + 64]} for i in range(0, len(x), 64)])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    return _quantised(
        exported,
        lambda source, target: quantize_static(
            source,
            target,
            Samples(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        ),
    )


def _dynamic(exported: bytes, _: np.ndarray) -> bytes:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    return _quantised(exported, lambda source, target: quantize_dynamic(source, target, weight_type=QuantType.QInt8))


def _quantised(exported: bytes, quantise: Callable[[str, str], None]) -> bytes:
    """The tool works on files, and trips over shapes that the exporter noted before weights were transposed."""
    logging.getLogger().setLevel(logging.ERROR)
    model = onnx.load_from_string(exported)
    del model.graph.value_info[:]
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, str(source))
        quantise(str(source), str(target))
        return target.read_bytes()
