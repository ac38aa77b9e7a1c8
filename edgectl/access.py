"""The board's access token: asked for with a signed request, kept on disk until it expires, so that not every run
needs a new one."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgectl import __version__
from edgewire.decoding import decode, encode, plain
from edgewire.errors import EdgeError
from edgewire.files import write_atomic
from edgewire.messages import AccessReply, AccessRequest, tasks_digest
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


class Tokens:
    """The access token that a connection works with. path: kept there between runs; ask: for a new one."""

    def __init__(self, path: Path | None, *, url: str, board: str, ask: Callable[[], AccessReply]) -> None:
        self._path, self._url, self._board, self._ask = path, url, board, ask
        self._access: Access | None = None
        self._told = ""

    def current(self, now: float) -> Access:
        """A token that is valid, a new one if need be. Raises what asking for one does."""
        if self._access is None or self._access.expires_at < now:
            self._access = load(self._path, url=self._url, board=self._board, now=now)
        if self._access is None:
            reply = self._ask()
            self._access = Access(self._url, self._board, reply.token, reply.expires_at, reply.tasks)
            if self._path is not None:
                write_atomic(self._path, encode(self._access), mode=0o600)
        return self._access

    def tasks(self, now: float) -> tuple[TaskId, ...]:
        """What the board is granted: asked anew where the cloud said that it is something else than the token names, or
        where that is nothing."""
        known = self.current(now).tasks
        if not known or self._told not in ("", tasks_digest(known)):
            self.drop()
            self._told = ""
        return self.current(now).tasks

    def hear(self, told: str | None) -> None:
        """What an answer said of the board's tasks, if it did: see TASKS_HEADER."""
        self._told = told or self._told

    def drop(self) -> None:
        """The cloud does not take it any more, or it names too little."""
        self._access = None
        if self._path is not None:
            self._path.unlink(missing_ok=True)


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
