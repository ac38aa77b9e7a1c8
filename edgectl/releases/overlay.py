"""Which base and which policy are in force: the manifest's, unless a release brought this board a newer one.

Read by every command, so it imports nothing heavy. Orders were verified when they came, and are again here but for
their times: a board that was offline for long goes on with what it has.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from edgectl.enrolment import Enrolment
from edgectl.home import Home
from edgectl.releases import record
from edgewire.decoding import convert
from edgewire.errors import EdgeError
from edgewire.messages import Manifest
from edgewire.releases import BasePayload, Kind, Order, Policy
from edgewire.signing import Statement, open_sealed, unverified

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class InForce:
    """An order that counts on this board, and the statement that it came in."""

    order: Order
    statement: Statement


def opened(raw: str, enrolment: Enrolment, task_id: str) -> InForce | None:
    """A stored order, None if there is none or a key vouches for it that is trusted no more."""
    if not raw:
        return None
    keys = enrolment.trust.signing_keys
    try:
        statement = open_sealed(raw.encode(), keys, type="release", task=task_id, now=None)
        return InForce(convert(Order, statement.body, what="order"), statement)
    except EdgeError as error:
        _LOG.warning("the release of task '%s' does not count until the next sync: %s", task_id, error.message)
        return None


def stored(raw: str) -> InForce | None:
    """What a stored order says, whoever vouches for it: only to tell which one it is. None if there is none."""
    try:
        statement = unverified(raw.encode())
        return InForce(convert(Order, statement.body, what="order"), statement)
    except EdgeError:
        return None


def in_force(home: Home, enrolment: Enrolment, task_id: str, kind: Kind) -> InForce | None:
    """The order of this kind that counts."""
    return opened(record.read(home, task_id, kind).in_force, enrolment, task_id)


def effective(home: Home, enrolment: Enrolment, manifest: Manifest, *, epoch: int) -> Manifest:
    """The manifest with the base that this board runs: a release's, where that is newer. epoch: of the manifest; a
    cloud that was restored has forgotten the releases of the epoch before."""
    found = in_force(home, enrolment, manifest.task.id, "base")
    if found is None or not isinstance(found.order.payload, BasePayload) or found.statement.epoch < epoch:
        return manifest
    payload = found.order.payload
    if payload.base.version <= manifest.base.version:
        return manifest
    return replace(manifest, base=payload.base, directory=payload.directory)


def release_of(home: Home, task_id: str, base: str) -> str:
    """The release that brought the base of this digest, '' if none did that is known here."""
    known = record.read(home, task_id, "base")
    for found in (stored(known.order), stored(known.before)):
        payload = None if found is None else found.order.payload
        if found is not None and isinstance(payload, BasePayload) and payload.base.onnx.digest == base:
            return found.order.release
    return ""


def policy(home: Home, enrolment: Enrolment, task_id: str, *, epoch: int) -> Policy:
    """How this board is to personalize where nobody said otherwise here. epoch: of the manifest, as for `effective`."""
    found = in_force(home, enrolment, task_id, "policy")
    if found is None or not isinstance(found.order.policy, Policy) or found.statement.epoch < epoch:
        return Policy()
    return found.order.policy
