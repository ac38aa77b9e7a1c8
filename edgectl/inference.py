"""Run ONNX models (the only home of onnxruntime on the board)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from edgewire.errors import CorruptFile, UnsupportedBoard

BATCH_ROWS = 64
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


class Predictor:
    """One loaded model. threads: of onnxruntime inside one operator; device: 'cpu', 'cuda', or 'auto': those of
    `providers` that are there, best first."""

    def __init__(
        self,
        model: bytes | Path,
        *,
        threads: int = 1,
        device: str = "cpu",
        providers: Sequence[str] = (CUDA, CPU),
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry(
            "session.intra_op.allow_spinning", "0"
        )  # waiting threads must not heat the board
        options.enable_cpu_mem_arena = False  # it keeps what the largest batch needed; here memory is worth more
        options.log_severity_level = 3
        try:
            source = model if isinstance(model, bytes) else str(model)
            self._session = onnxruntime.InferenceSession(source, options, providers=_providers(device, providers))
        except Exception as error:  # onnxruntime raises classes of its own that share no base but Exception
            raise CorruptFile(f"onnxruntime cannot load the model: {error}", hint="edgectl model rollback") from None
        self._input = self._session.get_inputs()[0].name

    @property
    def provider(self) -> str:
        """The execution provider that runs the model."""
        return str(self._session.get_providers()[0])

    def run(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """x: (n, *shape) in the task's dtype. Returns logits (n, classes) and embeddings (n, dim), float32."""
        pieces = [
            self._session.run(["logits", "embedding"], {self._input: x[i : i + BATCH_ROWS]})
            for i in range(0, max(len(x), 1), BATCH_ROWS)
        ]
        return np.concatenate([logits for logits, _ in pieces]), np.concatenate([embedding for _, embedding in pieces])


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax (n, classes)."""
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


def _providers(device: str, wished: Sequence[str]) -> list[str]:
    available = onnxruntime.get_available_providers()
    if device == "auto":
        return [*(name for name in wished if name in available and name != CPU), CPU]
    if device == "cpu":
        return [CPU]
    if CUDA not in available:
        raise UnsupportedBoard(
            "this onnxruntime has no CUDA provider", hint="use --device cpu, or install onnxruntime-gpu for this board"
        )
    return [CUDA, CPU]
