"""Bytes from elsewhere become dataclasses here, checked against their annotations, or not at all (msgspec)."""

from __future__ import annotations

import threading
from typing import Any, TypeVar

import msgspec

from edgewire.errors import InvalidMessage, TooLarge

T = TypeVar("T")

JSON_LIMIT_BYTES = 4 << 20

_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}
_preparing = threading.Lock()


def decode(kind: type[T], raw: bytes, *, what: str, limit_bytes: int = JSON_LIMIT_BYTES) -> T:
    """Read JSON as `kind` (a dataclass). Unknown fields are ignored, so that a newer peer can add some.

    Raises TooLarge or InvalidMessage, which names the field that is wrong.
    """
    if len(raw) > limit_bytes:
        raise TooLarge(f"{what} has {len(raw)} bytes, the limit is {limit_bytes}")
    try:
        return _decoder(kind).decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # a ValidationError is a DecodeError
        raise InvalidMessage(f"{what} is malformed: {error}") from None
    except RecursionError:
        raise InvalidMessage(f"{what} is nested too deeply") from None


def convert(kind: type[T], value: Any, *, what: str) -> T:
    """Read plain dicts and lists (already parsed JSON or TOML) as `kind`. Raises InvalidMessage."""
    _decoder(kind)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise InvalidMessage(f"{what} is malformed: {error}") from None


def _decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    """msgspec looks at a dataclass when it first meets it, and crashes the process if two threads do so at once."""
    found = _decoders.get(kind)
    if found is None:
        with _preparing:
            found = _decoders.setdefault(kind, msgspec.json.Decoder(kind))
    return found


def encode(value: Any) -> bytes:
    """Canonical JSON: the same value gives the same bytes (keys sorted), so that digests and signatures are stable."""
    return msgspec.json.encode(value, order="sorted")


def plain(value: Any) -> Any:
    """A dataclass as dicts and lists."""
    return msgspec.to_builtins(value)
