"""Tasks to start from, one per kind of data. A template is a task that is valid as it stands, and what to change in it.

To add one: a function that returns it, listed in TEMPLATES.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgewire.errors import NotFound
from edgewire.tasks import LENET5_EMBEDDING, InputSchema, ModelName, ModelSpec, Task, Windows


@dataclass(frozen=True)
class Template:
    """about: one line for the list; notes: what somebody must know who edits the task, a line each."""

    task: Task
    about: str
    notes: tuple[str, ...]


def sensor() -> Template:
    task = Task(
        "sensor",
        "Activities from an accelerometer",
        InputSchema((128, 3), windows=Windows(rate_hz=50.0, hop=64)),
        ("rest", "walk", "run"),
        ModelSpec("cnn1d", width=32),
    )
    return Template(
        task,
        "windows of sensor channels, cut from recordings (cnn1d)",
        (
            "input.shape: steps of a window, channels",
            "input.windows: rate_hz of the recordings, hop from window to window in steps, scale for every value",
            "data: CSV with a row per step: a column per channel, label, group (the recording), and time if"
            " irregular; or a folder with a sub-folder of such files per label; or NPZ with finished windows",
        ),
    )


def tabular() -> Template:
    task = Task(
        "tabular",
        "Measurements, some of them missing",
        InputSchema((8,), missing=True),
        ("no", "yes"),
        ModelSpec("mlp", width=64),
    )
    return Template(
        task,
        "rows of numbers, some of them missing (mlp)",
        (
            "input.shape: numbers per row; input.missing: whether a cell may be empty",
            "data: CSV with a row per sample, column label (or y), group if rows belong together; or NPZ",
        ),
    )


def image() -> Template:
    task = Task(
        "image", "Small colour images", InputSchema((32, 32, 3), "uint8"), ("no", "yes"), ModelSpec("cnn2d", width=16)
    )
    return Template(
        task,
        "images, three convolutions with group norm (cnn2d)",
        (
            "input.shape: height, width, 3 for colour; without the 3 for grey; images are cut and resized to it",
            "data: a folder with a sub-folder of PNG and JPEG files per label (needs Pillow); or NPZ",
        ),
    )


def lenet5() -> Template:
    task = Task(
        "lenet5",
        "Handwritten digits",
        InputSchema((28, 28), "uint8"),
        tuple("0123456789"),
        ModelSpec("lenet5", embedding=LENET5_EMBEDDING),
    )
    return Template(
        task,
        "images, LeNet-5 with its classic sizes (lenet5)",
        (
            "input.shape: height, width (at least 12 each), 3 for colour; model.width means nothing here",
            "data: a folder with a sub-folder of PNG and JPEG files per label (needs Pillow); or NPZ",
        ),
    )


def audio() -> Template:
    task = Task(
        "audio",
        "Spoken words",
        InputSchema((16000,), "int16", windows=Windows(rate_hz=16000.0, hop=8000)),
        ("no", "yes"),
        ModelSpec("audio", width=16),
    )
    return Template(
        task,
        "sound: a log-mel spectrogram inside the model, then convolutions (audio)",
        (
            "input.shape: samples of a window; input.windows: rate_hz and hop in samples",
            "recordings of other rates are resampled, shorter ones padded by silence",
            "data: a folder with a sub-folder of WAV files per label (16 bit, mono or stereo); or NPZ with waves",
        ),
    )


def din() -> Template:
    return _clicks("din", "din", "the history is read with the candidate in mind (din)")


def dssm() -> Template:
    return _clicks("dssm", "dssm", "two towers and their product: the first to try (dssm)")


def wide_deep() -> Template:
    return _clicks("wide-deep", "wide_deep", "pairs of items remembered, and two layers (wide_deep)")


def _clicks(name: str, model: ModelName, about: str) -> Template:
    task = Task(
        name,
        "What will be liked",
        InputSchema((21,), "int32", items=1000),
        ("no", "yes"),
        ModelSpec(model, width=32, embedding=16),
        "auc",
    )
    return Template(
        task,
        f"clicks on items: {about}",
        (
            "input.items: how many items there are; their ids are 1 to that",
            "input.shape: 1 and the length of the history: a sample is the candidate, then the items liked before it,"
            " most recent first, filled up with 0",
            "data: NPZ with x of whole numbers; a history holds only what was liked before",
        ),
    )


TEMPLATES: dict[str, Callable[[], Template]] = {
    "sensor": sensor,
    "tabular": tabular,
    "image": image,
    "lenet5": lenet5,
    "audio": audio,
    "din": din,
    "dssm": dssm,
    "wide-deep": wide_deep,
}


def find(name: str) -> Template:
    """Raises NotFound, which lists what there is."""
    if name not in TEMPLATES:
        raise NotFound(f"there is no template '{name}'", hint=f"there are: {', '.join(TEMPLATES)}")
    return TEMPLATES[name]()
