"""Who may ask. Secrets are random, live briefly, and are stored only as hashes; a signed request works once.

A hash without salt is enough here: each secret has 192 random bits or more, so there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from cloud_aug import audit, db, writes
from cloud_aug.cloud import Cloud
from edgewire.decoding import convert
from edgewire.errors import Expired, NotGranted, Replayed, Revoked, TokenRefused, Unauthorized
from edgewire.messages import AccessReply, AccessRequest
from edgewire.signing import CLOCK_TOLERANCE_S, Statement, open_sealed, unverified
from edgewire.trust import keyring

ACCESS_LIFETIME_S = 600.0
REQUEST_LIFETIME_S = 300.0
ADMIN_PREFIX = "admin_"
METRICS_PREFIX = "metrics_"  # may read /metrics, nothing else


@dataclass(frozen=True)
class Caller:
    """A board that showed a valid access token. granted: all that it is granted; tasks: of these, what the token
    names."""

    board: str
    tasks: frozenset[str]
    granted: frozenset[str]

    def require(self, task: str) -> None:
        """Raises NotGranted, also for a task that does not exist: who may not use it need not know."""
        if task not in self.tasks:
            raise NotGranted(f"this board is not granted task '{task}'", hint="ask the administrator for a grant")


def hashed(secret: str) -> str:
    """What is stored of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def make_enrolment_token(cloud: Cloud, tasks: Sequence[str], *, now: float, valid_for_s: float) -> str:
    """A secret that enrols one board for these tasks."""
    secret = secrets.token_urlsafe(24)
    row = {"hash": hashed(secret), "tasks": " ".join(tasks), "created_at": now, "expires_at": now + valid_for_s}
    with cloud.database.writing() as connection:
        connection.execute(db.enrolment_tokens.insert().values(row))
        audit.note(connection, at=now, actor=audit.SHELL, action="make-token", subject=" ".join(tasks))
    return secret


def spend_enrolment_token(connection: sa.Connection, secret: str, board: str, *, now: float) -> list[str]:
    """The tasks that a token gives to this board, which uses it now. The same board may show it again (its answer was
    lost), and is given nothing more: what was recalled since stays recalled.

    Raises TokenRefused if it is unknown, expired, or was used by another board.
    """
    column = db.enrolment_tokens.c
    row = connection.execute(sa.select(db.enrolment_tokens).where(column.hash == hashed(secret))).one_or_none()
    if row is None or not hmac.compare_digest(row.hash, hashed(secret)):
        raise TokenRefused("the enrolment token is not known here", hint="ask for a new one ('cloud-aug boards token')")
    if row.used_by == board:
        return []
    if row.used_by is not None:
        raise TokenRefused("the enrolment token was used already", hint="ask for a new one ('cloud-aug boards token')")
    if row.expires_at < now:
        raise TokenRefused("the enrolment token has expired", hint="ask for a new one ('cloud-aug boards token')")
    free = db.enrolment_tokens.update().where(column.hash == row.hash, column.used_by.is_(None))
    if connection.execute(free.values(used_by=board, used_at=now)).rowcount != 1:
        raise TokenRefused("the enrolment token was used already")
    return str(row.tasks).split()


def open_request(raw: bytes, public_key: str, *, type: str, task: str = "", now: float) -> Statement:
    """Verify a request that a board signed. Raises Forged, Expired or WrongClock."""
    statement = open_sealed(raw, keyring([public_key]), type=type, task=task, now=now)
    if statement.expires_at - statement.issued_at > REQUEST_LIFETIME_S:
        raise Expired(f"a signed request may live {REQUEST_LIFETIME_S:.0f} s at most")
    return statement


def give_access(cloud: Cloud, raw: bytes, *, now: float) -> AccessReply:
    """A token of minutes for a board that signs for it.

    Raises Unauthorized (unknown board), Forged, Expired, WrongClock, Revoked, or Replayed if the nonce was used.
    """
    request = convert(AccessRequest, unverified(raw).body, what="access request")
    with cloud.database.writing(request.board) as connection:
        board = connection.execute(sa.select(db.boards).where(db.boards.c.id == request.board)).one_or_none()
        if board is None:
            raise Unauthorized("this board is not known here", hint="enroll it first")
        statement = open_request(raw, board.public_key, type="access", now=now)
        if board.revoked_at is not None:
            raise Revoked("this board was revoked", hint="ask the administrator")
        _use_nonce(connection, request, statement.expires_at, now=now)
        seen = {"last_seen_at": now, "edgectl": request.edgectl or board.edgectl}
        connection.execute(db.boards.update().where(db.boards.c.id == board.id).values(seen))
        return _issue(connection, board.id, now=now)


