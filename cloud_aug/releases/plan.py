"""What a release is: what it brings, for which boards, and in which waves. Fixed from `create` on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from edgewire.decoding import decode
from edgewire.errors import InvalidMessage, UsageError
from edgewire.messages import BoardId, Name
from edgewire.releases import BasePayload, Kind, Limits, Policy, ReleaseId, Version, version_key

State = Literal["draft", "running", "paused", "done", "failed", "aborted"]
BoardState = Literal["waiting", "offered", "committed", "failed", "reverted"]
LIVE: tuple[State, ...] = ("running", "paused")
BACK: tuple[State, ...] = ("failed", "aborted")  # boards that took it are told to go back

Share = Annotated[float, Meta(gt=0, le=1)]
Tolerance = Annotated[float, Meta(ge=0, le=1)]
SpanS = Annotated[float, Meta(ge=0, le=31_536_000)]


@dataclass(frozen=True)
class Wave:
    """share: of all selected boards that have been asked when this wave has begun, the canaries' wave aside; soak_s:
    how long it is watched at least; most_failures: the share of its boards that may fail before the release is called
    back; least_told: the share that must have said how it went before the next wave begins."""

    share: Share
    soak_s: SpanS
    most_failures: Tolerance = 0.05
    least_told: Share = 0.5


@dataclass(frozen=True)
class Selection:
    """Which boards of the task. profiles, groups: any of these, empty: all; minimum: the oldest edgectl; canaries: the
    boards of the first wave, whatever their group."""

    profiles: tuple[Name, ...] = ()
    groups: tuple[Name, ...] = ()
    minimum: Version = "0"
    canaries: tuple[BoardId, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A release. order_s: how long an order may be carried out after it was signed; note: the operator's own words."""

    id: ReleaseId
    task: str
    kind: Kind
    selection: Selection
    waves: Annotated[tuple[Wave, ...], Meta(min_length=1, max_length=20)]
    limits: Limits
    order_s: SpanS
    created_by: str
    note: Annotated[str, Meta(max_length=500)] = ""
    payload: BasePayload | UnsetType = UNSET
    policy: Policy | UnsetType = UNSET

    @property
    def what(self) -> str:
        """What it brings, in a few words."""
        return f"base {self.payload.base.version}" if isinstance(self.payload, BasePayload) else "policy"


@dataclass(frozen=True)
class Candidate:
    """A board that may be selected. edgectl: the version it last told, None: never."""

    board: str
    profile: str
    edgectl: str | None
    groups: frozenset[str]


def read(document: bytes) -> Plan:
    """A plan from our own database."""
    return decode(Plan, bytes(document), what="release")


def check_waves(waves: Sequence[Wave]) -> None:
    """Raises UsageError unless each wave reaches more boards than the one before, and the last one all of them."""
    shares = [wave.share for wave in waves]
    if sorted(set(shares)) != shares or not shares or shares[-1] != 1:
        hint = "write for example --waves 1%,10%,100%"
        raise UsageError("the shares of the waves must rise, and end with 100 %", hint=hint)


def selected(selection: Selection, board: Candidate) -> bool:
    """Whether a release is for this board. One that never told its version is judged by its own gate."""
    if board.board in selection.canaries:
        return True
    fits = not selection.profiles or board.profile in selection.profiles
    return (
        fits and (not selection.groups or bool(board.groups & set(selection.groups))) and _new_enough(selection, board)
    )


def _new_enough(selection: Selection, board: Candidate) -> bool:
    if board.edgectl is None:
        return True
    try:
        return version_key(board.edgectl) >= version_key(selection.minimum)
    except InvalidMessage:
        return False


def arrange(plan: Plan, boards: Sequence[Candidate]) -> dict[str, int]:
    """Board -> wave, of those selected. Canaries make a wave of their own before the others; who follows when is
    decided by a hash, so that no release always meets the same boards first."""
    chosen = [board.board for board in boards if selected(plan.selection, board)]
    canaries = set(plan.selection.canaries) & set(chosen)
    others = sorted(set(chosen) - canaries, key=lambda board: hashlib.sha256(f"{plan.id}{board}".encode()).digest())
    first = 1 if canaries else 0
    waves = dict.fromkeys(sorted(canaries), 0)
    reached = 0
    for number, wave in enumerate(plan.waves):
        upto = max(reached + 1, round(wave.share * len(others)))
        waves.update(dict.fromkeys(others[reached:upto], first + number))
        reached = max(reached, min(upto, len(others)))
    return waves


def wave_of(plan: Plan, number: int) -> Wave:
    """The rules of a wave; the canaries' are those of the first share."""
    place = number - bool(plan.selection.canaries)
    return plan.waves[max(0, min(place, len(plan.waves) - 1))]
