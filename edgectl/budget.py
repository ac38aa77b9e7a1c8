"""What a training may cost: seconds and memory. Kept from the first sample read to the last step, checked at each.

A budget never ends a training with nothing if it can be helped: see `edgectl.training` for the order of the work, and
`plan` for the smaller ways that fit into less memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from edgectl.board import memory
from edgewire.errors import EdgeError, ResourcesRefused, TimedOut

SMALLEST_BATCH = 8
GATE_BATCH = 32  # what the gate tries a candidate with; it takes no smaller one
PACK_COPIES = 4  # a pack lives as bytes, as columns, by contributor, and joined for training
LOCAL_COPIES = 2  # once more where training joins local and outside samples
LATER_MIB = 48  # what torch, onnx and onnxruntime load at the first step and for the export (41 MiB with torch 2.13)
_RESERVE = 0.1
_LONGEST_RESERVE_S = 5.0
_MIB = 1 << 20


class Spent(Exception):
    """The budget is used up. kind: 'time' or 'memory'."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail

    def refusal(self) -> EdgeError:
        """The same for the user: nothing could be made within the budget."""
        message = f"{self.detail} before anything was trained; what served before still serves"
        if self.kind == "time":
            return TimedOut(message, hint="give it longer: --max-seconds, or train_seconds in the settings")
        return ResourcesRefused(message, hint="give it more: --max-memory-mib, or train_memory_mib in the settings")


class Budget:
    """seconds: from `started` to the model installed; memory_mib: resident; None: no limit.

    A tenth of the time, at most 5 s, is kept for exporting and installing what was trained.
    """

    def __init__(
        self,
        *,
        seconds: float | None = None,
        memory_mib: float | None = None,
        started: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        resident_mib: Callable[[], float | None] = memory.resident_mib,
    ) -> None:
        self.seconds, self.memory_mib = seconds, memory_mib
        self.clock, self._resident_mib = clock, resident_mib
        reserve_s = 0.0 if seconds is None else min(_RESERVE * seconds, _LONGEST_RESERVE_S)
        begun = clock() if started is None else started
        self._until = None if seconds is None else begun + seconds - reserve_s

    def check(self) -> None:
        """Raise Spent if a limit is reached."""
        if self._until is not None and self.clock() >= self._until:
            raise Spent("time", f"the {self.seconds:g} s of its time budget were used up")
        if self.memory_mib is not None and (self._resident_mib() or 0.0) > self.memory_mib:
            raise Spent("memory", f"more than the {self.memory_mib:g} MiB of its memory budget were needed")

    @contextmanager
    def leaving(self, seconds: float) -> Iterator[None]:
        """Inside the block, time is up that much earlier: for what has to be done after it."""
        until = self._until
        self._until = None if until is None else until - seconds
        try:
            yield
        finally:
            self._until = until

    def limit_mib(self, *, available_mib: float | None) -> float | None:
        """What this process may grow to: never more than the machine has to give."""
        resident = self._resident_mib()
        free = None if available_mib is None or resident is None else resident + available_mib
        limits = [limit for limit in (self.memory_mib, free) if limit is not None]
        return min(limits, default=None)


@dataclass(frozen=True)
class Need:
    """What training takes. resident_mib: before any sample is read; row_bytes: of activations and gradients for one row
    of a batch; model_bytes: weights with gradients and moments; packs_bytes: of each retrieved file."""

    resident_mib: float
    local_bytes: int
    row_bytes: int
    model_bytes: int
    packs_bytes: Sequence[int]

    def mib(self, batch: int, packs: int) -> float:
        """Predicted peak with batches of that size and the first `packs` files."""
        data = LOCAL_COPIES * self.local_bytes + PACK_COPIES * sum(self.packs_bytes[:packs])
        return self.resident_mib + LATER_MIB + (data + batch * self.row_bytes + self.model_bytes) / _MIB


@dataclass(frozen=True)
class Plan:
    """batch: the largest batch; packs: how many of the retrieved files to read; mib: the predicted peak."""

    batch: int
    packs: int
    mib: float


def plan(need: Need, *, batch: int, limit_mib: float | None) -> Plan:
    """The largest way to train that fits: smaller batches first, then fewer files, then neither.

    Raises ResourcesRefused, saying what the smallest way takes, if none fits.
    """
    every = len(need.packs_bytes)
    ways = [(batch, every), *((min(batch, GATE_BATCH), packs) for packs in range(every, 0, -1))]
    ways += [(size, 0) for size in (batch, batch // 2, batch // 4, SMALLEST_BATCH) if size >= SMALLEST_BATCH]
    plans = [Plan(size, packs, need.mib(size, packs)) for size, packs in ways]
    fitting = (one for one in plans if limit_mib is None or one.mib <= limit_mib)
    chosen = next(fitting, None)
    if chosen is None:
        least, limit_mib = min(one.mib for one in plans), limit_mib or 0.0
        raise ResourcesRefused(
            f"training needs about {least:.0f} MiB at the least, {limit_mib:.0f} MiB are allowed and free",
            hint="stop other programs, give more with --max-memory-mib, or expire old samples: edgectl data expire",
        )
    return chosen
