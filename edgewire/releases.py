"""Releases on the wire: the order that the cloud signs for one board, and the outcome that the board signs.

An order says: install this base (or this policy), or go back to what the manifest names. Its counter, the version of
the statement, rises with every release and every way back, so that a board never follows an older order.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from edgewire.errors import InvalidMessage
from edgewire.messages import Base, BlobRef, BoardId, Digest, Name, Recipe, UploadId

RELEASE_HEADER = "Edge-Release"  # with a manifest: there are orders for this board, under this etag
ORDERS_LIMIT_BYTES = 256 << 10
ORDER_LIFETIME_S = 7 * 86400.0
_PROOF_BYTES = 64 << 10

ReleaseId = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}$")]
Challenge = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$")]
Version = Annotated[str, Meta(pattern=r"^\d{1,5}(\.\d{1,5}){0,3}$")]
Kind = Literal["base", "policy"]
Verdict = Literal["committed", "failed", "reverted"]


@dataclass(frozen=True)
class Limits:
    """What the health gate of a board allows. latency_ratio: of the candidate's median to the incumbent's; slack_ms:
    is never too slow by less than that; memory_mib: what loading and answering may take; chance: how often a model
    that is as good as the incumbent may be found worse on a board's own samples."""

    latency_ratio: Annotated[float, Meta(ge=1, le=100)] = 1.5
    slack_ms: Annotated[float, Meta(ge=0, le=10_000)] = 2.0
    memory_mib: Annotated[int, Meta(ge=1, le=1 << 20)] = 512
    chance: Annotated[float, Meta(gt=0, le=0.5)] = 0.01


@dataclass(frozen=True)
class BasePayload:
    """A base to install. directory: made with it; golden: safetensors with `x` and the `logits` that the cloud's
    onnxruntime gave for it."""

    base: Base
    directory: BlobRef
    golden: BlobRef


@dataclass(frozen=True)
class Policy:
    """How boards personalize where neither a flag nor a setting of their site says so; 0 and 'auto': nothing new."""

    recipe: Recipe = "auto"
    max_seconds: Annotated[int, Meta(ge=0, le=604_800)] = 0
    max_joules: Annotated[int, Meta(ge=0, le=100_000_000)] = 0


@dataclass(frozen=True)
class Order:
    """Body of a statement of type 'release'. profiles: boards of other profiles refuse it, empty: any may take it;
    minimum: the oldest edgectl that may; challenge: what the proof of an outcome starts from."""

    release: ReleaseId
    board: BoardId
    kind: Kind
    action: Literal["install", "revert"]
    challenge: Challenge
    profiles: Annotated[tuple[Name, ...], Meta(max_length=64)] = ()
    minimum: Version = "0"
    limits: Limits = field(default_factory=Limits)
    payload: BasePayload | UnsetType = UNSET
    policy: Policy | UnsetType = UNSET

    def problem(self) -> str:
        """What does not fit together, '' if all does."""
        if self.action == "revert":
            return "" if self.payload is UNSET and self.policy is UNSET else "a way back carries something to install"
        wanted, other = (self.payload, self.policy) if self.kind == "base" else (self.policy, self.payload)
        return "" if wanted is not UNSET and other is UNSET else f"it does not carry just a {self.kind}"


@dataclass(frozen=True)
class OrdersReply:
    """Sealed orders of one board for one task, at most one of each kind."""

    orders: Annotated[tuple[Annotated[str, Meta(max_length=64 << 10)], ...], Meta(max_length=2)]


@dataclass(frozen=True)
class Check:
    """One check of the health gate. value, limit: what was measured and what was allowed; None: no number says it."""

    name: Name
    passed: bool
    value: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class Outcome:
    """Body of a statement of type 'outcome', signed by the board. proof: of the bytes it speaks of, see `proof_of`;
    left out where the board never had them. checks: numbers only."""

    upload_id: UploadId
    board: BoardId
    release: ReleaseId
    counter: Annotated[int, Meta(ge=1)]
    verdict: Verdict
    checks: Annotated[tuple[Check, ...], Meta(max_length=32)]
    edgectl: Annotated[str, Meta(max_length=32)]
    proof: Digest | UnsetType = UNSET


def proof_of(path: Path, challenge: str) -> str:
    """What only who has the file can tell: a digest over the challenge and a part of the file that it picks, of 64 KiB
    at most, so that asking ten thousand boards does not read ten thousand files whole."""
    size = path.stat().st_size
    start = int(challenge, 16) % max(1, size - _PROOF_BYTES + 1)
    with path.open("rb") as file:
        file.seek(start)
        part = file.read(_PROOF_BYTES)
    return hashlib.sha256(f"{challenge} {size} {start}\n".encode() + part).hexdigest()


def version_key(text: str) -> tuple[int, ...]:
    """A version as numbers to compare ('0.2.0' < '0.10', '1' = '1.0'); what follows the numbers does not count.

    Raises InvalidMessage.
    """
    found = re.match(r"\d{1,9}(\.\d{1,9})*", text)
    if found is None:
        raise InvalidMessage(f"'{text[:40]}' is no version", hint="write for example 0.2.0")
    parts = [int(part) for part in found[0].split(".")]
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)
