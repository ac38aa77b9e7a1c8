"""Being logged in to the console: a random secret in a cookie, of which only the hash is stored.

Every login makes a new one and ends the one that came along, so that a planted cookie never becomes a session. It ends
when it is not used for a while, when it is old, with the account, and with a new password.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
from dataclasses import dataclass

import sqlalchemy as sa

from cloud_aug import accounts, audit, db, guesses, passwords
from cloud_aug.accounts import Role
from cloud_aug.addresses import network
from cloud_aug.cloud import Cloud
from edgewire.errors import NotFound, Unauthorized

NOTED_EVERY_S = 60.0  # that a session is used is written down no more often


@dataclass(frozen=True)
class Session:
    """Somebody who is logged in. form_token: what a form of this session must bring; no other site can know it."""

    account: str
    role: Role
    form_token: str

    @property
    def actor(self) -> str:
        """As the audit log names who did something."""
        return f"console:{self.account}"


def log_in(cloud: Cloud, name: str, password: str, *, address: str, shown: str, now: float) -> str:
    """The secret of a new session. shown: the one that the request brought, which ends.

    Raises Unauthorized, the same for a wrong name and a wrong password, or RateLimited.
    """
    guesses.spend(cloud, name, address, now=now)
    with cloud.database.reading() as connection:
        try:
            stored = str(accounts.get(connection, name).password)
        except NotFound:
            stored = None
    if not passwords.matches(password, stored):
        _note_refusal(cloud, name, address, known=stored is not None, now=now)
        raise Unauthorized("the name or the password is wrong")
    return _open(cloud, name, str(stored), address=address, shown=shown, now=now)


def _open(cloud: Cloud, name: str, stored: str, *, address: str, shown: str, now: float) -> str:
    secret, column = secrets.token_urlsafe(32), db.sessions.c
    with cloud.database.writing() as connection:
        if accounts.get(connection, name).password != stored:  # changed while this one was checked
            raise Unauthorized("the name or the password is wrong")
        guesses.forget(connection, name, address)
        old = sa.or_(accounts.has_ended(now), column.hash == _hash(shown))
        connection.execute(db.sessions.delete().where(old))
        row = {"hash": _hash(secret), "account": name, "created_at": now, "seen_at": now}
        connection.execute(db.sessions.insert().values(row))
        connection.execute(db.accounts.update().where(db.accounts.c.name == name).values(logged_in_at=now))
        where = network(address)
        audit.note(connection, at=now, actor=f"console:{name}", action="log-in", subject=name, address=where)
    return secret


def find(cloud: Cloud, secret: str, *, now: float, used: bool) -> Session | None:
    """Whose session this is, if it has not ended. used: whether a person did something, which keeps it alive."""
    column = db.sessions.c
    query = sa.select(db.sessions, db.accounts.c.role, db.accounts.c.removed_at).join_from(db.sessions, db.accounts)
    with cloud.database.reading() as connection:
        mine = query.where(column.hash == _hash(secret), sa.not_(accounts.has_ended(now)))
        row = connection.execute(mine).one_or_none()
    if row is None or not hmac.compare_digest(row.hash, _hash(secret)) or row.removed_at is not None:
        return None
    if used and now > row.seen_at + NOTED_EVERY_S:
        _note_use(cloud, row.hash, now=now)
    return Session(row.account, row.role, form_token(secret))


def _note_use(cloud: Cloud, hash: str, *, now: float) -> None:
    """What cannot be written is left out: with a full disk, too, there must be a console to look at."""
    with contextlib.suppress(sa.exc.DBAPIError, sa.exc.TimeoutError), cloud.database.writing(f"session {hash}") as made:
        made.execute(db.sessions.update().where(db.sessions.c.hash == hash).values(seen_at=now))


def log_out(cloud: Cloud, secret: str, session: Session, *, now: float) -> None:
    """End a session."""
    with cloud.database.writing() as connection:
        if connection.execute(db.sessions.delete().where(db.sessions.c.hash == _hash(secret))).rowcount:
            audit.note(connection, at=now, actor=session.actor, action="log-out", subject=session.account)


def form_token(secret: str) -> str:
    """What forms carry beside the cookie: follows from it, and does not give it away."""
    return hashlib.sha256(f"form {secret}".encode()).hexdigest()


def _hash(secret: str) -> str:
    return hashlib.sha256(f"session {secret}".encode()).hexdigest()


def _note_refusal(cloud: Cloud, name: str, address: str, *, known: bool, now: float) -> None:
    """Of names that nobody has, a stranger could fill the log: their line is taken back, after as much work, so that
    the time of an answer does not tell which names there are."""
    with cloud.database.writing() as connection:
        where = network(address)
        audit.note(connection, at=now, actor="console", action="log-in-refused", subject=name, address=where)
        if not known:
            audit.take_back(connection)
