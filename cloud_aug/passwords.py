"""Passwords are stored as scrypt hashes, with what the hash was made with beside it, so that the cost can rise later.

The cost is what OWASP names as least (2^14, 8, 5: 16 MiB and a quarter of a second); few are computed at once and few
wait for that, so that a flood of logins takes neither the memory nor the threads that boards need.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import threading
import unicodedata

from edgewire.errors import RetryLater, UsageError

MIN_LENGTH, MAX_LENGTH = 12, 1024
AT_ONCE, WAITING = 2, 6  # whoever waits holds a thread that boards need, too
RETRY_S = 2.0
COST = (14, 8, 5)  # log2 of N, r, p
_SALT_BYTES, _HASH_BYTES = 16, 32
_MEMORY_LIMIT_BYTES = 64 << 20

_places, _queue = threading.BoundedSemaphore(AT_ONCE), threading.BoundedSemaphore(AT_ONCE + WAITING)


def check(password: str, *, name: str) -> None:
    """Raises UsageError for a password that is no protection."""
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        raise UsageError(
            f"a password has {MIN_LENGTH} to {MAX_LENGTH} characters, this one {len(password)}",
            hint="a few words with spaces between them are easy to keep in mind",
        )
    if name.casefold() in password.casefold() and len(password) < len(name) + MIN_LENGTH:
        raise UsageError("the password is little more than the name", hint="take another one")
    if len(set(password)) < 5:
        raise UsageError("the password repeats a few characters", hint="take another one")


def hashed(password: str) -> str:
    """What is stored: scheme, log2 of N, r, p, salt, hash."""
    salt = secrets.token_bytes(_SALT_BYTES)
    log2_n, r, p = COST
    made = _scrypt(password, salt, log2_n=log2_n, r=r, p=p)
    return "$".join(("scrypt", str(log2_n), str(r), str(p), _text(salt), _text(made)))


def matches(password: str, stored: str | None) -> bool:
    """Whether it is the password that was stored. None: nobody's; it takes as long, and is never right.

    Raises RetryLater while too many others are computed.
    """
    _, log2_n, r, p, salt, kept = (stored or _NOBODYS).split("$")
    made = _scrypt(password, base64.b64decode(salt), log2_n=int(log2_n), r=int(r), p=int(p))
    return hmac.compare_digest(made, base64.b64decode(kept)) and stored is not None


def _scrypt(password: str, salt: bytes, *, log2_n: int, r: int, p: int) -> bytes:
    # the same letters may be typed as different code points
    raw = unicodedata.normalize("NFC", password[:MAX_LENGTH]).encode("utf-8", "surrogatepass")
    if not _queue.acquire(blocking=False):
        raise RetryLater("too many are logging in at once", hint="try again shortly", retry_after_s=RETRY_S)
    try:
        with _places:
            memory = _MEMORY_LIMIT_BYTES
            return hashlib.scrypt(raw, salt=salt, n=1 << log2_n, r=r, p=p, maxmem=memory, dklen=_HASH_BYTES)
    finally:
        _queue.release()


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


_NOBODYS = "$".join(("scrypt", *map(str, COST), _text(bytes(_SALT_BYTES)), _text(bytes(_HASH_BYTES))))
