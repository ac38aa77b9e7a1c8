"""Federated rounds on the wire: what a board says when it could take part, its signed invitation, and its update."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from edgewire import tensors
from edgewire.decoding import convert, plain
from edgewire.errors import InvalidMessage
from edgewire.messages import BlobRef, BoardId, Digest, UploadId
from edgewire.tasks import TaskId
from edgewire.tensors import Arrays, of, under

UPDATE_LIMIT_BYTES = 64 << 20
UPDATE_SPARE_BYTES = 64 << 10  # names and numbers of an update, beyond its arrays
ROWS_LIMIT_BYTES = 8 << 20
CHANGES_AT_MOST = 50  # that a board is sent instead of an order
ENERGY_LIMIT_J = 1e6  # of one turn

SeriesId = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}$")]
RoundNumber = Annotated[int, Meta(ge=1, le=1 << 31)]
MemoryId = Annotated[str, Meta(pattern=r"^([0-9a-f]{32})?$")]  # of an update; '': none
Network = Literal["ethernet", "wifi", "mobile", "unknown"]
# names, not lists: a board that does not know one says so, and does not take part
AlgorithmName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,31}$")]


@dataclass(frozen=True)
class Local:
    """How a board trains. epochs: passes over its samples; batch_size: samples of one step, 0 for all of them."""

    epochs: Annotated[int, Meta(ge=1, le=1000)] = 5
    batch_size: Annotated[int, Meta(ge=0, le=1 << 20)] = 10
    learning_rate: Annotated[float, Meta(gt=0, le=10)] = 0.04


@dataclass(frozen=True)
class JoinRequest:
    """A board that could take part now. temperature_c: None where no sensor tells; holds: digest of the order that it
    has on disk; rows: of the rows that it told (`pack_rows`); left out where it has none."""

    samples: Annotated[int, Meta(ge=1, le=1 << 31)]
    network: Network = "unknown"
    temperature_c: Annotated[float, Meta(ge=-40, le=125)] | None = None
    holds: Digest | UnsetType = UNSET
    rows: Digest | UnsetType = UNSET


@dataclass(frozen=True)
class Shortcut:
    """A shorter way to an order than its own blob. codec: the compression of the weights in `blobs`, each of which is
    packed like an order; held: digest of the order from which these changes lead on, one after the other; '': there is
    one blob, and it holds the weights themselves. What is made so has the order's digest, or is not it."""

    codec: AlgorithmName
    blobs: Annotated[list[BlobRef], Meta(min_length=1, max_length=CHANGES_AT_MOST)]
    held: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?$")] = ""


@dataclass(frozen=True)
class Invitation:
    """Body of a statement of type 'round'. base: weights of which the order holds those that are trained; order: what
    to start from; boards: how many might take part; noise, clip: of the board's own, 0: none; seed: of its training;
    memory: the board's last update in this series that counts, whose memory goes with it ('': none); until: seconds
    since 1970; max_steps: local steps after which it stops early, left out where there is no limit; short: a shorter
    way to the order; rows: digest of the rows of tables that the order has, those that the board told last; left out
    where there is none, and where the order has all rows."""

    series: SeriesId
    number: RoundNumber
    board: BoardId
    base: BlobRef
    order: BlobRef
    algorithm: AlgorithmName
    options: dict[str, float]
    boards: Annotated[int, Meta(ge=1)]
    local: Local
    compression: AlgorithmName
    noise: Annotated[float, Meta(ge=0)]
    clip: Annotated[float, Meta(gt=0)]
    seed: Annotated[int, Meta(ge=0, lt=1 << 53)]
    memory: MemoryId
    heartbeat_s: Annotated[float, Meta(gt=0)]
    until: float
    max_steps: Annotated[int, Meta(ge=1, le=1 << 31)] | UnsetType = UNSET
    short: Shortcut | UnsetType = UNSET
    rows: Digest | UnsetType = UNSET


@dataclass(frozen=True)
class JoinReply:
    """invitation: a signed envelope, '' while there is none; wait_s: when to ask again; note: why there is none.
    rows: the series that wants to be told rows first, left out where none does."""

    invitation: str = ""
    wait_s: Annotated[float, Meta(ge=0)] = 60.0
    note: str = ""
    rows: SeriesId | UnsetType = UNSET


@dataclass(frozen=True)
class RowsMeta:
    """The JSON part of rows, whose arrays are ids by table, uint32 and ascending. samples: those that touch them."""

    task: TaskId
    samples: Annotated[int, Meta(ge=1, le=1 << 31)]
    format: Literal["rows/1"] = "rows/1"


