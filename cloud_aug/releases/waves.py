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
from cloud_aug.releases.plan import LIVE, Wave
from cloud_aug.releases.status import Counts

ACTOR = "release"  # in the audit log: nobody did it, the rules did
FEWEST_TOLD = 60  # so many may have told before a share of failures is believed: some good models fail by chance


def advance_all(cloud: Cloud, *, now: float) -> None:
    """Look at every release that is under way, and at those whose base only waited for boards that have gone since."""
    with cloud.database.reading() as connection:
        column = db.releases.c
        live = connection.execute(sa.select(db.releases).where(column.state == "running")).all()
        due = [row.id for row in live if ripe(connection, row, now=now)]
        over = connection.execute(sa.select(db.releases).where(column.state == "done")).all()
        settled = [row.id for row in over if _may_settle(connection, row)]
    for release in due:
        with cloud.database.writing() as connection:
            advance(connection, release, now=now)
    for release in settled:
        with cloud.database.writing() as connection:
            settle(connection, status.row_of(connection, release))


def ripe(connection: sa.Connection, row: sa.Row[Any], *, now: float) -> bool:
    """Whether `advance` would change anything: asked with every manifest and every look, so it takes no lock."""
    return _judge(connection, row, now=now) is not None


def advance(connection: sa.Connection, release: str, *, now: float) -> None:
    """Let a release fail, go on or end, if it is time."""
    row = status.row_of(connection, release)
    values = _judge(connection, row, now=now)
    if values is None:
        return
    if values.get("state") == "failed":
        values |= steering.called_back(connection, row, str(values["reason"]), now=now)
    _record(connection, row, values, now=now)
    settle(connection, status.row_of(connection, release))


def _judge(connection: sa.Connection, row: sa.Row[Any], *, now: float) -> dict[str, Any] | None:
    """What changes in the row of a release; None: nothing."""
    if row.state != "running":
        return None
    made, counts = plans.read(row.document), status.counts_of(connection, row.id)
    for number, found in sorted(counts.items()):
        if number <= row.wave and failed(found, plans.wave_of(made, number)):
            reason = f"wave {number + 1}: {found.failed} of {found.told} boards that told refused it or went back"
            return {"state": "failed", "reason": reason}
    rules = plans.wave_of(made, row.wave)
    if not over(counts.get(row.wave, Counts()), rules, since=row.wave_since, now=now):
        return None
    if row.wave < max(counts, default=0):
        return {"wave": row.wave + 1, "wave_since": now}
    return {"state": "done", "ended_at": now}


def failed(counts: Counts, rules: Wave) -> bool:
    """Whether too many failed of those who told; one of a few canaries is too many, one of the first of a large wave is
    not."""
    believed = max(counts.told, min(counts.boards, FEWEST_TOLD))
    return counts.failed > rules.most_failures * believed


def over(counts: Counts, rules: Wave, *, since: float, now: float) -> bool:
    """Whether a wave was watched for long enough and enough of it told. Boards that are gone do not hold it up."""
    enough = counts.told >= math.ceil(rules.least_told * counts.boards)
    return now >= since + rules.soak_s and enough


def settle(connection: sa.Connection, row: sa.Row[Any]) -> None:
    """Let the manifest name the base of a release that is done once every board of the task runs it; before that it
    would bring the base to boards that refused it or were left out on purpose."""
    if row.state == "done" and _may_settle(connection, row):
        publications.let_go(connection, row.task, row.base_version)


def _may_settle(connection: sa.Connection, row: sa.Row[Any]) -> bool:
    if row.base_version is None or not publications.is_held(connection, row.task, row.base_version):
        return False
    everywhere = not _lacking(connection, row) and not _left_out(connection, row)
    last = everywhere and not _replaced(connection, row)
    return last and publications.would_name(connection, row.task, row.base_version)


def _replaced(connection: sa.Connection, row: sa.Row[Any]) -> bool:
    """Whether a base was released since: boards may run that."""
    column = db.releases.c
    query = sa.select(column.id).where(column.task == row.task, column.base_version.is_not(None))
    query = query.where(column.state.in_((*LIVE, "done")), column.started_at > row.started_at)
    return connection.execute(query.limit(1)).first() is not None


def _lacking(connection: sa.Connection, row: sa.Row[Any]) -> bool:
    """Whether a board that has a part in the release, and still is a board of the task, does not run it."""
    column = db.release_boards.c
    query = sa.select(column.board).select_from(status.present())
    query = query.where(column.release == row.id, column.state != "committed")
    return connection.execute(query.limit(1)).first() is not None


def _left_out(connection: sa.Connection, row: sa.Row[Any]) -> bool:
    """Whether a board of the task has no part in the release."""
    mine = sa.select(db.release_boards.c.board).where(db.release_boards.c.release == row.id)
    query = sa.select(db.grants.c.board).join_from(db.grants, db.boards)
    query = query.where(db.grants.c.task == row.task, db.boards.c.revoked_at.is_(None), db.boards.c.id.not_in(mine))
    return connection.execute(query.limit(1)).first() is not None


def _record(connection: sa.Connection, row: sa.Row[Any], values: dict[str, Any], *, now: float) -> None:
    this = db.releases.update().where(db.releases.c.id == row.id)
    connection.execute(this.values(revision=row.revision + 1, **values))
    state, wave = values.get("state", row.state), values.get("wave", row.wave)
    action = "next-wave" if state == "running" else f"{state}-release"
    audit.note(
        connection, at=now, actor=ACTOR, action=action, subject=row.id, wave=wave + 1, reason=values.get("reason", "")
    )
