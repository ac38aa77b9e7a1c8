"""The base model as boards run it: onnxruntime. One thread, one batch size: the same pool gives the same bytes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime

from edgewire.errors import CorruptFile

BATCH_SIZE = 256


def embed(onnx: bytes, x: np.ndarray, *, on_progress: Callable[[int, int], None] | None = None) -> np.ndarray:
    """Embeddings of samples, float32 (n, dim). x: (n, *shape) in the task's dtype.

    Raises CorruptFile if the model does not load, or gives values that are not finite.
    """
    session = _session(onnx)
    parts = []
    for start in range(0, len(x), BATCH_SIZE):
        (part,) = session.run(["embedding"], {"x": np.ascontiguousarray(x[start : start + BATCH_SIZE])})
        parts.append(np.asarray(part, np.float32))
        if on_progress is not None:
            on_progress(min(start + BATCH_SIZE, len(x)), len(x))
    embeddings = np.concatenate(parts)
    if not np.isfinite(embeddings).all():
        raise CorruptFile("the base model gives embeddings that are not finite", hint="train the base again")
    return embeddings


def _session(onnx: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base but this
        raise CorruptFile(f"the base model does not load: {error}", hint="train the base again") from None