@dataclass(frozen=True)
class RowsReply:
    """accepted: False if these rows were told already."""

    accepted: bool


@dataclass(frozen=True)
class Sign:
    """A sign of life of an invited board."""

    state: Literal["working", "giving-up"] = "working"


@dataclass(frozen=True)
class SignReply:
    """wanted: whether an update for this round would still count."""

    wanted: bool


@dataclass(frozen=True)
class UpdateMeta:
    """The JSON part of an update. score: of the weights that the board was sent, on its own samples, by the task's
    metric; None: it does not tell; train_s: that its local steps took by its own clock, left out by boards that do not
    tell; energy_j: that the whole board drew while it trained, left out by boards that do not measure it; memory: of
    which earlier update the algorithm went on ('': of none), left out by boards that do not tell."""

    series: SeriesId
    number: RoundNumber
    board: BoardId
    upload_id: UploadId
    samples: Annotated[int, Meta(ge=1, le=1 << 53)]
    steps: Annotated[int, Meta(ge=1, le=1 << 53)]
    score: Annotated[float, Meta(ge=0, le=1)] | None = None
    format: Literal["update/1"] = "update/1"
    train_s: Annotated[float, Meta(ge=0, le=1e9)] | UnsetType = UNSET
    energy_j: Annotated[float, Meta(ge=0, le=ENERGY_LIMIT_J)] | UnsetType = UNSET
    memory: MemoryId | UnsetType = UNSET


@dataclass(frozen=True)
class UpdateReply:
    """accepted: False if it was there already. counts: in which round it counts or will, 0 while that is open."""

    accepted: bool
    counts: int = 0


@dataclass(frozen=True)
class OrderMeta:
    """The JSON part of an order, whose arrays are `weights/…` and `extra/…`. names: of the weights, where they are
    compressed without another order to go by."""

    task: TaskId
    format: Literal["order/1"] = "order/1"
    names: list[str] | UnsetType = UNSET


@dataclass(frozen=True)
class Parts:
    """Two kinds of arrays in one body: weights or a delta, and what an algorithm adds."""

    main: Arrays
    extra: Arrays = field(default_factory=dict)


def pack_order(parts: Parts, task: str, *, names: list[str] | None = None) -> bytes:
    """names: see OrderMeta."""
    meta = OrderMeta(task, names=UNSET if names is None else names)
    return tensors.pack(under("weights", parts.main) | under("extra", parts.extra), plain(meta))


def unpack_order(data: bytes, *, limit_bytes: int) -> Parts:
    """Raises TooLarge or InvalidMessage. Nothing is checked against a model here."""
    return unpack_short(data, limit_bytes=limit_bytes)[0]


def unpack_short(data: bytes, *, limit_bytes: int) -> tuple[Parts, OrderMeta]:
    """A blob of a Shortcut: its weights are as its codec made them. Raises as `unpack_order`."""
    arrays, meta = tensors.unpack(data, what="order", limit_bytes=limit_bytes)
    return Parts(of("weights", arrays), of("extra", arrays)), convert(OrderMeta, meta, what="order")


def pack_update(parts: Parts, meta: UpdateMeta) -> bytes:
    """parts.main: the delta as its compression made it."""
    return tensors.pack(under("delta", parts.main) | under("extra", parts.extra), plain(meta))


def unpack_update(data: bytes, *, limit_bytes: int) -> tuple[Parts, UpdateMeta]:
    """Raises TooLarge or InvalidMessage. Arrays are checked by whoever knows the order."""
    arrays, meta = tensors.unpack(data, what="update", limit_bytes=limit_bytes)
    return Parts(of("delta", arrays), of("extra", arrays)), convert(UpdateMeta, meta, what="update")


def pack_rows(rows: Arrays, meta: RowsMeta) -> bytes:
    """rows: ids by table, ascending."""
    return tensors.pack({name: ids.astype("uint32") for name, ids in rows.items()}, plain(meta))


def unpack_rows(data: bytes, *, limit_bytes: int) -> tuple[Arrays, RowsMeta]:
    """Raises TooLarge or InvalidMessage. Whether they are rows of anything is for whoever knows the tables."""
    arrays, meta = tensors.unpack(data, what="rows", limit_bytes=limit_bytes)
    if any(ids.ndim != 1 or str(ids.dtype) != "uint32" for ids in arrays.values()):
        raise InvalidMessage("rows must be lists of uint32")
    return arrays, convert(RowsMeta, meta, what="rows")
