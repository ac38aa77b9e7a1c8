"""PyTorch model -> ONNX with two outputs; and new weights into an exported file, without exporting again.

The cloud exports once. A board only replaces initializers: no exporter, no onnxscript, milliseconds. That is safe
because the export leaves every weight under its own name (`optimize=False`: the optimizer folds weights but keeps
names).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping

import numpy as np
import torch

from edgelearn.models.build import Weights, load
from edgewire.tasks import Task

INPUT, LOGITS, EMBEDDING = "x", "logits", "embedding"
PARITY_TOLERANCE = 1e-3


def export_onnx(task: Task, weights: Weights) -> bytes:
    """ONNX bytes: input `x` (batch, *shape) in the task's dtype, outputs `logits` and `embedding`, batch size free."""
    model = load(task, weights).eval()
    example = torch.from_numpy(np.zeros((2, *task.input.shape), task.input.dtype))
    # the exporter talks about packages it does not need here
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            optimize=False,
            external_data=False,
            input_names=[INPUT],
            output_names=[LOGITS, EMBEDDING],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            verbose=False,
        )
    if program is None:
        raise ValueError("the exporter returned nothing")
    return patch_onnx(program.model_proto.SerializeToString(), weights)


def patch_onnx(onnx_bytes: bytes, weights: Mapping[str, np.ndarray]) -> bytes:
    """The same graph with these weights. Raises ValueError unless each weight finds its initializer, in name and
    shape."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load_from_string(onnx_bytes)
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, array in weights.items():
        tensor = initializers.get(name)
        if tensor is None or tuple(tensor.dims) != array.shape:
            raise ValueError(f"the ONNX file has no initializer '{name}' of shape {list(array.shape)}")
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))
    _strip(model)
    return bytes(model.SerializeToString(deterministic=True))


def _strip(model: object) -> None:
    """Drop what the exporter notes about the machine it ran on: source paths and stack traces."""
    graph = model.graph  # type: ignore[attr-defined]
    for node in graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del value.metadata_props[:]
        value.doc_string = ""
    del graph.metadata_props[:]
    del model.metadata_props[:]  # type: ignore[attr-defined]


def parity(expected: np.ndarray, found: np.ndarray) -> float:
    """Largest difference between PyTorch's and onnxruntime's logits, relative to the largest logit."""
    return float(np.abs(expected - found).max() / max(1.0, float(np.abs(expected).max())))
