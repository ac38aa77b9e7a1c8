"""A base model, made worse in one way each: what a release must not bring to a fleet.

All of them answer the golden inputs where they are made just as they do on a board, so that the cloud's own checks find
nothing, and it is up to the boards.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgewire import golden

SLOW_STEPS, SLOW_WIDTH = 200, 800
LARGE_MIB = 24
GOLDEN_ARE_ABOVE = 30.0  # golden inputs hold values of ±127; what sensors of these tasks tell is smaller


def good(base: bytes) -> bytes:
    """As good as the base, and yet another file."""
    return _changed(base, lambda graph: None, name="good")


def not_finite(base: bytes) -> bytes:
    """Answers NaN, but only for inputs as small as real ones are."""

    def change(graph: Any) -> None:
        _add(graph, "Cast", ["x"], "nan_x", to=TensorProto.FLOAT)
        _add(graph, "Abs", ["nan_x"], "nan_abs")
        _add(graph, "Flatten", ["nan_abs"], "nan_flat", axis=1)
        _constant(graph, "nan_axis", np.asarray([1], np.int64))
        _add(graph, "ReduceMax", ["nan_flat", "nan_axis"], "nan_most", keepdims=1)
        _constant(graph, "nan_limit", np.asarray([[GOLDEN_ARE_ABOVE]], np.float32))
        _add(graph, "Sub", ["nan_most", "nan_limit"], "nan_room")
        _add(graph, "Sqrt", ["nan_room"], "nan_root")
        _without_effect(graph, "nan_root")

    return _changed(base, change, name="not-finite")


def breaking(base: bytes) -> bytes:
    """Loads, and cannot be run for more inputs than the golden ones are."""

    def change(graph: Any) -> None:
        _add(graph, "Cast", ["x"], "break_x", to=TensorProto.FLOAT)
        _add(graph, "Flatten", ["break_x"], "break_flat", axis=1)
        _constant(graph, "break_axis", np.asarray([1], np.int64))
        _add(graph, "ReduceMax", ["break_flat", "break_axis"], "break_most", keepdims=1)
        _constant(graph, "break_rows", np.zeros((golden.ROWS, 1), np.float32))
        _add(graph, "Add", ["break_most", "break_rows"], "break_end")
        _without_effect(graph, "break_end")

    return _changed(base, change, name="breaking")


def slow(base: bytes) -> bytes:
    """The same answers, after much that nobody needs."""

    def change(graph: Any) -> None:
        wide = np.random.default_rng(0).normal(0, SLOW_WIDTH**-0.5, (SLOW_WIDTH, SLOW_WIDTH)).astype(np.float32)
        _constant(graph, "slow_w", wide)
        _constant(graph, "slow_one", np.ones((1, SLOW_WIDTH), np.float32))
        _constant(graph, "slow_axis", np.asarray([1], np.int64))
        _add(graph, "Cast", ["x"], "slow_x", to=TensorProto.FLOAT)
        _add(graph, "Flatten", ["slow_x"], "slow_flat", axis=1)
        _add(graph, "ReduceMax", ["slow_flat", "slow_axis"], "slow_most", keepdims=1)
        _add(graph, "Mul", ["slow_most", "slow_one"], "slow_0")
        for step in range(SLOW_STEPS):
            _add(graph, "MatMul", [f"slow_{step}", "slow_w"], f"slow_m{step}")
            _add(graph, "Tanh", [f"slow_m{step}"], f"slow_{step + 1}")
        _add(graph, "ReduceMax", [f"slow_{SLOW_STEPS}", "slow_axis"], "slow_end", keepdims=1)
        _without_effect(graph, "slow_end")

    return _changed(base, change, name="slow")


def wrong(base: bytes) -> bytes:
    """Every label is the next one's."""

    def change(graph: Any) -> None:
        classes = graph.output[0].type.tensor_type.shape.dim[1].dim_value
        _constant(graph, "wrong_order", np.roll(np.arange(classes, dtype=np.int64), 1))
        _replace_logits(graph)
        _add(graph, "Gather", ["logits_before", "wrong_order"], "logits", axis=1)

    return _changed(base, change, name="wrong")


def too_large(base: bytes) -> bytes:
    """The same answers from a file of 24 MiB."""

    def change(graph: Any) -> None:
        _constant(graph, "large", np.random.default_rng(0).normal(0, 1, (1, LARGE_MIB << 18)).astype(np.float32))
        _constant(graph, "large_axis", np.asarray([1], np.int64))
        _add(graph, "ReduceMax", ["large", "large_axis"], "large_most", keepdims=1)
        _without_effect(graph, "large_most")

    return _changed(base, change, name="too-large")


def _changed(base: bytes, change: Any, *, name: str) -> bytes:
    model = onnx.load_from_string(base)
    change(model.graph)
    helper.set_model_props(model, {"variant": name})
    return bytes(model.SerializeToString(deterministic=True))


def _without_effect(graph: Any, value: str) -> None:
    """Add nothing times a value (batch or 1, 1) to the logits; nothing times NaN is NaN."""
    _constant(graph, f"{value}_zero", np.zeros((1, 1), np.float32))
    _add(graph, "Mul", [value, f"{value}_zero"], f"{value}_nothing")
    _replace_logits(graph)
    _add(graph, "Add", ["logits_before", f"{value}_nothing"], "logits")


def _replace_logits(graph: Any) -> None:
    for node in graph.node:
        for number, name in enumerate(node.output):
            if name == "logits":
                node.output[number] = "logits_before"


def _add(graph: Any, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
    graph.node.append(helper.make_node(kind, inputs, [output], **attributes))


def _constant(graph: Any, name: str, value: np.ndarray) -> None:
    graph.initializer.append(numpy_helper.from_array(value, name))
