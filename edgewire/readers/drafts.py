"""A task that fits the data somebody has: a first draft for a person to read and edit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np

from edgewire.errors import InvalidSamples
from edgewire.readers import columns as fitting
from edgewire.readers import sources, tables
from edgewire.readers.sources import Source
from edgewire.tasks import AUDIO_RATES_HZ, InputSchema, ModelSpec, Task, Windows

FILE_LIMIT_BYTES = 2 << 30
_LOOK_AT = 200  # files of a folder
_SIDE_PIXELS = 32  # of images that are larger than small, or of several sizes
_SMALL_PIXELS = 64
_RATE_HZ = 16_000


def draft_task(path: Path, *, task_id: str, title: str, limit_bytes: int = FILE_LIMIT_BYTES) -> Task:
    """A task for an NPZ or CSV file with a row per sample, or a folder with a sub-folder of images or WAV files per
    label: shape, dtype, labels and a model for them. Raises NotFound or InvalidSamples."""
    if path.is_dir():
        schema, model, names = _of_folder(path)
    else:
        schema, model, names = _of_table(path, limit_bytes)
    labels = tuple(sorted(names, key=_natural))
    task = Task(task_id, title, schema, labels, model)
    if problems := task.problems():
        raise InvalidSamples(f"{path}: {problems[0]}")
    return task


def _natural(text: str) -> tuple[int, float, str]:
    return (0, float(text), text) if text.lstrip("-").isdigit() else (1, 0.0, text)


def _of_table(path: Path, limit_bytes: int) -> tuple[InputSchema, ModelSpec, set[str]]:
    source = Source(str(path), path=path)
    with source.open(limit_bytes) as file:
        columns = tables.read_table(file, source.name, limit_bytes)
    x, y = columns["x"], columns.get("y")
    if y is None:
        raise InvalidSamples(f"{path} has no column 'y'", hint="a task needs labelled samples")
    dtype = str(x.dtype) if str(x.dtype) in ("uint8", "int8") else "float32"
    missing = x.dtype.kind == "f" and bool(np.isnan(x).any())
    shape = tuple(int(axis) for axis in x.shape[1:])
    if len(shape) == 1:
        model = ModelSpec("mlp", width=64)
    elif len(shape) == 3 or dtype == "uint8":
        model = ModelSpec("cnn2d", width=16)
    else:
        model = ModelSpec("cnn1d", width=32)
    return InputSchema(shape, dtype, missing), model, set(fitting.label_names(y)[0])  # type: ignore[arg-type]


def _of_folder(folder: Path) -> tuple[InputSchema, ModelSpec, set[str]]:
    kind, found = sources.of_folder(folder, labelled=True)
    names = {source.label for source in found if source.label is not None}
    if kind == "image":
        return _of_images(found[:: -(-len(found) // _LOOK_AT)]), ModelSpec("cnn2d", width=16), names
    if kind == "wave":
        return _of_waves(found[:: -(-len(found) // _LOOK_AT)]), ModelSpec("audio", width=16), names
    raise InvalidSamples(
        f"{folder} holds CSV files, which do not say a window's length",
        hint="start from: cloud-aug task template sensor",
    )


def _of_images(found: Sequence[Source]) -> InputSchema:
    from edgewire.readers.images import look

    seen = [look(source) for source in found]
    sizes = {(height, width) for height, width, _ in seen}
    size = sizes.pop() if len(sizes) == 1 else (0, 0)
    if not 1 <= max(size) <= _SMALL_PIXELS:
        size = (_SIDE_PIXELS, _SIDE_PIXELS)
    return InputSchema((*size, 3) if any(colour for _, _, colour in seen) else size, "uint8")


def _of_waves(found: Sequence[Source]) -> InputSchema:
    """One second, or the length of a recording where those are shorter; half of it from window to window."""
    from edgewire.readers.waves import look

    seen = [look(source) for source in found]
    common = Counter(rate for rate, _ in seen).most_common(1)[0][0]
    rate = min(max(common, AUDIO_RATES_HZ[0]), _RATE_HZ)
    seconds = min(1.0, max(0.1, median(frames / max(own, 1) for own, frames in seen)))
    length = round(seconds * rate)
    return InputSchema((length,), "int16", windows=Windows(float(rate), max(1, length // 2)))
