"""Which keys and certificate authorities a board believes, as a chain of root-signed statements.

Version n+1 is signed by a root key that version n lists (the scheme of The Update Framework, section 5.3: a board that
was away walks the chain from what it has). So every key can be rotated: the server's signing key, the CA, the root
itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from edgewire.decoding import convert, plain
from edgewire.errors import Forged, Outdated
from edgewire.messages import PublicKey
from edgewire.signing import SigningKey, Statement, b64, envelope_key_id, key_id, open_sealed, seal, unb64, unverified

TRUST_LIFETIME_S = 10 * 365 * 86400.0


@dataclass(frozen=True)
class Trust:
    """roots: keys that may sign the next version; signing: keys the server signs with; authorities: CA certificates."""

    version: int
    roots: Annotated[tuple[PublicKey, ...], Meta(min_length=1, max_length=8)]
    signing: Annotated[tuple[PublicKey, ...], Meta(min_length=1, max_length=8)]
    authorities: Annotated[tuple[Annotated[str, Meta(max_length=8192)], ...], Meta(min_length=1, max_length=8)]

    @property
    def signing_keys(self) -> dict[str, bytes]:
        """key id -> public key of what the server signs with."""
        return keyring(self.signing)

    @property
    def ca_bundle(self) -> str:
        """The authorities as one PEM text."""
        return "\n".join(pem.strip() for pem in self.authorities) + "\n"


def public_text(public: bytes) -> str:
    """A public key as it is written in JSON."""
    return b64(public)


def keyring(texts: Sequence[str]) -> dict[str, bytes]:
    """key id -> public key for a list of written public keys."""
    keys = [unb64(text) for text in texts]
    return {key_id(public): public for public in keys}


def seal_trust(root: SigningKey, trust: Trust, *, now: float) -> bytes:
    """Sign a trust statement with a root key."""
    return seal(root, Statement("trust", "", 0, trust.version, now, now + TRUST_LIFETIME_S, plain(trust)))


def walk(
    pinned_roots: Sequence[str], chain: Sequence[bytes], *, now: float | None, known: Trust | None = None
) -> Trust:
    """Follow a chain of trust statements to its newest.

    pinned_roots: the keys that may sign the first statement when nothing is known yet; known: what a board has.
    now: as for `open_sealed` (None: a chain read back from one's own disk).
    Statements up to `known.version` are passed over, and for a newcomer those before the first that a pinned root
    signed (it may have been given the root of a later rotation). Raises Forged, Expired, WrongClock, or Outdated if a
    version is missing.
    """
    current = known
    for raw in chain:
        roots = keyring(current.roots if current else pinned_roots)
        if current is None and envelope_key_id(raw) not in roots:
            continue
        if current is not None and unverified(raw).version <= current.version:
            continue  # unread: a root that is no longer believed may have signed it
        statement = open_sealed(raw, roots, type="trust", now=now)
        if current is not None and statement.version != current.version + 1:
            raise Outdated(f"trust version {current.version + 1} is missing from the chain")
        current = convert(Trust, statement.body, what="trust")
        if current.version != statement.version:
            raise Forged("a trust statement contradicts its own version")
    if current is None:
        raise Forged("the server sent no trust statement that a pinned root key signed")
    return current
