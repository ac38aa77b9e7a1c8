"""Requests and responses of every endpoint, with their limits. Kept importable in milliseconds: plain dataclasses."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from edgewire.tasks import Mode, Task, TaskId

WIRE_HEADER = "Edge-Wire"
CLOCK_HEADER = "Edge-Time"  # the server's clock in seconds since 1970: a wrong clock is reported as a wrong clock
TASKS_HEADER = "Edge-Tasks"  # `tasks_digest` of what the asking board is granted now: another one, and it asks
HAVE_HEADER = "Edge-Have"  # with a request for a manifest: what need not come along with it
PARTS_HEADER = "Edge-Parts"  # with a manifest that others of its files follow: their digests and sizes

SAMPLES_LIMIT_BYTES = 64 << 20  # one pack, contribution or answer with samples
QUERIES_LIMIT_BYTES = 4 << 20
FOUND_LIMIT_BYTES = 16 << 20
WEIGHTS_LIMIT_BYTES = 256 << 20
DIRECTORY_LIMIT_BYTES = 16 << 20
TELEMETRY_LIMIT_BYTES = 64 << 10
PARTS_LIMIT_BYTES = 1 << 20  # of files that follow a manifest, together; larger ones are fetched by themselves
HAVE_CHARACTERS = 16  # of a digest, in `Edge-Have`
MAX_HAVE = 64
MAX_PACK_KEYS = 1000
MAX_TELEMETRY_POINTS = 60
MAX_FOUND = 1 << 14  # digests in one answer to a search
MAX_SEARCH_RESULTS = 4000  # samples fetched at once
WANTED_LIMIT_BYTES = 256 << 10
MAX_SEARCH_CELLS = 1 << 20  # queries x classes x k: what one search may have the server rank

PublicKey = Annotated[str, Meta(min_length=44, max_length=44)]  # base64 of 32 bytes
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
UploadId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$")]
BoardId = Annotated[str, Meta(pattern=r"^b[0-9a-f]{16}$")]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
# a name, not a list: a board of a newer release may know recipes that its cloud does not, and the other way round
Recipe = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,31}$")]


@dataclass(frozen=True)
class EnrolmentFile:
    """What `cloud-aug boards token` writes and `edgectl enroll` reads: a one-time secret and what to trust."""

    url: Annotated[str, Meta(pattern=r"^https://[^\s/]+$", max_length=300)]
    token: Annotated[str, Meta(min_length=20, max_length=100)]
    authorities: Annotated[tuple[Annotated[str, Meta(max_length=8192)], ...], Meta(min_length=1, max_length=8)]
    roots: Annotated[tuple[PublicKey, ...], Meta(min_length=1, max_length=8)]


@dataclass(frozen=True)
class EnrolRequest:
    """Body of a statement of type 'enroll', signed by the key it introduces."""

    token: Annotated[str, Meta(min_length=20, max_length=100)]
    name: Name
    profile: Name
    public_key: PublicKey


@dataclass(frozen=True)
class EnrolReply:
    board: BoardId
    tasks: tuple[TaskId, ...]
    trust: tuple[str, ...]  # the whole chain, oldest first


@dataclass(frozen=True)
class AccessRequest:
    """Body of a statement of type 'access', signed by the board's key; the nonce works once. edgectl: the version that
    asks, left out by older ones."""

    board: BoardId
    nonce: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$")]
    edgectl: Annotated[str, Meta(max_length=32)] | UnsetType = UNSET


@dataclass(frozen=True)
class AccessReply:
    token: str
    expires_at: float
    tasks: tuple[TaskId, ...]


def tasks_digest(tasks: Iterable[TaskId]) -> str:
    """A set of tasks in a header: 16 hex digits, in whatever order they come."""
    return hashlib.sha256(" ".join(sorted(tasks)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class TrustReply:
    trust: tuple[str, ...]


@dataclass(frozen=True)
class BlobRef:
    digest: Digest
    size: Annotated[int, Meta(ge=0, le=WEIGHTS_LIMIT_BYTES)]


@dataclass(frozen=True)
class Base:
    """The base model: its weights, and the same as ONNX with two outputs, `logits` and `embedding`."""

    version: int
    weights: BlobRef
    onnx: BlobRef


@dataclass(frozen=True)
class Withdrawals:
    """What contributors took back. number: rises with each withdrawal; packs: those with samples that were withdrawn
    after they were published, which nobody may use any more."""

    number: Annotated[int, Meta(ge=1)]
    packs: tuple[Digest, ...]


@dataclass(frozen=True)
class Manifest:
    """Body of a statement of type 'manifest': all that a board needs to know of a task, by digest. withdrawals: left
    out of the JSON while nobody has withdrawn anything."""

    task: Task
    base: Base
    directory: BlobRef
    trust_version: int
    withdrawals: Withdrawals | UnsetType = UNSET


@dataclass(frozen=True)
class PackRef:
    """One pack. digest, size: of its samples' bytes; ciphertext: the digest of the encrypted bytes, by which it is
    fetched; left out of the JSON where a cloud has packs that are not encrypted."""

    digest: Digest
    size: Annotated[int, Meta(ge=0, le=SAMPLES_LIMIT_BYTES)]
    cohort: Annotated[int, Meta(ge=0)]
    samples: Annotated[int, Meta(ge=0)]
    contributors: Annotated[int, Meta(ge=0)]
    ciphertext: Digest | UnsetType = UNSET


@dataclass(frozen=True)
class KeysRequest:
    """packs: the digests of encrypted packs."""

    packs: Annotated[tuple[Digest, ...], Meta(min_length=1, max_length=MAX_PACK_KEYS)]


@dataclass(frozen=True)
class KeysReply:
    """keys: base64 of 32 bytes for each pack that was asked for, in that order; None: it is not given out."""

    keys: Annotated[
        tuple[Annotated[str, Meta(min_length=44, max_length=44)] | None, ...], Meta(max_length=MAX_PACK_KEYS)
    ]


@dataclass(frozen=True)
class RecipeFigure:
    """What the cloud's rehearsal found: gain of a recipe over the base model at a number of shots.

    shots: samples per class; gain: mean difference in accuracy over `boards` rehearsed boards;
    spread: standard deviation between boards; harm: share of boards whose accuracy fell.
    """

    recipe: Recipe
    shots: Annotated[int, Meta(ge=1)]
    gain: float
    spread: Annotated[float, Meta(ge=0)]
    harm: Annotated[float, Meta(ge=0, le=1)]
    boards: Annotated[int, Meta(ge=0)]


@dataclass(frozen=True)
class DirectoryMeta:
    """The JSON part of a directory; its arrays are described in docs/wire-format.md."""

    task: TaskId
    base: Digest  # of the ONNX file whose embedding the prototypes are made with
    packs: tuple[PackRef, ...]
    prior: tuple[RecipeFigure, ...]


@dataclass(frozen=True)
class SearchMeta:
    """The JSON part of a search request; its array is `queries`, float32 (n, dim). k: samples per query and class."""

    task: TaskId
    base: Digest
    k: Annotated[int, Meta(ge=1, le=100)]


@dataclass(frozen=True)
class FoundMeta:
    """The JSON part of the answer to a search. Its arrays: `digests`, uint8 (m, 32), of samples, best ranks first;
    `rows`, int32 (n, classes, k), whose digest each neighbour is, -1 for none; `scores`, float32 (n, classes, k):
    cosines, or shares of equal bits."""

    format: Literal["found/1"]
    task: TaskId


@dataclass(frozen=True)
class WantedMeta:
    """The JSON part of a request for samples that a search found; its array is `digests`, uint8 (n, 32). base: digest
    of the encoder that the search was made with."""

    format: Literal["wanted/1"]
    task: TaskId
    base: Digest


@dataclass(frozen=True)
class Report:
    """What a board tells about a run: enumerated fields, no samples, no weights, no free text."""

    upload_id: UploadId
    task: TaskId
    base: Digest
    mode: Mode
    requested: Recipe  # or "auto"
    shipped: Recipe  # or "incumbent"
    samples: Annotated[int, Meta(ge=0)]
    candidates: Annotated[int, Meta(ge=0)]
    kept: Annotated[int, Meta(ge=0)]
    gain: float | None  # accuracy against the base in the board's own folds; None: too few samples to tell
    seconds: Annotated[float, Meta(ge=0)]


@dataclass(frozen=True)
class TelemetryPoint:
    """A board's state at one moment; None: not known. wall_s: seconds since 1970 by the board's own clock, which may be
    wrong; loads and disk_wear are shares; power_quality: 'modelled' where a part of the board is not measured."""

    wall_s: Annotated[float, Meta(ge=0, le=1e11)]
    temperature_c: Annotated[float, Meta(ge=-40, le=125)] | None = None
    throttled: bool | None = None
    under_voltage: bool | None = None
    power_w: Annotated[float, Meta(ge=0, le=400)] | None = None
    power_quality: Literal["measured", "modelled", "none"] = "none"
    cpu_load: Annotated[float, Meta(ge=0, le=1)] | None = None
    gpu_load: Annotated[float, Meta(ge=0, le=1)] | None = None
    available_mib: Annotated[float, Meta(ge=0, le=1 << 24)] | None = None
    total_mib: Annotated[float, Meta(ge=0, le=1 << 24)] | None = None
    cpu_mhz: Annotated[float, Meta(ge=0, le=20000)] | None = None
    disk_wear: Annotated[float, Meta(ge=0, le=1)] | None = None


@dataclass(frozen=True)
class Telemetry:
    """What a board tells about its own state, if its owner wants that: numbers only, oldest first."""

    upload_id: UploadId
    points: Annotated[tuple[TelemetryPoint, ...], Meta(min_length=1, max_length=MAX_TELEMETRY_POINTS)]


@dataclass(frozen=True)
class UploadReply:
    """accepted: how many items are new; duplicates: how many were there (an upload sent twice changes nothing)."""

    accepted: int
    duplicates: int


@dataclass(frozen=True)
class WithdrawReply:
    """number: how often this board has withdrawn its samples of the task; samples: how many were deleted."""

    number: Annotated[int, Meta(ge=0)]
    samples: Annotated[int, Meta(ge=0)]


@dataclass(frozen=True)
class ErrorBody:
    """request_id: under which the server's log has it."""

    code: str
    message: str
    hint: str = ""
    request_id: Annotated[str, Meta(max_length=64)] | UnsetType = UNSET


@dataclass(frozen=True)
class ErrorReply:
    error: ErrorBody


@dataclass(frozen=True)
class BoardInfo:
    """One board as administrators see it. times: seconds since 1970, None: never."""

    board: BoardId
    name: str
    profile: str
    tasks: tuple[str, ...]
    enrolled_at: float
    last_seen_at: float | None
    revoked_at: float | None
