"""Packs as they are stored: encrypted, so that a bucket, a cache or a backup of blobs holds nothing to read.

A pack is known by the digest of its samples' bytes and stored under that of its ciphertext. Its key follows (HKDF) from
a secret of the task and the pack's digest: the same pack is the same ciphertext in every build, until the secret is
replaced. Keys are given to boards that are granted the task, pack by pack, and for none that was withdrawn.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import UNSET

from cloud_aug import audit, db, publications, writes
from cloud_aug.blobs import BlobStore
from cloud_aug.cloud import Cloud
from cloud_aug.publications import Publication
from edgewire.encryption import KEY_BYTES, decrypt, encrypt
from edgewire.errors import CorruptFile, DigestMismatch, NotFound
from edgewire.files import digest
from edgewire.messages import PackRef
from edgewire.signing import b64

_PURPOSE = b"edge pack key/1\0"
_WITH_SECRETS = sa.select(db.packs, db.pack_secrets.c.secret).join_from(db.packs, db.pack_secrets)


@dataclass(frozen=True)
class Secret:
    """What the keys of a task's packs follow from. generation: counts replacements, from 1."""

    task: str
    generation: int
    value: bytes

    def __repr__(self) -> str:
        return f"Secret({self.task!r}, generation={self.generation})"  # its value belongs in no log

    def key(self, pack: str) -> bytes:
        """The key of the pack with that digest, 32 bytes."""
        made = HKDF(SHA256(), length=KEY_BYTES, salt=None, info=_PURPOSE + bytes.fromhex(pack))
        return bytes(made.derive(self.value))


def secret(cloud: Cloud, task: str, *, now: float) -> Secret:
    """The newest secret of a task, made where there is none yet."""
    with cloud.database.writing() as connection:
        return _newest(connection, task) or _make(connection, task, 1, now=now)


def of_generation(cloud: Cloud, task: str, generation: int) -> Secret:
    """The secret that a build which is under way began with. Raises NotFound."""
    column = db.pack_secrets.c
    query = sa.select(db.pack_secrets).where(column.task == task, column.generation == generation)
    with cloud.database.reading() as connection:
        row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"task '{task}' has no secret {generation}", hint="build the index again")
    return _secret(row)


def replace_secret(cloud: Cloud, task: str, *, now: float) -> Secret:
    """A new secret, which the next index build encrypts every pack with; what is published stays readable until it is
    collected."""
    with cloud.database.writing() as connection:
        before = _newest(connection, task)
        made = _make(connection, task, before.generation + 1 if before else 1, now=now)
        audit.note(connection, at=now, actor=audit.SHELL, action="rotate", subject=f"packs of {task}")
    return made


def store(blobs: BlobStore, secret: Secret, data: bytes) -> tuple[str, str]:
    """Store a pack encrypted; returns its digest and that of its ciphertext. Raises OSError (full disk)."""
    name = digest(data)
    return name, blobs.put(encrypt(data, secret.key(name))).digest


def opened(blobs: BlobStore, secret: Secret, name: str, ciphertext: str) -> bytes:
    """The bytes of a stored pack's samples. Raises NotFound or CorruptFile."""
    try:
        return decrypt(blobs.read(ciphertext), secret.key(name), name=name)
    except DigestMismatch:
        raise CorruptFile(f"pack {name[:12]}… does not open", hint="build the index again") from None


def read(cloud: Cloud, task: str, ref: PackRef) -> bytes:
    """The same for a published pack, with the secret of then; also for one that is not encrypted."""
    if ref.ciphertext is UNSET:
        return cloud.blobs.read(ref.digest)
    mine = sa.and_(db.packs.c.task == task, db.packs.c.ciphertext == ref.ciphertext)
    with cloud.database.reading() as connection:
        row = connection.execute(_WITH_SECRETS.where(mine)).one_or_none()
    if row is None:
        hint = f"run 'cloud-aug index build --task {task}'"
        raise NotFound(f"the secret of pack {ref.digest[:12]}… is not there", hint=hint)
    return opened(cloud.blobs, _secret(row), row.digest, row.ciphertext)


def for_older_boards(cloud: Cloud, blob: str, tasks: set[str]) -> bytes | None:
    """The bytes of a pack that is asked for by the digest of its samples, as boards do that know of no encryption; None
    for a blob that is stored as it is."""
    mine = sa.and_(db.packs.c.digest == blob, db.packs.c.task.in_(tasks))
    query = _WITH_SECRETS.where(mine).order_by(db.packs.c.generation.desc()).limit(1)
    with cloud.database.reading() as connection:
        row = connection.execute(query).one_or_none()
    return None if row is None else opened(cloud.blobs, _secret(row), row.digest, row.ciphertext)


