"""The service's keys: where each one is, and the chain of root-signed statements that tells boards which to believe.

In `keys/` (the server needs them): the signing key, the TLS key with its certificate, the secret behind pseudonyms.
In the offline folder (only rotation needs them): the root key and the CA key. The newest trust statement is the single
truth about which of them are current: the first of each list is used, the others are still believed.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import sqlalchemy as sa

from cloud_aug import certificates, db
from cloud_aug.database import Database
from edgewire.decoding import convert
from edgewire.errors import CorruptFile, NotFound, NotReady
from edgewire.files import write_atomic
from edgewire.signing import SigningKey, key_id, unb64, unverified
from edgewire.trust import Trust, public_text, seal_trust

SECRET_BYTES = 32


@dataclass(frozen=True)
class KeyFolders:
    """server: what the running service reads; offline: what only rotation reads."""

    server: Path
    offline: Path

    def make(self) -> None:
        """Create both, readable by their owner only."""
        for folder in (self.server, self.offline):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def tls(self) -> Path:
        """One PEM file: private key, certificate, and the cross certificate while there is one."""
        return self.server / "tls.pem"

    @property
    def cross(self) -> Path:
        """The current CA certified by the one before it."""
        return self.server / "cross.pem"

    @property
    def pseudonyms(self) -> Path:
        """The secret from which contributors' pseudonyms are derived."""
        return self.server / "pseudonyms.key"

    def signing(self, key: str) -> Path:
        """The file of a signing key, by key id."""
        return self.server / f"signing-{key}.pem"

    def root(self, key: str) -> Path:
        """The file of a root key, by key id."""
        return self.offline / f"root-{key}.pem"

    def authority(self, fingerprint: str) -> Path:
        """The file of a CA's private key, by the fingerprint of its certificate."""
        return self.offline / f"ca-{fingerprint}.pem"


def create(folders: KeyFolders, database: Database, *, hosts: Sequence[str], now: float) -> bool:
    """Make every key and the first trust statement, unless there is one; returns whether anything was made."""
    if chain(database):
        return False
    folders.make()
    root, signing = new_root(folders), new_signing(folders)
    authority = new_authority(folders, now=now)
    write_atomic(folders.pseudonyms, os.urandom(SECRET_BYTES), mode=0o600)
    issue_server_certificate(folders, authority, hosts, now=now)
    first = Trust(1, (public_text(root.public),), (public_text(signing.public),), (authority,))
    with database.writing() as connection:
        append(connection, root, first, now=now)
    return True


def new_root(folders: KeyFolders) -> SigningKey:
    """A new root key, in the offline folder."""
    key = SigningKey.generate()
    key.save(folders.root(key.id))
    return key


def new_signing(folders: KeyFolders) -> SigningKey:
    """A new signing key, in the server's folder."""
    key = SigningKey.generate()
    key.save(folders.signing(key.id))
    return key


def new_authority(folders: KeyFolders, *, now: float) -> str:
    """A new CA: its key in the offline folder, its certificate (PEM) returned."""
    key = certificates.new_key()
    # each CA has a name of its own: a verifier finds an issuer by its name first
    pem = certificates.new_authority(key, name=f"cloud-aug CA {secrets.token_hex(4)}", now=now)
    write_atomic(folders.authority(certificates.fingerprint(pem)), certificates.key_pem(key), mode=0o600)
    return pem


def authority_key(folders: KeyFolders, pem: str) -> certificates.PrivateKey:
    """The private key of a CA. Raises NotFound if the offline folder is not there."""
    path = folders.authority(certificates.fingerprint(pem))
    return certificates.read_key(_read_offline(path), name=str(path))


def issue_server_certificate(folders: KeyFolders, authority: str, hosts: Sequence[str], *, now: float) -> None:
    """A new TLS key with a certificate, as one file, so that a crash never leaves half a pair."""
    key = certificates.new_key()
    certificate = certificates.server_certificate(key, hosts, authority, authority_key(folders, authority), now=now)
    parts = [certificates.key_pem(key).decode(), certificate]
    if folders.cross.is_file():
        parts.append(folders.cross.read_text("ascii"))
    write_atomic(folders.tls, "".join(parts).encode(), mode=0o600)


def server_certificate_pem(folders: KeyFolders) -> str:
    """The certificate the server shows, without its key."""
    text = folders.tls.read_text("ascii")
    return text[text.index("-----BEGIN CERTIFICATE-----") :]


def current_root(folders: KeyFolders, trust: Trust) -> SigningKey:
    """The private root key. Raises NotFound if the offline folder is not there."""
    path = folders.root(key_id(unb64(trust.roots[0])))
    _read_offline(path)
    return SigningKey.load(path)


def current_signing(folders: KeyFolders, trust: Trust) -> SigningKey:
    """The key the server signs with. Raises NotReady, in words that a board may hear: no path."""
    path = folders.signing(key_id(unb64(trust.signing[0])))
    try:
        return SigningKey.load(path)
    except (OSError, CorruptFile):
        hint = f"restore {path.parent.name}/{path.name} from a backup"
        raise NotReady("the signing key cannot be read", hint=hint, retry_after_s=60) from None


def pseudonym_secret(folders: KeyFolders) -> bytes:
    """The secret behind pseudonyms. Raises NotReady."""
    try:
        return folders.pseudonyms.read_bytes()
    except OSError:
        hint = f"restore {folders.server.name}/{folders.pseudonyms.name} from a backup"
        raise NotReady("the secret behind pseudonyms cannot be read", hint=hint, retry_after_s=60) from None


def chain(database: Database, *, after: int = 0) -> list[bytes]:
    """The trust statements of a version above `after`, oldest first."""
    query = sa.select(db.trust_statements.c.envelope).where(db.trust_statements.c.version > after)
    with database.reading() as connection:
        return [bytes(row.envelope) for row in connection.execute(query.order_by(db.trust_statements.c.version))]


def newest(connection: sa.Connection) -> Trust:
    """What boards that are up to date believe. Raises NotFound before `init`."""
    column = db.trust_statements.c
    query = sa.select(column.envelope).order_by(column.version.desc()).limit(1)
    envelope = connection.execute(query).scalar()
    if envelope is None:
        raise NotFound("this cloud has no keys", hint="run 'cloud-aug init'")
    return read_body(bytes(envelope))


def read_body(envelope: bytes) -> Trust:
    """A trust statement from our own database; boards verify it, we wrote it."""
    return convert(Trust, unverified(envelope).body, what="trust")


def append(connection: sa.Connection, root: SigningKey, trust: Trust, *, now: float) -> None:
    """Add a statement to the chain, signed by a root key that the statement before it lists."""
    row = {"version": trust.version, "envelope": seal_trust(root, trust, now=now)}
    connection.execute(db.trust_statements.insert().values(row))


def following(trust: Trust, **changes: tuple[str, ...]) -> Trust:
    """The next statement: the same but for the changes."""
    return replace(trust, version=trust.version + 1, **changes)


def _read_offline(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFound(
            f"{path} is not there",
            hint="plug in the medium with the offline keys, or name its folder with --offline",
        ) from None
