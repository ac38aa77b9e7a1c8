"""PNG and JPEG files -> pixels of a task's size. The only home of Pillow, which is imported when an image is read."""

from __future__ import annotations

import math
import struct
import warnings
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from edgewire.errors import InvalidSamples, UnsupportedBoard
from edgewire.readers.sources import Source
from edgewire.tasks import InputSchema, Task

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_LIMIT_BYTES = 64 << 20
IMAGE_LIMIT_PIXELS = 32 << 20  # 96 MiB as RGB, while one is decoded
_FORMATS = ("PNG", "JPEG")
_GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L")

# What Pillow raises for files that are damaged or made to do harm; its bomb errors and warnings are Exceptions of its
# own and never reached: sizes are checked first.
_UNREADABLE = (
    OSError,  # truncated, or no image at all
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    SyntaxError,  # a broken PNG
    EOFError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
)


def read_images(sources: Sequence[Source], task: Task, limit_bytes: int) -> np.ndarray:
    """Pixels (n, *shape) from 0 to 255 in the task's dtype, resized: the middle of an image, in the task's proportions.

    Raises InvalidSamples, which names the file, and UnsupportedBoard without Pillow.
    """
    schema = task.input
    check_task(task)
    if len(sources) * schema.values * np.dtype(schema.dtype).itemsize > limit_bytes:
        raise InvalidSamples(f"{len(sources)} images are more than {limit_bytes} bytes", hint="add them in pieces")
    x = np.empty((len(sources), *schema.shape), schema.dtype)
    for row, source in enumerate(sources):
        x[row] = _read_one(source, schema)
    return x


def check_task(task: Task) -> None:
    """Raise InvalidSamples for a task that does not take images."""
    shape = task.input.shape
    if task.model.name not in ("cnn2d", "lenet5") or shape[2:] not in ((), (1,), (3,)):
        raise InvalidSamples(f"task '{task.id}' takes samples of shape {list(shape)}, no images")
    if task.input.dtype not in ("uint8", "float32"):
        raise InvalidSamples(f"task '{task.id}' takes {task.input.dtype}, pixels are uint8 or float32")


def look(source: Source) -> tuple[int, int, bool]:
    """Height, width and whether there is colour, from the file's header."""
    with source.open(IMAGE_LIMIT_BYTES) as file:
        try:
            with _open(file) as image:
                return image.height, image.width, image.mode not in _GREY_MODES
        except _UNREADABLE as error:
            raise _unreadable(source, error) from None


def _read_one(source: Source, schema: InputSchema) -> np.ndarray:
    with source.open(IMAGE_LIMIT_BYTES) as file:
        try:
            return _decode(file, schema)
        except InvalidSamples as error:
            raise InvalidSamples(f"{source.name}: {error.message}", hint=error.hint) from None
        except _UNREADABLE as error:
            raise _unreadable(source, error) from None


def _unreadable(source: Source, error: BaseException) -> InvalidSamples:
    reason = "it is damaged" if isinstance(error, struct.error | SyntaxError) else str(error) or "it is damaged"
    return InvalidSamples(f"{source.name} cannot be read as PNG or JPEG: {reason}", hint="repair or remove it")


def _open(file: BinaryIO) -> Image:
    try:
        from PIL import Image
    except ImportError:
        raise UnsupportedBoard(
            "reading images needs Pillow, which is not installed", hint="pip install 'edgectl[images]'"
        ) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sizes: they are checked next
        try:
            image = Image.open(file, formats=_FORMATS)
        except Image.DecompressionBombError:
            raise InvalidSamples(_too_large(), hint="make it smaller") from None
    if image.width * image.height > IMAGE_LIMIT_PIXELS:
        raise InvalidSamples(_too_large(), hint="make it smaller")
    return image


def _too_large() -> str:
    return f"the image has more than {IMAGE_LIMIT_PIXELS >> 20} million pixels"


def _decode(file: BinaryIO, schema: InputSchema) -> np.ndarray:
    height, width, *_ = schema.shape
    mode = "RGB" if schema.shape[2:] == (3,) else "L"
    with _open(file) as image:
        from PIL import ImageOps
        from PIL.Image import Resampling

        image.draft(mode, (2 * max(height, width),) * 2)  # a large JPEG is decoded at a fraction of its size
        upright = ImageOps.exif_transpose(image)
        fitted = ImageOps.fit(_eight_bit(upright, mode), (width, height), method=Resampling.BILINEAR)
    pixels = np.asarray(fitted)
    if pixels.size != math.prod(schema.shape):
        raise ValueError("it is damaged")
    return pixels.reshape(schema.shape)


def _eight_bit(image: Image, mode: str) -> Image:
    """Grey or RGB with 8 bits. What is transparent becomes white."""
    from PIL import Image as images

    if image.mode.startswith("I"):  # Pillow would cut 16 bits off at 255
        values = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = images.fromarray((values >> 8).astype(np.uint8))
    elif image.has_transparency_data:
        layer = image.convert("RGBA")
        paper = images.new("RGBA", layer.size, "white")
        image = images.alpha_composite(paper, layer).convert("RGB")
    return image.convert(mode)
