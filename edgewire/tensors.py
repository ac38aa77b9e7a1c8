"""Named arrays <-> bytes, as safetensors: no code can hide in them, and the same arrays give the same bytes."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from edgewire.errors import InvalidMessage, TooLarge

# One metadata entry only: safetensors keeps metadata in a hash map, whose order would change between runs.
_META = "meta"
_HEADER_LIMIT_BYTES = 8 << 20

Arrays = dict[str, np.ndarray]


def pack(arrays: Mapping[str, np.ndarray], meta: Any = None) -> bytes:
    """Arrays and one JSON value as bytes."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    text = json.dumps(meta, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return bytes(save(contiguous, metadata={_META: text}))


def unpack(data: bytes, *, what: str, limit_bytes: int) -> tuple[Arrays, Any]:
    """The arrays and the JSON value of `pack`.

    Raises TooLarge beyond limit_bytes, InvalidMessage for anything that is not safetensors as `pack` writes it.
    """
    if len(data) > limit_bytes:
        raise TooLarge(f"{what} has {len(data)} bytes, the limit is {limit_bytes}")
    try:
        meta = _read_meta(data)
        return load(data), meta
    except (SafetensorError, ValueError, KeyError, TypeError, struct.error, RecursionError) as error:
        raise InvalidMessage(f"{what} is malformed: {error}") from None


def _read_meta(data: bytes) -> Any:
    (length,) = struct.unpack("<Q", data[:8])
    if length > min(_HEADER_LIMIT_BYTES, len(data) - 8):
        raise ValueError("header longer than the file")
    header = json.loads(data[8 : 8 + length])
    return json.loads(header["__metadata__"][_META])


def require(arrays: Arrays, name: str, *, dtype: str, shape: tuple[int | None, ...], what: str) -> np.ndarray:
    """One array by name, dtype and shape as expected (None: any length), floats finite, or InvalidMessage."""
    array = arrays.get(name)
    if array is None:
        raise InvalidMessage(f"{what} lacks '{name}'")
    fits = array.ndim == len(shape) and all(want in (None, got) for want, got in zip(shape, array.shape, strict=True))
    if str(array.dtype) != dtype or not fits:
        raise InvalidMessage(f"{what}: '{name}' is {array.dtype}{list(array.shape)}, expected {dtype}{list(shape)}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InvalidMessage(f"{what}: '{name}' has values that are not finite")
    return array


def under(prefix: str, arrays: Mapping[str, np.ndarray]) -> Arrays:
    """Arrays of one kind among others: 'w' becomes 'prefix/w'."""
    return {f"{prefix}/{name}": array for name, array in arrays.items()}


def of(prefix: str, arrays: Mapping[str, np.ndarray]) -> Arrays:
    """The arrays of one kind, under their own names."""
    start = f"{prefix}/"
    return {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
