"""What a board is told to install, or to go back from. Signed for this board alone, and only while its wave is open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from msgspec import UNSET

from cloud_aug import db, keys, publications
from cloud_aug.cloud import Cloud
from cloud_aug.releases import plan as plans
from cloud_aug.releases import status, steering, waves
from cloud_aug.releases.plan import BACK, Plan
from edgewire.decoding import encode, plain
from edgewire.files import digest
from edgewire.releases import BasePayload, Order, OrdersReply
from edgewire.signing import Statement, seal

_ETAG_CHARACTERS = 16  # it goes with every manifest


@dataclass(frozen=True)
class Meant:
    """One order for a board, not yet signed."""

    plan: Plan
    counter: int
    order: Order


def etag(cloud: Cloud, board: str, task: str, *, now: float) -> str:
    """Names the orders that there are for a board; '' if there are none."""
    column = db.releases.c
    started = sa.select(column.id).where(column.task == task, column.counter.is_not(None)).limit(1)
    with cloud.database.reading() as connection:
        if connection.execute(started).first() is None:
            return ""
        due = _due(connection, task, now=now)
        newcomer = _missing(connection, board, task)
    for release in due:
        with cloud.database.writing() as connection:
            waves.advance(connection, release, now=now)
    for release in newcomer:
        _welcome(cloud, release, board)
    with cloud.database.reading() as connection:
        found = _next(connection, board, task)
        name = _etag(connection, _meant(connection, board, found))
    behind = [one.id for one in found if one.behind]
    if not behind:
        return name
    for release in behind:
        _number_anew(cloud, release, board)
    with cloud.database.reading() as connection:
        return _etag(connection, meant(connection, board, task))


def give(cloud: Cloud, board: str, task: str, *, now: float) -> tuple[OrdersReply, str]:
    """The sealed orders of a board with their etag; from now on it has been offered them."""
    with cloud.database.writing(board) as connection:
        there = _next(connection, board, task)
        found, column = _meant(connection, board, there), db.release_boards.c
        for one in there:
            if one.is_offer:
                mine = db.release_boards.update().where(column.release == one.id, column.board == board)
                connection.execute(mine.values(state="offered", offered_at=now))
        epoch, trust = db.epoch(connection), keys.newest(connection)
        name = _etag(connection, found)
    key = keys.current_signing(cloud.keys, trust)
    sealed = (
        seal(key, Statement("release", task, epoch, one.counter, now, now + one.plan.order_s, plain(one.order)))
        for one in found
    )
    return OrdersReply(tuple(envelope.decode() for envelope in sealed)), name


def meant(connection: sa.Connection, board: str, task: str) -> list[Meant]:
    """What a board should do now: of each kind one order, if there is any."""
    return _meant(connection, board, _next(connection, board, task))


@dataclass(frozen=True)
class _Next:
    """What a board is told next of one kind. behind: it would refuse it, because it was given a later number since."""

    row: sa.Row[Any]
    counter: int
    behind: bool

    @property
    def id(self) -> str:
        return str(self.row.id)

    @property
    def is_offer(self) -> bool:
        """Whether the board has yet to tell how it went: also where it runs it, and gets it under a later number."""
        anew = self.row.mine == "committed" and self.row.state not in BACK and self.counter > _given(self.row)
        return not self.behind and (self.row.mine == "waiting" or anew)


def _meant(connection: sa.Connection, board: str, found: Sequence[_Next]) -> list[Meant]:
    made = [(one, plans.read(one.row.document)) for one in found if not one.behind]
    return [Meant(plan, one.counter, _order(connection, one.row, plan, board)) for one, plan in made]


def _next(connection: sa.Connection, board: str, task: str) -> list[_Next]:
    """Of each kind the first way back that is still to be gone, for a board that hears of a later one first refuses it;
    else the installation that was started last."""
    mine, column = db.release_boards, db.releases.c
    query = sa.select(db.releases, mine.c.state.label("mine"), mine.c.wave.label("its_wave"), mine.c.challenge)
    query = query.add_columns(mine.c.outcome, _stands_alone().label("alone")).join_from(mine, db.releases)
    query = query.where(mine.c.board == board, column.task == task, column.counter.is_not(None))
    rows = connection.execute(query).all()
    bases = [row for row in rows if row.base_version is not None]
    policies = [row for row in rows if row.base_version is None]
    return [one for one in (_next_of(bases), _next_of(policies)) if one is not None]


def _next_of(rows: Sequence[sa.Row[Any]]) -> _Next | None:
    back = [row for row in rows if row.state in BACK and row.mine in ("offered", "committed")]
    if back:
        first = min(back, key=lambda row: row.revert_counter)
        return _Next(first, first.revert_counter, behind=False)
    there = [row for row in rows if row.alone and _is_open(row)]
    if not there:
        return None
    row = max(there, key=lambda row: (row.started_at, row.counter))
    given = max((_given(other) for other in rows if other.id != row.id), default=0)
    counter = _given(row) if row.mine == "committed" and _given(row) > given else int(row.counter)
    return _Next(row, counter, behind=counter <= given)


def _is_open(row: sa.Row[Any]) -> bool:
    if row.mine == "committed":
        return row.state not in BACK
    open_to_it = row.state == "done" or (row.state == "running" and row.its_wave <= row.wave)
    return open_to_it and row.mine in ("waiting", "offered")


def _given(row: sa.Row[Any]) -> int:
    """The last number under which a board was given orders of a release, 0: it was given none."""
    if row.mine == "offered":
        return int(row.counter)
    return 0 if row.outcome is None else status.outcome_of(row.outcome).counter


def _number_anew(cloud: Cloud, release: str, board: str) -> None:
    """Give a release's orders a later number, because a board would refuse them under the one that they have. Who runs
    it already keeps that."""
    with cloud.database.writing() as connection:
        task = status.row_of(connection, release).task
        if any(one.id == release and one.behind for one in _next(connection, board, task)):
            this = db.releases.update().where(db.releases.c.id == release)
            connection.execute(this.values(counter=steering.next_counter(connection, task)))


def _stands_alone() -> sa.ColumnElement[bool]:
    """Which releases have something to say beside the manifest: not those whose base, or a newer one, it has come to
    name, nor those before the one that brought what it names."""
    column, later = db.releases.c, db.releases.alias()
    named = publications.general_base(column.task)
    same = sa.and_(later.c.task == column.task, later.c.state == "done", later.c.base_version == named)
    replaced = sa.exists().where(same, later.c.started_at > column.started_at)
    newer = sa.and_(column.base_version > named, ~replaced)
    return sa.or_(column.state != "done", column.base_version.is_(None), newer)


def _order(connection: sa.Connection, row: sa.Row[Any], made: Plan, board: str) -> Order:
    selection, payload = made.selection, made.payload
    profiles = selection.profiles if board not in selection.canaries else ()
    back = row.state in BACK
    if isinstance(payload, BasePayload):  # packs may have been made anew since, because somebody withdrew
        now = publications.of_base(connection, row.task, payload.base.version)
        payload = BasePayload(payload.base, now.directory, payload.golden)
    return Order(
        release=row.id,
        board=board,
        kind=made.kind,
        action="revert" if back else "install",
        challenge=row.challenge,
        profiles=profiles,
        minimum=selection.minimum,
        limits=made.limits,
        payload=UNSET if back else payload,
        policy=UNSET if back else made.policy,
    )


def _etag(connection: sa.Connection, found: list[Meant]) -> str:
    """Also another one when another key signs, or the service was restored."""
    if not found:
        return ""
    signing = next(iter(keys.newest(connection).signing_keys))
    told = [signing, db.epoch(connection), [[one.counter, plain(one.order)] for one in found]]
    return digest(encode(told))[:_ETAG_CHARACTERS]


def _due(connection: sa.Connection, task: str, *, now: float) -> list[str]:
    """Releases for which it is time to fail, go on or end."""
    column = db.releases.c
    query = sa.select(db.releases).where(column.task == task, column.state == "running")
    return [str(row.id) for row in connection.execute(query).all() if waves.ripe(connection, row, now=now)]


def _missing(connection: sa.Connection, board: str, task: str) -> list[str]:
    """Releases under way or done that this board has no place in."""
    column, mine = db.releases.c, db.release_boards.c
    placed = sa.select(mine.release).where(mine.board == board)
    query = sa.select(column.id).where(column.task == task, column.state.in_(("running", "done")), _stands_alone())
    return list(connection.execute(query.where(column.id.not_in(placed))).scalars())


def _welcome(cloud: Cloud, release: str, board: str) -> None:
    """A board that came, or came to fit, after the start takes its place in the last wave."""
    with cloud.database.reading() as connection:
        row = status.row_of(connection, release)
        made = plans.read(row.document)
        fits = [
            one for one in steering.candidates(connection, row.task, board=board) if plans.selected(made.selection, one)
        ]
        column = db.release_boards.c
        last = connection.execute(sa.select(sa.func.max(column.wave)).where(column.release == release)).scalar()
    if fits:
        with cloud.database.writing(board) as connection:
            steering.add_boards(connection, release, {board: int(last or 0)})