def keys(cloud: Cloud, task: str, names: Sequence[str], *, now: float) -> tuple[str | None, ...]:
    """The key of each encrypted pack (base64), in that order; None for one that is not of this task, or whose samples
    somebody withdrew or has not consented to any longer."""
    with cloud.database.reading() as connection:
        mine = sa.and_(db.packs.c.task == task, db.packs.c.ciphertext.in_(names))
        rows = connection.execute(_WITH_SECRETS.where(mine)).all()
        ended = publications.ended(connection, [row.digest for row in rows], now=now)
    given = {row.ciphertext: b64(_secret(row).key(row.digest)) for row in rows if row.digest not in ended}
    return tuple(given.get(name) for name in names)


def record(connection: sa.Connection, secret: Secret, ciphertexts: Mapping[str, str]) -> None:
    """Note which blob holds which pack; from the commit on boards may ask for the keys."""
    shared = {"task": secret.task, "generation": secret.generation}
    rows = [{**shared, "ciphertext": blob, "digest": pack} for pack, blob in ciphertexts.items()]
    writes.insert_new(connection, db.packs, rows)


def stored(connection: sa.Connection, task: str, names: Sequence[str]) -> list[str]:
    """The blobs that hold these packs, encrypted or not."""
    column = db.packs.c
    query = sa.select(column.ciphertext).where(column.task == task)
    found = (connection.execute(query.where(column.digest.in_(some))).scalars() for some in writes.at_once(names))
    return [*names, *itertools.chain.from_iterable(found)]


def encrypted(connection: sa.Connection) -> set[str]:
    """Every pack that is stored encrypted, by the digest of its samples' bytes."""
    return set(connection.execute(sa.select(db.packs.c.digest).distinct()).scalars())


def encrypt_older(cloud: Cloud, current: Publication, secret: Secret) -> int:
    """Leave no pack of an older release's publications as it was stored then; returns how many that were. Boards in the
    middle of a sync go on getting them by their old name."""
    older = publications.older(cloud, current)
    plain = {ref.digest for publication in older for ref in publication.packs if ref.ciphertext is UNSET}
    if not older or all(ref.ciphertext is not UNSET for ref in older[-1].packs):
        return 0  # done by the build before; what a kill left is collected
    done = [name for name in sorted(plain) if _encrypt(cloud, secret, name)]
    for name in done:
        cloud.blobs.remove(name)
    return len(done)


def _encrypt(cloud: Cloud, secret: Secret, name: str) -> bool:
    """Store a pack again, encrypted. False: it is not there any more."""
    try:
        _, ciphertext = store(cloud.blobs, secret, cloud.blobs.read(name))
    except NotFound:
        return False
    with cloud.database.writing() as connection:
        record(connection, secret, {name: ciphertext})
    return True


def forget(connection: sa.Connection, blobs: set[str]) -> int:
    """Forget packs that are not among the stored blobs any more, and replaced secrets that open none; returns how many
    secrets."""
    column, secrets = db.packs.c, db.pack_secrets
    for name in set(connection.execute(sa.select(column.ciphertext)).scalars()) - blobs:
        connection.execute(db.packs.delete().where(column.ciphertext == name))
    newer = secrets.alias()
    replaced = sa.exists().where(newer.c.task == secrets.c.task, newer.c.generation > secrets.c.generation)
    used = sa.exists().where(column.task == secrets.c.task, column.generation == secrets.c.generation)
    return connection.execute(secrets.delete().where(replaced, ~used)).rowcount


def _secret(row: sa.Row[Any]) -> Secret:
    return Secret(row.task, row.generation, bytes(row.secret))


def _newest(connection: sa.Connection, task: str) -> Secret | None:
    column = db.pack_secrets.c
    query = sa.select(db.pack_secrets).where(column.task == task).order_by(column.generation.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return None if row is None else Secret(row.task, row.generation, bytes(row.secret))


def _make(connection: sa.Connection, task: str, generation: int, *, now: float) -> Secret:
    made = Secret(task, generation, os.urandom(KEY_BYTES))
    row = {"task": task, "generation": generation, "secret": made.value, "made_at": now}
    connection.execute(db.pack_secrets.insert().values(row))
    return made
