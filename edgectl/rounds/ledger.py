"""What the updates that this board sent reveal of its samples, as far as noise of its own bounds it. Without numpy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from edgelearn.privacy.accountant import composed_epsilon

DELTA = 1e-5  # of every ε that is told


def told(noises: Sequence[float]) -> dict[str, Any] | None:
    """What `status` shows of updates with these multipliers, all together; None where none was sent. noised: how many
    had noise; epsilon: of those, at δ; None: no finite one. The others' is not bounded."""
    if not noises:
        return None
    noised = [noise for noise in noises if noise > 0]
    epsilon = composed_epsilon(noised, DELTA) if noised else math.inf
    known = round(epsilon, 4) if math.isfinite(epsilon) else None
    return {"updates": len(noises), "noised": len(noised), "epsilon": known, "delta": DELTA}


def told_of_all(by_task: Mapping[str, Sequence[float]]) -> dict[str, Any] | None:
    """Of all tasks together, as of samples of one owner; None where they are not of several."""
    return told([noise for noises in by_task.values() for noise in noises]) if len(by_task) > 1 else None


def line(figures: Mapping[str, Any]) -> str:
    """The same for people."""
    updates, noised, epsilon = figures["updates"], figures["noised"], figures["epsilon"]
    sent = f"{updates} update{'' if updates == 1 else 's'} sent, {noised} with noise of this board's own"
    cost = f": ε {epsilon:.3g} at δ {figures['delta']:g}" if epsilon is not None else ""
    bare = updates - noised if epsilon is not None else updates
    return f"{sent}{cost}" + (f"; nothing bounds what {bare} of them reveal" if bare else "")
