"""Golden answers: made-up inputs and what a model answered to them where it was made, so that a library or a file that
answers otherwise is noticed before anybody relies on it. Made up, so that they say nothing of anybody's samples."""

from __future__ import annotations

import numpy as np

from edgewire import tensors
from edgewire.errors import InvalidMessage
from edgewire.tasks import InputSchema

ROWS = 16
LIMIT_BYTES = 64 << 20
TOLERANCE = 1e-3  # relative and absolute: what other kernels of the same operators may differ by


def inputs(schema: InputSchema) -> np.ndarray:
    """Inputs to compare answers on, (ROWS, *shape) in the task's dtype."""
    if isinstance(schema.items, int):
        return np.random.default_rng(0).integers(1, schema.items + 1, (ROWS, *schema.shape)).astype(schema.dtype)
    values = np.random.default_rng(0).normal(0, 50, (ROWS, *schema.shape))
    return np.asarray(np.abs(values) if schema.dtype == "uint8" else values).clip(-128, 127).astype(schema.dtype)


def to_bytes(x: np.ndarray, logits: np.ndarray, task_id: str) -> bytes:
    """Inputs and answers as a file."""
    return tensors.pack({"x": x, "logits": logits}, {"format": "golden/1", "task": task_id})


def from_bytes(raw: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and answers, as many of the one as of the other. Raises InvalidMessage or TooLarge."""
    arrays, _ = tensors.unpack(raw, what="golden answers", limit_bytes=LIMIT_BYTES)
    if set(arrays) != {"x", "logits"} or len(arrays["x"]) != len(arrays["logits"]):
        raise InvalidMessage("golden answers hold inputs `x` and as many `logits`")
    return arrays["x"], arrays["logits"]


def agree(found: np.ndarray, expected: np.ndarray) -> bool:
    """Whether a model still answers as it did; never for what is not finite."""
    same_shape = found.shape == expected.shape and bool(np.isfinite(found).all())
    return same_shape and bool(np.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE))
