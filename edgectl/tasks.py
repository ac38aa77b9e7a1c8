"""Which task a command is about, and what the cloud signed about it when this board last synced."""

from __future__ import annotations

import logging
from collections.abc import Collection

from edgectl.enrolment import Enrolment
from edgectl.home import Home
from edgectl.releases import overlay
from edgewire.decoding import convert
from edgewire.errors import CorruptFile, EdgeError, InvalidMessage, NotFound, NotGranted, UsageError
from edgewire.messages import Manifest
from edgewire.signing import Statement, open_sealed

_LOG = logging.getLogger(__name__)


def known_task(home: Home, enrolment: Enrolment, task_id: str | None, now: float) -> Manifest:
    """The manifest of a task, the only one if none is named, with the base that a release brought. Its signature is
    verified each time it is read.

    An expired manifest still serves here: a board that was offline for long goes on collecting, training and inferring.
    Expiry is enforced where a manifest is received.
    Raises UsageError (several tasks, none named), NotGranted, NotFound (not synced yet), Forged or CorruptFile.
    """
    chosen = choose(enrolment, task_id)
    statement = stored_manifest(home, enrolment, chosen)
    if statement.expires_at < now:
        _LOG.warning("what is known of task '%s' is out of date; sync when there is a network", chosen)
    try:
        manifest = convert(Manifest, statement.body, what=str(home.manifest(chosen)))
    except InvalidMessage as error:  # of a newer edgectl, say: no wrong usage of this one
        raise CorruptFile(error.message, hint="run: edgectl sync; if that does not help, update edgectl") from None
    if manifest.task.id != chosen:
        raise CorruptFile(f"{home.manifest(chosen)} describes task '{manifest.task.id}'", hint="run: edgectl sync")
    return overlay.effective(home, enrolment, manifest, epoch=statement.epoch)


def choose(enrolment: Enrolment, task_id: str | None) -> str:
    """The named task, or the only one this board is granted."""
    granted = ", ".join(enrolment.tasks) or "none"
    if task_id is not None:
        if task_id not in enrolment.tasks:
            raise NotGranted(f"this board is not granted task '{task_id}'", hint=f"it is granted: {granted}")
        return task_id
    if len(enrolment.tasks) == 1:
        return enrolment.tasks[0]
    if not enrolment.tasks:
        raise NotGranted("this board is granted no task", hint="ask the cloud's administrator, then: edgectl sync")
    raise UsageError(f"this board has several tasks: {granted}", hint="name one with --task")


def choose_kept(enrolment: Enrolment, task_id: str | None, kept: Collection[str]) -> str:
    """As `choose`, but also a task that is granted no longer, while its owner still has something of it here."""
    try:
        return choose(enrolment, task_id)
    except NotGranted:
        if task_id is None or task_id not in kept:
            raise
        return task_id


def stored_manifest(home: Home, enrolment: Enrolment, task_id: str) -> Statement:
    """The signed statement as sync stored it, verified but for its times. Raises NotFound, Forged or CorruptFile."""
    path = home.manifest(task_id)
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"nothing is known yet of task '{task_id}'", hint="run: edgectl sync") from None
    try:
        return open_sealed(raw, enrolment.trust.signing_keys, type="manifest", task=task_id, now=None)
    except EdgeError as error:
        kind = CorruptFile if isinstance(error, InvalidMessage) else type(error)  # by the disk: no wrong usage
        raise kind(f"{path}: {error.message}", hint="run: edgectl sync") from None
