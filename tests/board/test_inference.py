"""What onnxruntime runs on."""

from __future__ import annotations

import pytest

from edgectl import inference
from edgectl.inference import CPU, CUDA
from edgewire.errors import UnsupportedBoard

TENSORRT = "TensorrtExecutionProvider"


@pytest.mark.parametrize(
    ("there", "device", "wished", "expected"),
    [
        ([CPU], "auto", [CUDA, CPU], [CPU]),
        ([TENSORRT, CUDA, CPU], "auto", [CUDA, CPU], [CUDA, CPU]),
        ([TENSORRT, CUDA, CPU], "auto", [TENSORRT, CUDA], [TENSORRT, CUDA, CPU]),
        ([CUDA, CPU], "auto", [CPU], [CPU]),
        ([CUDA, CPU], "cpu", [CUDA], [CPU]),
        ([CUDA, CPU], "cuda", [CPU], [CUDA, CPU]),
    ],
)
def test_the_best_provider_that_is_there_is_taken_and_the_cpu_always_last(
    monkeypatch: pytest.MonkeyPatch, there: list[str], device: str, wished: list[str], expected: list[str]
) -> None:
    monkeypatch.setattr(inference.onnxruntime, "get_available_providers", lambda: there)
    assert inference._providers(device, wished) == expected


def test_cuda_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference.onnxruntime, "get_available_providers", lambda: [CPU])
    with pytest.raises(UnsupportedBoard, match="no CUDA provider"):
        inference._providers("cuda", [CUDA])
