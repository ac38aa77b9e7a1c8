"""Whether this board can do what an invitation asks for, and its owner wants it: found out before anything is fetched.
Without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from edgectl.budget import LOADING_MIB
from edgelearn.compression.catalogue import CODECS
from edgelearn.compression.codec import Codec
from edgelearn.federated.algorithm import Algorithm
from edgelearn.federated.catalogue import ALGORITHMS, Surroundings, make
from edgewire.errors import Refused, ResourcesRefused, UnsupportedBoard
from edgewire.rounds import Invitation

COPIES = 4  # that training holds of an order at the least: as it came, as the model, what changed, and that packed
_MIB = 1 << 20

T = TypeVar("T")


@dataclass(frozen=True)
class Able:
    """memory_mib: that training may come to hold, torch included; disk_mib: that is free; None: not known. noise: the
    least multiplier of its own noise with which the owner lets an update go."""

    memory_mib: float | None = None
    disk_mib: float | None = None
    noise: float = 0.0


def check(invitation: Invitation, able: Able, *, lacking_bytes: int) -> None:
    """lacking_bytes: what the invitation's files take of the disk beyond what is there.

    Raises UnsupportedBoard for what this version does not know, Refused for less noise than the owner wants,
    ResourcesRefused where memory or disk cannot hold it.
    """
    codec_of(invitation)
    algorithm_of(invitation)
    if invitation.noise < able.noise:
        raise Refused(
            f"boards of this series add noise {invitation.noise:g}, the owner of this one wants {able.noise:g}",
            hint="edgectl config set rounds_noise, or a series with --noise",
        )
    need_mib = LOADING_MIB + (COPIES * invitation.order.size + invitation.base.size) / _MIB
    _has("memory", able.memory_mib, need_mib)
    _has("disk", able.disk_mib, (lacking_bytes + invitation.order.size) / _MIB)  # an update may be as large


def algorithm_of(invitation: Invitation) -> Algorithm:
    """For its step on a board: what only the server does is never asked here. Raises UnsupportedBoard."""
    kind = _known(ALGORITHMS, "algorithm", invitation.algorithm)
    surroundings = Surroundings(invitation.boards, 1.0, _only_the_server, np.random.default_rng)
    try:
        return make(kind, surroundings, invitation.options)
    except (TypeError, ValueError) as error:
        raise UnsupportedBoard(f"algorithm '{invitation.algorithm}': {error}", hint="update edgectl") from None


def codec_of(invitation: Invitation) -> Codec:
    """Raises UnsupportedBoard."""
    return _known(CODECS, "compression", invitation.compression)


def _has(what: str, there_mib: float | None, need_mib: float) -> None:
    if there_mib is not None and there_mib < need_mib:
        raise ResourcesRefused(
            f"the round needs {need_mib:.0f} MiB of {what} at the least, {max(there_mib, 0):.0f} are there for it",
            hint="stop other programs, free some disk, or raise train_memory_mib",
        )


def _only_the_server(_weights: object) -> float:
    raise ValueError("a board judges no weights")


def _known(choices: Mapping[str, T], what: str, name: str) -> T:
    if name not in choices:
        raise UnsupportedBoard(f"this edgectl knows no {what} '{name}'", hint="update edgectl")
    return choices[name]
