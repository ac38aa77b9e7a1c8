"""How boards are, a page of them at a time: what each told last lies in columns, so that ten thousand are one query."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import sqlalchemy as sa

from cloud_aug import db, writes
from cloud_aug.cloud import Cloud
from edgewire.messages import Report, TelemetryPoint

State = Literal["well", "hot", "silent", "new", "revoked"]
Order = Literal["seen", "name", "hottest", "power", "gain"]
_BOARDS = db.boards.outerjoin(db.board_states)  # a board that has told nothing, too
STATES: tuple[State, ...] = get_args(State)
ORDERS: tuple[Order, ...] = get_args(Order)

SILENT_AFTER_S = 86400.0
ROWS = 50
MAX_PAGE = 10_000
_HALF = 0.499999  # a little less: databases disagree on how a half is rounded, and not all have floor


@dataclass(frozen=True)
class Wanted:
    """Which boards; '' and None: any. text: a part of the name or id; page: from 1."""

    text: str = ""
    state: State | None = None
    profile: str = ""
    task: str = ""
    order: Order = "seen"
    page: int = 1


@dataclass(frozen=True)
class Standing:
    """One board. times: seconds since 1970; None: it has not told. gain: accuracy over the base, in its own folds."""

    board: str
    name: str
    profile: str
    edgectl: str | None
    state: State
    enrolled_at: float
    last_seen_at: float | None
    revoked_at: float | None
    told_at: float | None
    temperature_c: float | None
    throttled: bool | None
    power_w: float | None
    power_quality: str | None
    gain: float | None
    shipped: str | None
    task: str | None


@dataclass(frozen=True)
class Page:
    """boards: of this page; counts: of every state, whichever is wanted; total: of the wanted ones."""

    boards: tuple[Standing, ...]
    counts: dict[State, int]
    total: int
    page: int

    @property
    def pages(self) -> int:
        return max(1, -(-self.total // ROWS))


def measured(connection: sa.Connection, board: str, point: TelemetryPoint, *, now: float) -> None:
    """Note what a board told last about itself."""
    row = {
        "temperature_c": point.temperature_c,
        "throttled": point.throttled,
        "power_w": point.power_w,
        "power_quality": point.power_quality,
    }
    writes.upsert(connection, db.board_states, {"board": board, "told_at": now, **row})


def reported(connection: sa.Connection, board: str, report: Report, *, now: float) -> None:
    """Note a board's last report of a training."""
    row = {"task": report.task, "base": report.base, "shipped": report.shipped, "gain": report.gain}
    writes.upsert(connection, db.board_states, {"board": board, "reported_at": now, **row})


def page(cloud: Cloud, wanted: Wanted, *, now: float) -> Page:
    """One page of boards: two queries, however many boards there are."""
    state = _state(now)
    with cloud.database.reading() as connection:
        states = sa.select(state.label("state")).select_from(_BOARDS).where(*_conditions(wanted))
        counted = _counted(states)
        counts: dict[State, int] = {row[0]: int(row[1]) for row in connection.execute(counted)}
        total = sum(counts.values()) if wanted.state is None else counts.get(wanted.state, 0)
        number = max(1, min(wanted.page, -(-total // ROWS), MAX_PAGE))
        query = _rows(state).where(*_conditions(wanted))
        if wanted.state is not None:
            query = query.where(state == wanted.state)
        query = query.order_by(*_ORDERS[wanted.order], db.boards.c.id).limit(ROWS).offset((number - 1) * ROWS)
        found = tuple(_standing(row) for row in connection.execute(query))
    return Page(found, {name: counts.get(name, 0) for name in STATES}, total, number)


def one(connection: sa.Connection, board: str, *, now: float) -> Standing | None:
    """A board by its id."""
    row = connection.execute(_rows(_state(now)).where(db.boards.c.id == board)).one_or_none()
    return None if row is None else _standing(row)


def profiles(cloud: Cloud, *, limit: int = 100) -> list[str]:
    """The profiles that boards have."""
    column = db.boards.c.profile
    with cloud.database.reading() as connection:
        return list(connection.execute(sa.select(column).distinct().order_by(column).limit(limit)).scalars())


def spread(
    cloud: Cloud, name: Literal["temperature_c", "gain"], *, step: float, within: tuple[float, float]
) -> list[tuple[float, int]]:
    """How many boards, revoked ones left out, have a value in each step: (its start, boards), rising. within: what lies
    beyond counts as its end, so that no board's report makes more steps than a chart can have."""
    column, (low, high) = db.board_states.c[name], within
    value = sa.case((column < low, low), (column > high, high), else_=column)
    floor = sa.cast(sa.func.round(value / step - _HALF), sa.Integer).label("floor")
    floors = sa.select(floor).select_from(_BOARDS).where(column.is_not(None), db.boards.c.revoked_at.is_(None))
    with cloud.database.reading() as connection:
        rows = connection.execute(_counted(floors)).all()
    return [(row[0] * step, int(row[1])) for row in rows]


def _counted(values: sa.Select[Any]) -> sa.Select[Any]:
    """How often each value of a query's one column is there, rising. From a subquery: PostgreSQL does not see that two
    expressions are the same where they have parameters."""
    found = values.subquery()
    value = next(iter(found.c))
    return sa.select(value, sa.func.count()).group_by(value).order_by(value)


def _state(now: float) -> sa.Case[Any]:
    column = db.boards.c
    recent = db.board_states.c.told_at > now - SILENT_AFTER_S
    return sa.case(
        (column.revoked_at.is_not(None), "revoked"),
        (column.last_seen_at.is_(None), "new"),
        (column.last_seen_at < now - SILENT_AFTER_S, "silent"),
        (sa.and_(db.board_states.c.throttled.is_(sa.true()), recent), "hot"),
        else_="well",
    )


def _rows(state: sa.Case[Any]) -> sa.Select[Any]:
    mine = db.boards.c
    of_board = (mine.id, mine.name, mine.profile, mine.edgectl, mine.enrolled_at, mine.last_seen_at, mine.revoked_at)
    told = db.board_states.c
    last = (told.told_at, told.temperature_c, told.throttled, told.power_w, told.power_quality)
    chosen = sa.select(*of_board, *last, told.gain, told.shipped, told.task, state.label("state"))
    return chosen.select_from(_BOARDS)


def _conditions(wanted: Wanted) -> list[sa.ColumnElement[bool]]:
    column, found = db.boards.c, []
    if wanted.text:
        found.append(sa.or_(column.name.icontains(wanted.text, autoescape=True), column.id == wanted.text))
    if wanted.profile:
        found.append(column.profile == wanted.profile)
    if wanted.task:
        granted = sa.select(db.grants.c.board).where(db.grants.c.task == wanted.task)
        found.append(column.id.in_(granted))
    return found


_LAST = db.boards.c.last_seen_at
_ORDERS: dict[Order, tuple[sa.ColumnElement[Any], ...]] = {
    "seen": (_LAST.desc().nulls_last(),),
    "name": (db.boards.c.name,),
    "hottest": (db.board_states.c.temperature_c.desc().nulls_last(),),
    "power": (db.board_states.c.power_w.desc().nulls_last(),),
    "gain": (db.board_states.c.gain.asc().nulls_last(),),
}


def _standing(row: sa.Row[Any]) -> Standing:
    found = row._mapping
    return Standing(board=row.id, **{name: found[name] for name in Standing.__dataclass_fields__ if name != "board"})
