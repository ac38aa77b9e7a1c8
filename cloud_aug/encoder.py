"""The base model as boards run it: onnxruntime. One thread, one batch size: the same pool gives the same bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgewire.errors import CorruptFile

if TYPE_CHECKING:
    import onnxruntime

BATCH_SIZE = 256


class Encoder:
    """A base model, loaded. Raises CorruptFile if it does not load."""

    def __init__(self, onnx: bytes) -> None:
        self._session = _session(onnx)

    def embed(self, x: np.ndarray) -> np.ndarray:
        """Embeddings of samples, float32 (n, dim). x: (n, *shape) in the task's dtype.

        Raises CorruptFile if the model gives values that are not finite.
        """
        embeddings = self._run(x, "embedding")
        if not np.isfinite(embeddings).all():
            raise CorruptFile("the base model gives embeddings that are not finite", hint="train the base again")
        return embeddings

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The label that the base finds likeliest for each sample, int64 (n,)."""
        return np.asarray(self._run(x, "logits").argmax(axis=1), np.int64)

    def logits(self, x: np.ndarray) -> np.ndarray:
        """What the base says of each sample, float32 (n, classes). Raises CorruptFile if it is not finite."""
        found = self._run(x, "logits")
        if not np.isfinite(found).all():
            raise CorruptFile("the base model gives answers that are not finite", hint="train the base again")
        return found

    def _run(self, x: np.ndarray, output: str) -> np.ndarray:
        parts = []
        for start in range(0, len(x), BATCH_SIZE):
            (part,) = self._session.run([output], {"x": np.ascontiguousarray(x[start : start + BATCH_SIZE])})
            parts.append(np.asarray(part, np.float32))
        return np.concatenate(parts)


def _session(onnx: bytes) -> onnxruntime.InferenceSession:
    import onnxruntime  # here: a service opens no model, and starts without it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base but this
        raise CorruptFile(f"the base model does not load: {error}", hint="train the base again") from None
