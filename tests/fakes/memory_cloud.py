"""A cloud in memory: the same promises as the real one, no socket, no disk, and faults on demand.

`MemoryServer` is the service, `MemoryCloud` what one board sees of it (`edgectl.cloud.Cloud`). Both this and the real
service pass `tests/suites/cloud_api.py`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from msgspec import UNSET

from edgectl.partial import Parts
from edgewire import tensors
from edgewire.decoding import encode, plain
from edgewire.errors import (
    Conflict,
    DigestMismatch,
    Gone,
    InvalidMessage,
    NotFound,
    NotGranted,
    NotReady,
    Offline,
    Revoked,
    TokenRefused,
    Unauthorized,
)
from edgewire.files import digest, digest_of_file, write_atomic
from edgewire.messages import (
    HAVE_CHARACTERS,
    SAMPLES_LIMIT_BYTES,
    Base,
    BlobRef,
    EnrolmentFile,
    EnrolReply,
    EnrolRequest,
    FoundMeta,
    Manifest,
    PackRef,
    Report,
    Telemetry,
    UploadReply,
    Withdrawals,
    WithdrawReply,
)
from edgewire.releases import Order, OrdersReply, Outcome
from edgewire.samples import Samples, concatenate, from_bytes, raw_digests, sample_digests, to_bytes
from edgewire.signing import SigningKey, Statement, key_id, open_sealed, seal, unb64, unverified
from edgewire.tasks import Task
from edgewire.trust import Trust, keyring, public_text, seal_trust

URL = "https://cloud.test:8443"
MANIFEST_LIFETIME_S = 30 * 86400.0
A_CERTIFICATE = "-----BEGIN CERTIFICATE-----\nnobody connects to a cloud in memory\n-----END CERTIFICATE-----"

Search = Callable[[str, str, bytes], bytes]


@dataclass
class Board:
    public_key: str
    tasks: set[str]
    revoked: bool = False


@dataclass
class MemoryServer:
    """The service. Change its fields to arrange a situation; cut_after: the next blob, or what comes along with the
    next manifest, breaks off there; keys: those of packs, by the digest of the ciphertext."""

    clock: Callable[[], float] = time.time
    signing: SigningKey = field(default_factory=SigningKey.generate)
    root: SigningKey = field(default_factory=SigningKey.generate)
    tasks: dict[str, Task] = field(default_factory=dict)
    bodies: dict[str, Manifest] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    blob_tasks: dict[str, str] = field(default_factory=dict)
    keys: dict[str, bytes] = field(default_factory=dict)
    boards: dict[str, Board] = field(default_factory=dict)
    tokens: dict[str, tuple[tuple[str, ...], str | None]] = field(default_factory=dict)
    uploads: dict[tuple[str, str], tuple[bytes, UploadReply]] = field(default_factory=dict)
    contributed: dict[str, set[str]] = field(default_factory=dict)
    withdrawn: dict[tuple[str, str], int] = field(default_factory=dict)
    withdrawals: dict[str, Withdrawals] = field(default_factory=dict)
    reports: list[Report] = field(default_factory=list)
    telemetry: list[Telemetry] = field(default_factory=list)
    chain: list[bytes] = field(default_factory=list)
    ordered: dict[tuple[str, str], tuple[bytes, ...]] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    search: Search | None = None  # the samples that a search finds
    found: dict[bytes, Samples] = field(default_factory=dict)
    asked_for: list[bytes] = field(default_factory=list)
    cut_after: int | None = None
    offline: bool = False
    _sealed: dict[str, tuple[Manifest, bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.extend_trust()

    def extend_trust(self) -> None:
        """Add a link to the chain of trust, with the keys of now."""
        signing, roots = (public_text(self.signing.public),), (public_text(self.root.public),)
        trust = Trust(len(self.chain) + 1, roots, signing, (A_CERTIFICATE,))
        self.chain.append(seal_trust(self.root, trust, now=self.clock()))

    def rotate_signing(self) -> None:
        self.signing = SigningKey.generate()
        self.extend_trust()

    def publish(
        self, task: Task, *, weights: bytes, onnx: bytes, directory: bytes, packs: Sequence[bytes] = ()
    ) -> Manifest:
        """Publish all that the manifest and the directory name; again, with another content, as the next version.
        packs: as they are fetched."""
        refs = [self.publish_blob(task.id, data) for data in (weights, onnx, directory, *packs)]
        version = self.versions[task.id] = self.versions.get(task.id, 0) + 1
        self.tasks[task.id] = task
        self.bodies[task.id] = Manifest(task, Base(version, refs[0], refs[1]), refs[2], len(self.chain))
        return self.bodies[task.id]

    def publish_blob(self, task_id: str, data: bytes) -> BlobRef:
        """Put bytes where boards of the task may fetch them."""
        name = digest(data)
        self.blobs[name], self.blob_tasks[name] = data, task_id
        return BlobRef(name, len(data))

    def sealed_manifest(self, task_id: str) -> bytes:
        """Sealed once per content and signing key, so that its etag is stable."""
        body = self.bodies.get(task_id)
        if body is None:
            raise NotReady(f"nothing is published for task '{task_id}' yet")
        listed = self.withdrawals.get(task_id, UNSET)
        body = Manifest(body.task, body.base, body.directory, len(self.chain), listed)
        known = self._sealed.get(task_id)
        if known is None or known[0] != body:
            now = self.clock()
            statement = Statement(
                "manifest", task_id, 1, self.versions[task_id], now, now + MANIFEST_LIFETIME_S, plain(body)
            )
            known = self._sealed[task_id] = (body, seal(self.signing, statement))
        return known[1]

    def enrolment_file(self, *tasks: str) -> EnrolmentFile:
        """A new token for these tasks."""
        token = secrets.token_urlsafe(24)
        self.tokens[token] = (tasks, None)
        return EnrolmentFile(URL, token, (A_CERTIFICATE,), (public_text(self.root.public),))

    def enroll(self, raw: bytes, request: EnrolRequest) -> EnrolReply:
        open_sealed(raw, keyring([request.public_key]), type="enroll", now=self.clock())
        board = f"b{key_id(unb64(request.public_key))}"
        granted, used_by = self.tokens.get(request.token, ((), "nobody"))
        if used_by not in (None, board):
            raise TokenRefused("the enrolment token is unknown or used")
        self.tokens[request.token] = (granted, board)
        known = self.boards.setdefault(board, Board(request.public_key, set()))
        if known.revoked:
            raise Revoked("this board was revoked")
        known.tasks |= set(granted)
        return EnrolReply(board, tuple(sorted(known.tasks)), tuple(raw.decode() for raw in self.chain))

    def order(self, task_id: str, order: Order, *, counter: int, epoch: int = 1, valid_s: float = 3600.0) -> None:
        """The one order that there is for a board from now on."""
        now = self.clock()
        statement = Statement("release", task_id, epoch, counter, now, now + valid_s, plain(order))
        self.ordered[order.board, task_id] = (seal(self.signing, statement),)

    def grant(self, board: str, task_id: str) -> None:
        self.boards[board].tasks.add(task_id)

    def revoke(self, board: str) -> None:
        self.boards[board].revoked = True

    def caller(self, key: SigningKey | None, board: str | None, task_id: str | None = None) -> Board:
        if self.offline:
            raise Offline("the cloud does not answer")
        known = self.boards.get(board or "")
        if known is None or key is None or public_text(key.public) != known.public_key:
            raise Unauthorized("this board is not known here")
        if known.revoked:
            raise Revoked("this board was revoked")
        if task_id is not None and task_id not in known.tasks:
            raise NotGranted(f"this board is not granted task '{task_id}'")
        return known


class MemoryCloud:
    """What one board sees."""

    def __init__(self, server: MemoryServer, *, key: SigningKey | None = None, board: str | None = None) -> None:
        self.server = server
        self.bytes_up = self.bytes_down = 0
        self.asked_keys: list[tuple[str, ...]] = []
        self._key, self._board = key, board

    def enroll(self, request: EnrolRequest, key: SigningKey) -> EnrolReply:
        now = self.server.clock()
        return self.server.enroll(seal(key, Statement("enroll", "", 0, 0, now, now + 120, plain(request))), request)

    def tasks(self) -> tuple[str, ...]:
        return tuple(sorted(self.server.caller(self._key, self._board).tasks))

    def trust(self, after: int) -> list[bytes]:
        return self.server.chain[after:]

    def manifest(self, task_id: str, etag: str | None, parts: Parts | None = None) -> tuple[bytes, str] | None:
        self.server.caller(self._key, self._board, task_id)
        raw = self.server.sealed_manifest(task_id)
        if etag == f'"{digest(raw)}"':
            return None
        if parts is not None:
            self._send_parts(self.server.bodies[task_id], raw, parts)
        self.bytes_down += len(raw)
        return raw, f'"{digest(raw)}"'

    def _send_parts(self, body: Manifest, raw: bytes, parts: Parts) -> None:
        have = parts.have().split(",")
        refs = (body.directory, body.base.onnx, body.base.weights)
        files = {ref.digest: self.server.blobs[ref.digest] for ref in refs if ref.digest[:HAVE_CHARACTERS] not in have}
        after = b"".join(files.values())
        cut = self.server.cut_after
        if cut is not None and cut < len(after):
            self.server.cut_after = None
        sent = raw + after[:cut]
        self.bytes_down += len(sent) - len(raw)
        listed = ", ".join([str(len(raw)), *(f"{name}:{len(data)}" for name, data in files.items())])
        parts.receive(listed, [sent])

    def pack_keys(self, task_id: str, packs: tuple[str, ...]) -> tuple[bytes | None, ...]:
        self.server.caller(self._key, self._board, task_id)
        self.asked_keys.append(packs)
        mine = (name if self.server.blob_tasks.get(name) == task_id else "" for name in packs)
        return tuple(self.server.keys.get(name) for name in mine)

    def blob(self, digest: str, size: int, target: Path, *, on_bytes: Callable[[int], None] | None = None) -> int:
        caller = self.server.caller(self._key, self._board)
        if target.exists() and digest_of_file(target) == digest:
            return 0
        if self.server.blob_tasks.get(digest) not in caller.tasks:
            raise NotFound(f"there is no blob {digest}")
        part = target.with_name(target.name + ".part")
        have = part.read_bytes() if part.exists() else b""
        sent = self.server.blobs[digest][len(have) : self.server.cut_after]
        cut = self.server.cut_after
        if len(have) < size:
            self.server.cut_after = None
        self.bytes_down += len(sent)
        if on_bytes:
            on_bytes(len(sent))
        part.write_bytes(have + sent)
        if cut is not None and len(have) + len(sent) < size:
            raise Offline("the connection ended early")
        if part.stat().st_size != size or digest_of_file(part) != digest:
            part.unlink()
            raise DigestMismatch(f"what the cloud sent is not {digest}")
        write_atomic(target, part.read_bytes())
        part.unlink()
        return len(sent)

    def orders(self, task_id: str, known: str) -> tuple[OrdersReply, str] | None:
        self.server.caller(self._key, self._board, task_id)
        found = self.server.ordered.get((str(self._board), task_id), ())
        etag = digest(b"".join(found))[:16] if found else ""
        return None if etag in ("", known) else (OrdersReply(tuple(raw.decode() for raw in found)), etag)

    def tell_outcome(self, task_id: str, outcome: Outcome) -> UploadReply:
        self.server.caller(self._key, self._board, task_id)
        if (outcome.board, outcome.counter) != (self._board, self._counter(task_id, outcome)):
            raise NotFound("this board was not offered that release")

        def store() -> UploadReply:
            self.server.outcomes.append(outcome)
            return UploadReply(1, 0)

        return self._once(outcome.upload_id, encode(outcome), store)

    def _counter(self, task_id: str, outcome: Outcome) -> int:
        """That of the order that there is for the release; 0: there is none."""
        found = (unverified(raw) for raw in self.server.ordered.get((str(self._board), task_id), ()))
        return max((one.version for one in found if one.body["release"] == outcome.release), default=0)

    def search(self, task_id: str, body: bytes) -> bytes:
        self.server.caller(self._key, self._board, task_id)
        if set(self.server.tasks[task_id].privacy.modes) == {"directory"} or self.server.search is None:
            raise NotGranted(f"task '{task_id}' does not allow mode 'embedding'")
        task, raw = self.server.tasks[task_id], self.server.search(str(self._board), task_id, body)
        samples = from_bytes(raw, task, what="samples", limit_bytes=SAMPLES_LIMIT_BYTES)
        digests = raw_digests(samples)
        self.server.found |= {name: samples.take([i]) for i, name in enumerate(digests)}
        arrays = {"digests": np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)}
        arrays |= self._neighbours(body, task, len(digests))
        return self._answer(body, tensors.pack(arrays, plain(FoundMeta("found/1", task_id))))

    def found(self, task_id: str, body: bytes) -> bytes:
        self.server.caller(self._key, self._board, task_id)
        arrays, _ = tensors.unpack(body, what="digests", limit_bytes=SAMPLES_LIMIT_BYTES)
        asked = [row.tobytes() for row in arrays["digests"]]
        self.server.asked_for += asked
        found = [self.server.found[name] for name in asked if name in self.server.found]
        return self._answer(body, to_bytes(concatenate(found, self.server.tasks[task_id].input), task_id))

    def _neighbours(self, body: bytes, task: Task, count: int) -> dict[str, np.ndarray]:
        """As if every query had found the same samples, the best first."""
        queries, meta = tensors.unpack(body, what="queries", limit_bytes=SAMPLES_LIMIT_BYTES)
        shape = (len(next(iter(queries.values()))), len(task.labels), meta["k"])
        rows = np.arange(np.prod(shape[1:]), dtype=np.int32)
        rows = np.broadcast_to(np.where(rows < count, rows, -1).reshape(shape[1:]), shape)
        return {"rows": rows, "scores": np.where(rows < 0, 0.0, 1.0 / (2 + rows)).astype(np.float32)}

    def _answer(self, body: bytes, answer: bytes) -> bytes:
        self.bytes_up, self.bytes_down = self.bytes_up + len(body), self.bytes_down + len(answer)
        return answer

    def contribute(
        self, task_id: str, upload_id: str, body: bytes, *, consent: str, until: float, after: int = 0
    ) -> UploadReply:
        self.server.caller(self._key, self._board, task_id)
        if after < self.server.withdrawn.get((str(self._board), task_id), 0):
            raise Gone("these samples were withdrawn after that consent")
        if consent != "packs" or until <= self.server.clock():
            raise InvalidMessage("that consent cannot be")
        task = self.server.tasks[task_id]
        samples = from_bytes(body, task, what="contribution", limit_bytes=SAMPLES_LIMIT_BYTES)

        def store() -> UploadReply:
            known = self.server.contributed.setdefault(str(self._board), set())
            new = set(sample_digests(samples)) - known
            known |= new
            return UploadReply(len(new), len(samples) - len(new))

        return self._once(upload_id, f"{consent} {until}\n".encode() + body, store)

    def withdraw(self, task_id: str) -> WithdrawReply:
        self.server.caller(self._key, self._board)
        mine, key = self.server.contributed.pop(str(self._board), set()), (str(self._board), task_id)
        if mine:
            self.server.withdrawn[key] = self.server.withdrawn.get(key, 0) + 1
        return WithdrawReply(self.server.withdrawn.get(key, 0), len(mine))

    def report(self, report: Report) -> UploadReply:
        self.server.caller(self._key, self._board, report.task)

        def store() -> UploadReply:
            self.server.reports.append(report)
            return UploadReply(1, 0)

        return self._once(report.upload_id, encode(report), store)

    def telemetry(self, told: Telemetry) -> UploadReply:
        self.server.caller(self._key, self._board)

        def store() -> UploadReply:
            self.server.telemetry.append(told)
            return UploadReply(len(told.points), 0)

        return self._once(told.upload_id, encode(told), store)

    def _once(self, upload_id: str, content: bytes, store: Callable[[], UploadReply]) -> UploadReply:
        self.bytes_up += len(content)
        known = self.server.uploads.get((str(self._board), upload_id))
        if known is not None and known[0] != content:
            raise Conflict(f"upload {upload_id} was something else")
        reply = known[1] if known else store()
        self.server.uploads[str(self._board), upload_id] = (content, reply)
        return reply


def pack_ref(data: bytes, *, cohort: int, samples: int, contributors: int, ciphertext: bytes | None = None) -> PackRef:
    """How a directory names a pack. ciphertext: None for a pack that is not encrypted, as of an older cloud."""
    blob = UNSET if ciphertext is None else digest(ciphertext)
    return PackRef(digest(data), len(data), cohort, samples, contributors, blob)
