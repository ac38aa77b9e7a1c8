"""What there is to see of releases: plain values, for the command line, the console and whoever asks over HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import sqlalchemy as sa

from cloud_aug import db
from cloud_aug.cloud import Cloud
from cloud_aug.releases import plan as plans
from cloud_aug.releases.plan import BoardState, Plan, State, Wave
from edgewire.decoding import decode
from edgewire.errors import NotFound
from edgewire.releases import Check, Outcome

_STATES: tuple[BoardState, ...] = ("waiting", "offered", "committed", "failed", "reverted")


@dataclass(frozen=True)
class Counts:
    """Boards by state: waiting for their wave, offered it, running it, refused by their own gate, gone back."""

    waiting: int = 0
    offered: int = 0
    committed: int = 0
    failed: int = 0
    reverted: int = 0

    @property
    def boards(self) -> int:
        return self.waiting + self.offered + self.committed + self.failed + self.reverted

    @property
    def told(self) -> int:
        """How many said how it went."""
        return self.committed + self.failed + self.reverted


@dataclass(frozen=True)
class WaveStatus:
    """One wave, from 0 on. canaries: whether it is the wave of the listed ones."""

    number: int
    canaries: bool
    rules: Wave
    counts: Counts


@dataclass(frozen=True)
class ReleaseInfo:
    """One release. wave: the one that is under way; revision: give it back with what you decide, so that a decision
    about something that has changed is refused; reason: why it is in this state; times: seconds since 1970."""

    id: str
    task: str
    what: str
    state: State
    wave: int
    waves: int
    counts: Counts
    revision: int
    reason: str
    note: str
    created_by: str
    created_at: float
    started_at: float | None
    ended_at: float | None


@dataclass(frozen=True)
class ReleaseStatus:
    """One release with its waves. wave_since: when the present wave began; soaked_at: when it may be over."""

    info: ReleaseInfo
    plan: Plan
    waves: tuple[WaveStatus, ...]
    wave_since: float | None
    soaked_at: float | None


@dataclass(frozen=True)
class BoardStatus:
    """How a release went on one board. checks: of its gate, as it told them."""

    board: str
    name: str
    wave: int
    state: BoardState
    offered_at: float | None
    told_at: float | None
    checks: tuple[Check, ...]


def list_all(cloud: Cloud, *, task: str | None = None) -> list[ReleaseInfo]:
    """Every release, newest first."""
    query = sa.select(db.releases).order_by(db.releases.c.created_at.desc(), db.releases.c.id)
    if task is not None:
        query = query.where(db.releases.c.task == task)
    with cloud.database.reading() as connection:
        counts = _counts(connection)
        return [_info(row, counts.get(row.id, {})) for row in connection.execute(query)]


def find(cloud: Cloud, release: str) -> ReleaseStatus:
    """One release by its id. Raises NotFound."""
    with cloud.database.reading() as connection:
        row = row_of(connection, release)
        counts = _counts(connection, release).get(release, {})
    plan = plans.read(row.document)
    first = bool(plan.selection.canaries)
    waves = tuple(
        WaveStatus(number, first and number == 0, plans.wave_of(plan, number), found)
        for number, found in sorted(counts.items())
    )
    soaked_at = None
    if row.state == "running" and row.wave_since is not None:
        soaked_at = row.wave_since + plans.wave_of(plan, row.wave).soak_s
    return ReleaseStatus(_info(row, counts), plan, waves, row.wave_since, soaked_at)


def boards(
    cloud: Cloud, release: str, *, states: tuple[BoardState, ...] = _STATES, limit: int | None = None
) -> list[BoardStatus]:
    """How it went on each board, by id. limit: only so many of them. Raises NotFound."""
    mine, column = db.release_boards, db.release_boards.c
    query = sa.select(mine, db.boards.c.name).join_from(mine, db.boards)
    query = query.where(column.release == release, column.state.in_(states))
    with cloud.database.reading() as connection:
        row_of(connection, release)
        rows = connection.execute(query.order_by(column.board).limit(limit)).all()
    return [
        BoardStatus(row.board, row.name, row.wave, row.state, row.offered_at, row.told_at, _checks(row.outcome))
        for row in rows
    ]


def row_of(connection: sa.Connection, release: str) -> sa.Row[Any]:
    """The row of a release. Raises NotFound."""
    row = connection.execute(sa.select(db.releases).where(db.releases.c.id == release)).one_or_none()
    if row is None:
        raise NotFound(f"there is no release '{release}'", hint="see 'cloud-aug release list'")
    return row


def counts_of(connection: sa.Connection, release: str) -> dict[int, Counts]:
    """Wave -> its boards by state; those that were revoked since, or have the task no more, do not count."""
    return _counts(connection, release).get(release, {})


def present() -> sa.Join:
    """Places in releases, of boards that still are boards of the task; with the columns of the release."""
    mine, grants = db.release_boards, db.grants
    valid = sa.and_(mine.c.board == db.boards.c.id, db.boards.c.revoked_at.is_(None))
    granted = sa.and_(grants.c.board == mine.c.board, grants.c.task == db.releases.c.task)
    return sa.join(mine, db.releases, mine.c.release == db.releases.c.id).join(db.boards, valid).join(grants, granted)


def _counts(connection: sa.Connection, release: str | None = None) -> dict[str, dict[int, Counts]]:
    column = db.release_boards.c
    query = sa.select(column.release, column.wave, column.state, sa.func.count()).select_from(present())
    query = query.group_by(column.release, column.wave, column.state)
    if release is not None:
        query = query.where(column.release == release)
    found: dict[str, dict[int, dict[str, int]]] = {}
    for name, wave, state, number in connection.execute(query):
        found.setdefault(name, {}).setdefault(int(wave), {})[state] = int(number)
    return {name: {wave: Counts(**states) for wave, states in waves.items()} for name, waves in found.items()}


def _info(row: sa.Row[Any], counts: dict[int, Counts]) -> ReleaseInfo:
    plan = plans.read(row.document)
    total = Counts(*(sum(getattr(found, state) for found in counts.values()) for state in _STATES))
    return ReleaseInfo(
        row.id,
        row.task,
        plan.what,
        cast("State", row.state),
        row.wave,
        len(plan.waves) + bool(plan.selection.canaries),
        total,
        row.revision,
        row.reason,
        plan.note,
        plan.created_by,
        row.created_at,
        row.started_at,
        row.ended_at,
    )


def outcome_of(document: bytes) -> Outcome:
    """What a board told last of a release, from our own database."""
    return decode(Outcome, bytes(document), what="outcome")


def _checks(outcome: bytes | None) -> tuple[Check, ...]:
    return () if outcome is None else outcome_of(outcome).checks
