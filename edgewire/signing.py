"""Signed envelopes (Ed25519). What is signed says what it is: type, task, epoch, version, times and key id.

A reader names the type and task it expects and the lowest (epoch, version) it accepts, so that a signature can never be
carried over to another purpose, and an old statement never replaces a newer one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from msgspec import Meta

from edgewire.decoding import decode, encode
from edgewire.errors import CorruptFile, Expired, Forged, Outdated, WrongClock
from edgewire.files import write_atomic

CLOCK_TOLERANCE_S = 300.0


@dataclass(frozen=True)
class Statement:
    """What is signed. issued_at, expires_at: seconds since 1970; body: JSON, read by whoever knows the type."""

    type: Annotated[str, Meta(max_length=32)]
    task: Annotated[str, Meta(max_length=63)]
    epoch: Annotated[int, Meta(ge=0)]
    version: Annotated[int, Meta(ge=0)]
    issued_at: float
    expires_at: float
    body: dict[str, Any]


@dataclass(frozen=True)
class _Envelope:
    payload: str  # base64 of the exact bytes that were signed
    key_id: Annotated[str, Meta(max_length=16)]
    signature: Annotated[str, Meta(max_length=128)]


def key_id(public: bytes) -> str:
    """Short name of a public key: 16 hex characters."""
    return hashlib.sha256(public).hexdigest()[:16]


class SigningKey:
    """An Ed25519 private key; its file is PEM (PKCS 8), mode 0600."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.id = key_id(self.public)

    @classmethod
    def generate(cls) -> SigningKey:
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> SigningKey:
        """Raises CorruptFile if it holds no Ed25519 key, FileNotFoundError if there is none."""
        try:
            private = load_pem_private_key(path.read_bytes(), password=None)
        except ValueError:
            raise CorruptFile(f"{path} does not hold a private key") from None
        if not isinstance(private, Ed25519PrivateKey):
            raise CorruptFile(f"{path} holds a key that is not Ed25519")
        return cls(private)

    def save(self, path: Path) -> None:
        pem = self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_atomic(path, pem, mode=0o600)

    def sign(self, message: bytes) -> bytes:
        return self._private.sign(message)


def seal(key: SigningKey, statement: Statement) -> bytes:
    """The envelope as JSON bytes."""
    payload = encode(statement)
    return encode(_Envelope(b64(payload), key.id, b64(key.sign(payload))))


def envelope_key_id(raw: bytes) -> str:
    """Which key claims to have signed; nothing is verified."""
    return decode(_Envelope, raw, what="signed envelope").key_id


def unverified(raw: bytes) -> Statement:
    """What an envelope says, before anybody vouches for it: only to find the key to verify it with."""
    return decode(Statement, unb64(decode(_Envelope, raw, what="signed envelope").payload), what="signed statement")


def open_sealed(
    raw: bytes,
    keys: Mapping[str, bytes],
    *,
    type: str,
    task: str = "",
    now: float | None,
    at_least: tuple[int, int] = (0, 0),
) -> Statement:
    """Verify an envelope and return its statement. keys: key id -> public key (32 bytes).

    now: seconds since 1970; None only for what was received and checked before and is read back from a disk of one's
    own, so that a board whose clock is wrong, or that was offline for long, goes on working.
    Raises Forged (unknown key, bad signature, other type or task), WrongClock (issued in the future), Expired, or
    Outdated ((epoch, version) below at_least).
    """
    envelope = decode(_Envelope, raw, what="signed envelope")
    public = keys.get(envelope.key_id)
    if public is None:
        raise Forged(f"signed by key {envelope.key_id!r}, which is not trusted here")
    payload = unb64(envelope.payload)
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(unb64(envelope.signature), payload)
    except (InvalidSignature, ValueError):
        raise Forged("the signature does not match") from None
    statement = decode(Statement, payload, what="signed statement")
    if (statement.type, statement.task) != (type, task):
        raise Forged(f"it is a '{statement.type}' of task '{statement.task}', expected '{type}' of '{task}'")
    if now is not None:
        _check_times(statement, now)
    if (statement.epoch, statement.version) < at_least:
        raise Outdated(
            f"the {type} is version {statement.epoch}.{statement.version}, already known: {at_least[0]}.{at_least[1]}"
        )
    return statement


def _check_times(statement: Statement, now: float) -> None:
    what = statement.type
    if statement.issued_at > now + CLOCK_TOLERANCE_S:
        raise WrongClock(
            f"the {what} was signed {statement.issued_at - now:.0f} s in the future", hint="set this machine's clock"
        )
    if statement.expires_at < now:
        raise Expired(f"the {what} expired {now - statement.expires_at:.0f} s ago", hint="check the clock; then sync")


def b64(data: bytes) -> str:
    """Bytes as base64 text."""
    return base64.b64encode(data).decode()


def unb64(text: str) -> bytes:
    """Base64 text as bytes, or Forged."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Forged("a key or signature is not base64") from None
