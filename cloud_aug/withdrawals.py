"""Deletion that sticks: who withdraws is out of the pool with the next request, and comes back by a new consent only.

At once: its samples are deleted, searches find them no more, packs that hold some answer 410 and enter the signed list
of withdrawals. With the next build they leave index and packs, and the old files are removed. The journal of
withdrawals lies outside the database, so that a restored one forgets none.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from cloud_aug import audit, db, journal, packs, publications
from cloud_aug.cloud import Cloud
from cloud_aug.journal import Withdrawal
from edgewire.errors import NotFound


@dataclass(frozen=True)
class Withdrawn:
    """number: how often this contributor has withdrawn now; samples: how many were deleted; changed: False if there
    was nothing to withdraw since the last time."""

    number: int
    samples: int
    changed: bool


def delete(cloud: Cloud, task_id: str, contributor: str, *, now: float) -> Withdrawn:
    """Delete a contributor on its behalf. Raises NotFound if the task never had samples of it."""
    done = withdraw(cloud, task_id, contributor, actor=audit.SHELL, now=now)
    if done.number == 0:
        raise NotFound(f"task '{task_id}' has no samples of '{contributor}'", hint="see 'cloud-aug pool stats'")
    return done


def withdraw(cloud: Cloud, task_id: str, contributor: str, *, actor: str, now: float) -> Withdrawn:
    """Delete what a contributor shared, and end its consent; on disk, in the journal too, when this returns."""
    column = db.contributors.c
    query = sa.select(db.contributors).where(column.task == task_id, column.contributor == contributor)
    with cloud.database.writing() as connection:
        known = connection.execute(query.with_for_update()).one_or_none()
        if known is None:
            return Withdrawn(0, 0, changed=False)
        if known.withdrawals and known.consent_until == 0:
            return Withdrawn(known.withdrawals, 0, changed=False)
        number = known.withdrawals + 1
        holding = journal.packs_before(connection, task_id, contributor, number)
        withdrawal = Withdrawal(task_id, contributor, number, now, holding)
        journal.append(cloud.journal, [withdrawal])  # first: killed after this, the next start does the rest
        samples = journal.apply(connection, withdrawal)
        detail = {"task": task_id, "samples": samples, "number": withdrawal.number}
        audit.note(connection, at=now, actor=actor, action="withdraw", subject=contributor, **detail)
    return Withdrawn(withdrawal.number, samples, changed=True)


def purge(cloud: Cloud, task_id: str) -> int:
    """Remove the files of packs with withdrawn samples; returns how many packs that are, removed before or now."""
    with cloud.database.reading() as connection:
        withdrawn = publications.withdrawn_packs(connection, task_id)
        blobs = packs.stored(connection, task_id, withdrawn)
    for digest in blobs:
        cloud.blobs.remove(digest)
    return len(withdrawn)
