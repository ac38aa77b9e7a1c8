"""The board's access token: asked for with a signed request, kept on disk until it expires, so that not every run
needs a new one."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

from edgectl import __version__
from edgewire.decoding import decode, encode, plain
from edgewire.errors import EdgeError
from edgewire.files import write_atomic
from edgewire.messages import AccessReply, AccessRequest
from edgewire.signing import SigningKey, Statement, seal
from edgewire.tasks import TaskId

REQUEST_LIFETIME_S = 120.0
_MARGIN_S = 10.0  # a token that ends while the request travels would cost a second request


@dataclass(frozen=True)
class Access:
    """A token and whose it is."""

    url: str
    board: str
    token: str
    expires_at: float
    tasks: tuple[TaskId, ...]


def request(key: SigningKey, board: str, *, now: float) -> bytes:
    """A signed request for a token. Its nonce works once: every attempt needs a new one."""
    body = plain(AccessRequest(board, secrets.token_hex(16), __version__))
    return seal(key, Statement("access", "", 0, 0, now, now + REQUEST_LIFETIME_S, body))


def from_reply(reply: AccessReply, *, url: str, board: str) -> Access:
    return Access(url, board, reply.token, reply.expires_at, reply.tasks)


def load(path: Path | None, *, url: str, board: str, now: float) -> Access | None:
    """The token of the last run, if it is valid, this board's, and readable; None otherwise: a new one is cheap."""
    if path is None:
        return None
    try:
        access = decode(Access, path.read_bytes(), what="access token")
    except (OSError, EdgeError):
        return None
    fits = (access.url, access.board) == (url, board) and access.expires_at - _MARGIN_S > now
    return access if fits else None


def save(path: Path | None, access: Access) -> None:
    if path is not None:
        write_atomic(path, encode(access), mode=0o600)


def forget(path: Path | None) -> None:
    if path is not None:
        path.unlink(missing_ok=True)
