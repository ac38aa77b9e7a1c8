"""Packs as they are stored and travel: encrypted, each under a key of its own, so that whoever only stores or passes
them on learns nothing.

encrypted/1: a head of 16 bytes that names the format, then ChaCha20-Poly1305 (RFC 8439) over the whole pack: as many
bytes as the pack has, and a tag of 16. The nonce is the first 12 bytes of the pack's digest; head and digest are
authenticated with it. The same pack under the same key is the same bytes.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from edgewire.errors import DigestMismatch
from edgewire.files import digest

KEY_BYTES = 32
HEAD = b"edge-encrypted/1"
OVERHEAD_BYTES = len(HEAD) + 16
_NONCE_BYTES = 12


def encrypt(data: bytes, key: bytes) -> bytes:
    """A pack as it is stored. key: 32 bytes that serve no other pack."""
    name = bytes.fromhex(digest(data))
    return HEAD + ChaCha20Poly1305(key).encrypt(name[:_NONCE_BYTES], data, HEAD + name)


def decrypt(data: bytes, key: bytes, *, name: str) -> bytes:
    """The pack with the digest `name`. Raises DigestMismatch for anything else, be it truncated, changed, another pack,
    or under another key."""
    raw = bytes.fromhex(name)
    if len(key) != KEY_BYTES or not data.startswith(HEAD):
        raise _no_such_pack(name)
    try:
        found = ChaCha20Poly1305(key).decrypt(raw[:_NONCE_BYTES], memoryview(data)[len(HEAD) :], HEAD + raw)
    except InvalidTag:
        raise _no_such_pack(name) from None
    if digest(found) != name:
        raise _no_such_pack(name)
    return found


def _no_such_pack(name: str) -> DigestMismatch:
    return DigestMismatch(
        f"what is encrypted there is not pack {name[:16]}…", hint="nothing was kept; sync again later"
    )
