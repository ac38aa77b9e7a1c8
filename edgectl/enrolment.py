"""Become a board of a cloud, once: introduce an own key with a one-time token, and pin what to trust from then on."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgectl.home import Home
from edgectl.store import Store
from edgewire.decoding import decode, encode
from edgewire.errors import Conflict, CorruptFile, EdgeError, NotEnrolled, Revoked
from edgewire.files import exclusive, write_atomic
from edgewire.messages import BoardId, EnrolmentFile, EnrolReply, EnrolRequest, PublicKey
from edgewire.signing import SigningKey
from edgewire.tasks import TaskId
from edgewire.trust import Trust, public_text, walk

FILE_LIMIT_BYTES = 128 << 10

Introduce = Callable[[str, Path, EnrolRequest, SigningKey], EnrolReply]
"""(url, CA bundle, request, key) -> reply: how to reach the cloud, so that tests can do without a network."""


@dataclass(frozen=True)
class _Record:
    """enrolment.json. It is written last: without it the board is not enrolled, whatever else is there."""

    url: str
    board: BoardId
    tasks: tuple[TaskId, ...]
    roots: tuple[PublicKey, ...]


@dataclass(frozen=True)
class Enrolment:
    """Where this board belongs. roots: the keys pinned at enrolment; trust: the newest link of the chain from them."""

    url: str
    board: str
    tasks: tuple[TaskId, ...]
    roots: tuple[str, ...]
    trust: Trust


@dataclass(frozen=True)
class Enrolled:
    """changed: false if the board belonged there already."""

    enrolment: Enrolment
    changed: bool


def introduce_over_https(url: str, ca_bundle: Path, request: EnrolRequest, key: SigningKey) -> EnrolReply:
    """The usual way. Imported late: most commands need no network."""
    from edgectl.cloud import HttpCloud

    cloud = HttpCloud(url, ca_bundle=ca_bundle)
    try:
        return cloud.enroll(request, key)
    finally:
        cloud.close()


def enroll(
    home: Home,
    file_bytes: bytes,
    *,
    name: str,
    profile: str,
    now: float,
    force: bool = False,
    introduce: Introduce = introduce_over_https,
) -> Enrolled:
    """Enroll with what `cloud-aug boards token` wrote. Safe to repeat: a lost answer is asked for again, same key.

    Raises InvalidMessage (not such a file), Conflict (enrolled elsewhere; force replaces that), TokenRefused, Forged,
    or what HttpCloud raises. Until the cloud has answered, the enrolment that was there stays.
    """
    file = decode(EnrolmentFile, file_bytes, what="the enrolment file", limit_bytes=FILE_LIMIT_BYTES)
    home.ensure()
    with exclusive(home.lock("enroll"), doing="enrolling this board"):
        known = None if force else _known(home)
        if known is not None:
            if known.url != file.url.rstrip("/"):
                raise Conflict(f"this board is enrolled at {known.url}", hint="enroll with --force to leave it")
            return Enrolled(known, changed=False)
        key = _pending_key(home)
        request = EnrolRequest(file.token, name, profile, public_text(key.public))
        with _pending_bundle(home, file) as bundle:
            try:
                reply = introduce(file.url.rstrip("/"), bundle, request, key)
            except Revoked:
                home.pending_key.unlink()  # it stays revoked whatever the token: the next try has another
                raise
        trust = walk(file.roots, [text.encode() for text in reply.trust], now=now)
        _leave(home, file, now=now)
        _commit(home, key, reply, _Record(file.url.rstrip("/"), reply.board, reply.tasks, file.roots), trust)
        return Enrolled(load(home), changed=True)


def load(home: Home) -> Enrolment:
    """This board's enrolment, its trust chain verified again from the pinned roots (but for times: a board with a wrong
    clock must still infer). Raises NotEnrolled, CorruptFile or Forged."""
    try:
        record = decode(_Record, home.enrolment.read_bytes(), what=str(home.enrolment))
        chain = decode(tuple[str, ...], home.trust.read_bytes(), what=str(home.trust))
    except FileNotFoundError:
        raise NotEnrolled("this board is not enrolled", hint="edgectl enroll FILE") from None
    except EdgeError as error:
        raise CorruptFile(error.message, hint="enroll again with --force and a new token") from None
    trust = walk(record.roots, [text.encode() for text in chain], now=None)
    return Enrolment(record.url, record.board, record.tasks, record.roots, trust)


def update_trust(home: Home, enrolment: Enrolment, chain: Sequence[bytes], now: float) -> Enrolment:
    """Follow new links of the chain and keep them. Raises what `edgewire.trust.walk` does; then nothing changes."""
    trust = walk(enrolment.roots, chain, now=now, known=enrolment.trust)
    if trust.version == enrolment.trust.version:
        return enrolment
    stored = decode(list[str], home.trust.read_bytes(), what=str(home.trust))
    known = {text.encode() for text in stored}
    stored += [raw.decode() for raw in chain if raw not in known]
    write_atomic(home.ca_bundle, trust.ca_bundle.encode())
    write_atomic(home.trust, encode(stored), mode=0o600)  # last: killed in between, the next sync does both again
    return load(home)


def update_tasks(home: Home, enrolment: Enrolment, tasks: Sequence[TaskId]) -> Enrolment:
    """Keep which tasks the cloud grants now."""
    if tuple(tasks) == enrolment.tasks:
        return enrolment
    write_atomic(
        home.enrolment, encode(_Record(enrolment.url, enrolment.board, tuple(tasks), enrolment.roots)), mode=0o600
    )
    return load(home)


def _known(home: Home) -> Enrolment | None:
    try:
        return load(home)
    except NotEnrolled:
        return None


def _pending_key(home: Home) -> SigningKey:
    """The key to introduce, on disk before it is sent: the token works once, and a lost answer needs the same key."""
    if home.pending_key.exists():
        return SigningKey.load(home.pending_key)
    key = SigningKey.generate()
    key.save(home.pending_key)
    return key


@contextlib.contextmanager
def _pending_bundle(home: Home, file: EnrolmentFile) -> Iterator[Path]:
    bundle = home.root / "pending.pem"
    write_atomic(bundle, ("\n".join(pem.strip() for pem in file.authorities) + "\n").encode())
    try:
        yield bundle
    finally:
        bundle.unlink(missing_ok=True)


def _commit(home: Home, key: SigningKey, reply: EnrolReply, record: _Record, trust: Trust) -> None:
    """Write all parts, the record last; the pending key goes only then, so that a crash in between can be repeated."""
    write_atomic(home.trust, encode(reply.trust), mode=0o600)
    write_atomic(home.ca_bundle, trust.ca_bundle.encode())
    key.save(home.key)
    write_atomic(home.enrolment, encode(record), mode=0o600)
    home.pending_key.unlink()


def _leave(home: Home, file: EnrolmentFile, *, now: float) -> None:
    """Forget what only the former cloud could vouch for. Samples and personal models stay.

    What waits for a cloud of other roots is never sent to this one: the owner's consent was to share with the former.
    Of federated rounds nothing stays: this board will have another name.
    """
    shutil.rmtree(home.root / "rounds", ignore_errors=True)
    if home.database.exists() and _roots(home) != file.roots:
        with Store.open(home.database) as store:
            store.forget_uploads(now)
    home.enrolment.unlink(missing_ok=True)
    home.access_token.unlink(missing_ok=True)
    for name in ("manifest.json", "retrieval.json", "release-base.json", "release-policy.json", "release.etag"):
        for path in (home.root / "tasks").glob(f"*/{name}"):
            path.unlink()


def _roots(home: Home) -> tuple[str, ...] | None:
    """Who the board belongs to; None where that cannot be read."""
    try:
        return decode(_Record, home.enrolment.read_bytes(), what=str(home.enrolment)).roots
    except (OSError, EdgeError):
        return None
