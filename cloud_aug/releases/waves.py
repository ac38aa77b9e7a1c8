"""What happens by itself: a wave that failed calls the release back, one that went well makes way for the next.

Looked at whenever a board tells how it went, asks for orders, or somebody asks for the state: there is no clockwork
that could stand still.
"""

from __future__ import annotations

import math
from typing import Any

import sqlalchemy as sa

from cloud_aug import audit, db, publications
from cloud_aug.cloud import Cloud
from cloud_aug.releases import plan as plans
from cloud_aug.releases import status, steering
from cloud_aug.releases.plan import Plan, Wave
from cloud_aug.releases.status import Counts

ACTOR = "release"  # in the audit log: nobody did it, the rules did
FEWEST_TOLD = 60  # so many may have told before a share of failures is believed: some good models fail by chance


def advance_all(cloud: Cloud, *, now: float) -> None:
    """Look at every release that is under way."""
    with cloud.database.reading() as connection:
        query = sa.select(db.releases.c.id).where(db.releases.c.state == "running")
        live = connection.execute(query).scalars().all()
    for release in live:
        with cloud.database.writing() as connection:
            advance(connection, release, now=now)


def advance(connection: sa.Connection, release: str, *, now: float) -> None:
    """Let a release fail, go on or end, if it is time."""
    row = status.row_of(connection, release)
    if row.state != "running":
        return None
    made = plans.read(row.document)
    counts = status.counts_of(connection, release)
    canaries = status.has_canaries(made, counts)
    for number, found in sorted(counts.items()):
        rules = plans.wave_of(made, number, with_canaries=canaries)
        if number <= row.wave and failed(found, rules):
            reason = f"wave {number + 1}: {found.failed} of {found.told} boards that told refused it or went back"
            change = steering.called_back(connection, row, reason, now=now)
            return _record(connection, row, {"state": "failed", **change}, now=now)
    rules = plans.wave_of(made, row.wave, with_canaries=canaries)
    if over(counts.get(row.wave, Counts()), rules, since=row.wave_since, now=now):
        return _next(connection, row, made, counts, now=now)
    return None


def failed(counts: Counts, rules: Wave) -> bool:
    """Whether too many failed of those who told; one of a few canaries is too many, one of the first of a large wave is
    not."""
    believed = max(counts.told, min(counts.boards, FEWEST_TOLD))
    return counts.failed > rules.most_failures * believed


def over(counts: Counts, rules: Wave, *, since: float, now: float) -> bool:
    """Whether a wave was watched for long enough and enough of it told. Boards that are gone do not hold it up."""
    enough = counts.told >= math.ceil(rules.least_told * counts.boards)
    return now >= since + rules.soak_s and enough and (counts.committed > 0 or counts.boards == 0)


def settle(connection: sa.Connection, row: sa.Row[Any], counts: dict[int, Counts]) -> None:
    """Let the manifest name the base once every board of the task runs it; before that it would bring the base to
    boards that refused it or were left out on purpose."""
    if row.base_version is None:
        return
    committed = sum(found.committed for found in counts.values())
    if committed == sum(found.boards for found in counts.values()) and not _left_out(connection, row):
        publications.let_go(connection, row.task, row.base_version)


def _left_out(connection: sa.Connection, row: sa.Row[Any]) -> bool:
    """Whether a board of the task has no part in the release."""
    mine = sa.select(db.release_boards.c.board).where(db.release_boards.c.release == row.id)
    query = sa.select(db.grants.c.board).join_from(db.grants, db.boards)
    query = query.where(db.grants.c.task == row.task, db.boards.c.revoked_at.is_(None), db.boards.c.id.not_in(mine))
    return connection.execute(query.limit(1)).first() is not None


def _next(connection: sa.Connection, row: sa.Row[Any], made: Plan, counts: dict[int, Counts], *, now: float) -> None:
    if row.wave < max(counts):
        _record(connection, row, {"wave": row.wave + 1, "wave_since": now}, now=now)
        return
    _record(connection, row, {"state": "done", "ended_at": now}, now=now)
    settle(connection, row, counts)


def _record(connection: sa.Connection, row: sa.Row[Any], values: dict[str, Any], *, now: float) -> None:
    this = db.releases.update().where(db.releases.c.id == row.id)
    connection.execute(this.values(revision=row.revision + 1, **values))
    state, wave = values.get("state", row.state), values.get("wave", row.wave)
    action = "next-wave" if state == "running" else f"{state}-release"
    audit.note(
        connection, at=now, actor=ACTOR, action=action, subject=row.id, wave=wave + 1, reason=values.get("reason", "")
    )