def _use_nonce(connection: sa.Connection, request: AccessRequest, expires_at: float, *, now: float) -> None:
    mine, column = db.nonces.delete().where(db.nonces.c.board == request.board), db.nonces.c
    connection.execute(mine.where(column.expires_at < now - CLOCK_TOLERANCE_S))
    row = {"board": request.board, "nonce": request.nonce, "expires_at": expires_at}
    if writes.insert_new(connection, db.nonces, [row]) != 1:
        raise Replayed("this request was sent before", hint="sign a new one")


def _issue(connection: sa.Connection, board: str, *, now: float) -> AccessReply:
    column = db.access_tokens.c  # its own only: who writes beside this one has rows of its own
    connection.execute(db.access_tokens.delete().where(column.board == board, column.expires_at < now))
    tasks = sorted(granted(connection, board))
    secret, expires_at = secrets.token_urlsafe(32), now + ACCESS_LIFETIME_S
    row = {"hash": hashed(secret), "board": board, "tasks": " ".join(tasks), "expires_at": expires_at}
    connection.execute(db.access_tokens.insert().values(row))
    return AccessReply(secret, expires_at, tuple(tasks))


def granted(connection: sa.Connection, board: str) -> set[str]:
    """The tasks a board may use now."""
    return set(connection.execute(sa.select(db.grants.c.task).where(db.grants.c.board == board)).scalars())


def caller(cloud: Cloud, secret: str, *, now: float) -> Caller:
    """Who holds this access token. Raises Unauthorized or Revoked; a revocation counts from the next request on."""
    tokens = db.access_tokens
    query = (
        sa.select(tokens, db.boards.c.revoked_at).join_from(tokens, db.boards).where(tokens.c.hash == hashed(secret))
    )
    with cloud.database.reading() as connection:
        row = connection.execute(query).one_or_none()
        if row is None or not hmac.compare_digest(row.hash, hashed(secret)) or row.expires_at < now:
            raise Unauthorized("the access token is unknown or has expired", hint="ask for a new one at /v1/access")
        if row.revoked_at is not None:
            raise Revoked("this board was revoked", hint="ask the administrator")
        held = frozenset(granted(connection, row.board))
        return Caller(row.board, held & frozenset(row.tasks.split()), held)


def make_administrator(cloud: Cloud, name: str, *, metrics_only: bool = False, now: float, valid_for_s: float) -> str:
    """A credential for administration over HTTP, or for reading the metrics, shown once."""
    secret = (METRICS_PREFIX if metrics_only else ADMIN_PREFIX) + secrets.token_urlsafe(32)
    row = {"hash": hashed(secret), "name": name, "created_at": now, "expires_at": now + valid_for_s}
    with cloud.database.writing() as connection:
        connection.execute(db.administrators.insert().values(row))
        action = "make-watcher" if metrics_only else "make-administrator"
        audit.note(connection, at=now, actor=audit.SHELL, action=action, subject=name)
    return secret


@dataclass(frozen=True)
class Credential:
    """One that works; times: seconds since 1970. What it opens only its secret tells."""

    name: str
    created_at: float
    expires_at: float


def credentials(cloud: Cloud, *, now: float) -> list[Credential]:
    """Every credential that works, by name."""
    column = db.administrators.c
    query = sa.select(column.name, column.created_at, column.expires_at).where(column.expires_at >= now)
    with cloud.database.reading() as connection:
        return [Credential(*row) for row in connection.execute(query.order_by(column.name, column.created_at))]


def end_credentials(cloud: Cloud, name: str, *, actor: str = audit.SHELL, now: float) -> int:
    """Let no credential of that name open anything from the next request on; returns how many did. Their rows stay, so
    that no restore brings them back."""
    column = db.administrators.c
    mine = db.administrators.update().where(column.name == name, column.expires_at >= now)
    with cloud.database.writing() as connection:
        ended = connection.execute(mine.values(expires_at=now - 1)).rowcount
        if ended:
            audit.note(connection, at=now, actor=actor, action="end-credentials", subject=name, credentials=ended)
    return ended


def administrator(cloud: Cloud, secret: str, *, now: float) -> str:
    """The name behind an administrator's credential. Raises Unauthorized."""
    name = _named(cloud, secret, now=now) if secret.startswith(ADMIN_PREFIX) else None
    if name is None:
        raise Unauthorized("this needs an administrator's credential", hint="make one with 'cloud-aug admin token'")
    return name


def watcher(cloud: Cloud, secret: str, *, now: float) -> str:
    """The name behind a credential that may read the metrics. Raises Unauthorized."""
    name = _named(cloud, secret, now=now)
    if name is None:
        hint = "make one with 'cloud-aug admin token --metrics'"
        raise Unauthorized("this needs a credential for the metrics", hint=hint)
    return name


def _named(cloud: Cloud, secret: str, *, now: float) -> str | None:
    query = sa.select(db.administrators).where(db.administrators.c.hash == hashed(secret))
    with cloud.database.reading() as connection:
        row = connection.execute(query).one_or_none()
    known = row is not None and hmac.compare_digest(row.hash, hashed(secret)) and row.expires_at >= now
    return str(row.name) if row is not None and known else None
