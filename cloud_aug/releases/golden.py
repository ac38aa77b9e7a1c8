"""What a base answers where it was made, for boards to compare with."""

from __future__ import annotations

from cloud_aug.encoder import Encoder
from edgewire import golden
from edgewire.tasks import Task


def make(onnx: bytes, task: Task) -> bytes:
    """Golden answers as a file. Raises CorruptFile for a base that does not load or answers with no numbers."""
    x = golden.inputs(task.input)
    return golden.to_bytes(x, Encoder(onnx).logits(x), task.id)
