"""Who is there, who is invited, and who gave a sign of life. Boards come by themselves; nobody is called."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from msgspec import UNSET

from cloud_aug import db, keys, tasks, writes
from cloud_aug.cloud import Cloud
from cloud_aug.rounds import orders, pacing
from cloud_aug.rounds import rows as told_rows
from cloud_aug.rounds import series as all_series
from cloud_aug.rounds.pacing import Turn
from cloud_aug.rounds.plan import Plan, Series, may_buffer
from edgelearn.federated.catalogue import ALGORITHMS
from edgelearn.federated.cohort import at_random, by_coin, longest_absent
from edgewire.decoding import decode, plain
from edgewire.errors import CorruptFile, InvalidMessage, NotFound, Refused
from edgewire.messages import BlobRef
from edgewire.rounds import Invitation, JoinReply, JoinRequest, Sign, SignReply
from edgewire.signing import Statement, seal

JOIN_LIMIT_BYTES = 4 << 10
NOTHING_RUNS_S = 300.0  # when to ask again while no series runs: soon enough for the first round of one that starts
ASKING_PER_S = 50.0  # requests of all boards that wait, together
QUITS = 3  # invitations in a row of which no update came, after which a board is left out for as many rounds
_SOONEST_S, _BEATS = 0.5, 4  # a board beats, and asks at least, so many times within silence_s


def join(cloud: Cloud, board: str, task_id: str, body: bytes, *, now: float) -> JoinReply:
    """A board says that it could take part; its invitation, if it has one. The same one again, if it lost it. Raises
    InvalidMessage."""
    request = decode(JoinRequest, body, what="request to join", limit_bytes=JOIN_LIMIT_BYTES)
    privacy = tasks.load(cloud, task_id).privacy
    allowed = privacy.rounds is True
    with cloud.database.reading() as connection:
        found = all_series.running(connection, task_id) if allowed else []
    if not found:
        return JoinReply(wait_s=NOTHING_RUNS_S, note="no rounds are running for this task")
    made = found[0]
    if made.tables and privacy.rows is not True:
        return JoinReply(wait_s=NOTHING_RUNS_S, note="the task does not allow asking for rows any more")
    part = _cut(cloud, made, board, request.rows) if made.tables and request.rows else None
    # who waits for nobody invites at once: boards must not be counted by two at a time
    scope = "" if may_buffer(made.plan) else board
    with cloud.database.writing(scope) as connection:
        if why := _unfit(connection, made.plan, board, request):
            _forget_presences(connection, made, [board])  # it came while it was cooler, say: not to be drawn now
            return JoinReply(wait_s=NOTHING_RUNS_S, note=why)
        if made.tables and not (request.rows and told_rows.knows(connection, made, board, request.rows)):
            # boards that do not know of rows ask again after wait_s
            return JoinReply(wait_s=NOTHING_RUNS_S, note="rows have to be told first", rows=made.id)
        number = _invited(connection, made, board)
        number = number or _invite_at_once(connection, made, board, request.samples, now=now)
        if number:
            _heard(connection, made.id, number, board, now=now)
            if made.tables and not _has_part(connection, made, number, board, part):
                return JoinReply(wait_s=_SOONEST_S, note="invited a moment ago")
            return JoinReply(_sealed(cloud, connection, made, number, board, request, now=now), 0.0)
        row = {"series": made.id, "board": board, "at": now, "samples": request.samples}
        told = {"network": request.network, "temperature_c": request.temperature_c}
        writes.upsert(connection, db.presences, {**row, **told})
        wait_s = _ask_again_s(connection, made, board, request.samples, now=now)
        return JoinReply(wait_s=wait_s, note="not invited yet")


def sign(cloud: Cloud, board: str, task_id: str, series: str, number: int, body: bytes, *, now: float) -> SignReply:
    """A sign of life of an invited board, or that it gives up. Raises NotFound, Refused, InvalidMessage."""
    told = decode(Sign, body, what="sign of life", limit_bytes=JOIN_LIMIT_BYTES)
    with cloud.database.writing(board) as connection:
        made = of_task(connection, series, task_id)
        invitation_of(connection, made, number, board)
        if told.state == "giving-up":
            connection.execute(_invitation(series, number, board).values(gave_up=True))
        _heard(connection, series, number, board, now=now)
        return SignReply(wanted(connection, made, number) and not answered(connection, made, number, board))


def of_task(connection: sa.Connection, series: str, task_id: str) -> Series:
    """A series, if it is of this task. Raises NotFound."""
    made = all_series.read(all_series.find(connection, series))
    if made.task != task_id:
        raise NotFound(f"there is no series '{series}' of this task")
    return made


def invitation_of(connection: sa.Connection, made: Series, number: int, board: str) -> Any:
    """What a board was asked for, and the round's order. Raises Refused for a round that this board was not invited to,
    or that never was."""
    column, rounds = db.invitations.c, db.rounds.c
    origin = sa.and_(rounds.series == column.series, rounds.number == column.number)
    query = sa.select(db.invitations, rounds.order_blob, rounds.order_bytes)
    mine = query.join_from(db.invitations, db.rounds, origin)
    mine = mine.where(column.series == made.id, column.number == number, column.board == board)
    row = connection.execute(mine).one_or_none()
    if row is None:
        raise Refused(f"this board was not invited to round {number}", hint="join first")
    return row


def wanted(connection: sa.Connection, made: Series, number: int) -> bool:
    """Whether an update that started from this round's weights would count. Also while the series is stopped."""
    last = all_series.last_round(connection, made.id)
    if last is None or last.state not in all_series.UNSETTLED:
        return False
    if last.buffered:
        steps = made.plan.staleness
        if last.state == "closing":  # what counts in it is certain: it would count in the next one
            steps -= 1
        return steps >= 0 and all_series.oldest(connection, made.id, steps) <= number <= last.number
    return bool(last.number == number and last.state == "open")


def draw(connection: sa.Connection, made: Series, last: sa.Row[Any], *, now: float) -> list[str]:
    """The cohort of a round: from who is there, or, by coin, from all who may take part. Coins are the round's own,
    which nobody can guess: a board could find the plan's seed from its invitation's."""
    plan, invites = made.plan, ALGORITHMS[made.plan.algorithm].invites
    if invites == "coin":
        boards, coins = all_series.entitled(connection, made.task), int.from_bytes(bytes(last.entropy), "big")
        # of a fleet that grew as many as before: what the round is divided by, and its ε, count on that
        share = min(plan.cohort, made.boards) / max(made.boards, len(boards))
        return by_coin(boards, share, seed=coins, round_number=last.number)
    there = _without_quitters(connection, made, present(connection, made, now=now), last.number)
    if (plan.selection or invites) == "absent":
        return longest_absent(there, plan.cohort, _last_rounds(connection, made.id))
    return at_random(there, plan.cohort, seed=plan.seed, round_number=last.number)


def present(connection: sa.Connection, made: Series, *, now: float) -> list[str]:
    """Boards that came lately and may take part. Sorted, so that the same seed draws the same."""
    column = db.presences.c
    since = now - made.plan.gather_s - made.plan.silence_s
    came = sa.select(column.board).where(column.series == made.id, column.at >= since)
    there = sorted(set(connection.execute(came).scalars()) & set(all_series.entitled(connection, made.task)))
    return _counted_on(connection, made, there) if ALGORITHMS[made.plan.algorithm].remembers else there


def _counted_on(connection: sa.Connection, made: Series, there: list[str]) -> list[str]:
    """Those who took part before, and as many others as make the number of boards that the algorithm divides by what
    all of them ever sent."""
    column = db.invitations.c
    known = set(connection.execute(sa.select(column.board).where(column.series == made.id).distinct()).scalars())
    new = [board for board in there if board not in known][: max(0, made.boards - len(known))]
    return [board for board in there if board in known or board in new]


def told_samples(connection: sa.Connection, made: Series, boards: Sequence[str]) -> dict[str, int]:
    """How many samples these boards said they have; who said nothing is left out."""
    column = db.presences.c
    told = sa.select(column.board, column.samples).where(column.series == made.id, column.board.in_(boards))
    return {row.board: row.samples for row in connection.execute(told.order_by(column.board))}


def invite(connection: sa.Connection, made: Series, number: int, turns: Mapping[str, Turn], *, now: float) -> None:
    """Note invitations, and what is asked of whom; each board learns of its own when it asks the next time."""
    same = {"series": made.id, "number": number, "invited_at": now, "gave_up": False}
    writes.insert_new(connection, db.invitations, [{**same, "board": b, **vars(turn)} for b, turn in turns.items()])
    _forget_presences(connection, made, list(turns))


def _forget_presences(connection: sa.Connection, made: Series, boards: Sequence[str]) -> None:
    column = db.presences.c
    connection.execute(db.presences.delete().where(column.series == made.id, column.board.in_(boards)))


def _unfit(connection: sa.Connection, plan: Plan, board: str, request: JoinRequest) -> str:
    """Why this board is not wanted; '' if it is."""
    profile = connection.execute(sa.select(db.boards.c.profile).where(db.boards.c.id == board)).scalar()
    if plan.profiles and profile not in plan.profiles:
        return "boards of this profile are not asked"
    if plan.networks and request.network not in plan.networks:
        return f"boards on '{request.network}' are not asked"
    if request.samples < plan.min_samples:
        return f"boards with less than {plan.min_samples} samples are not asked"
    if request.samples > plan.max_samples:  # its update would be refused
        return f"boards with more than {plan.max_samples} samples are not asked"
    hot = plan.max_temperature_c is not None and (request.temperature_c or 0.0) > plan.max_temperature_c
    return "the board is too hot" if hot else ""


def _invited(connection: sa.Connection, made: Series, board: str) -> int | None:
    """The newest round that this board is invited to, has not answered, and that still wants it."""
    column, last = db.invitations.c, all_series.last_round(connection, made.id)
    if last is None:
        return None
    since = _since(connection, made, last)
    mine = sa.select(column.number).where(column.series == made.id, column.number >= since, column.board == board)
    query = mine.where(~column.gave_up).order_by(column.number.desc())
    number = connection.execute(query.limit(1)).scalar()
    if number is None or not wanted(connection, made, number) or answered(connection, made, number, board):
        return None
    return int(number)


def _invite_at_once(connection: sa.Connection, made: Series, board: str, samples: int, *, now: float) -> int | None:
    """Where nobody is waited for, whoever comes starts from the newest weights, while there is a place."""
    last = all_series.last_round(connection, made.id)
    if last is None or not last.buffered or last.state != "open":
        return None
    column = db.invitations.c
    known = sa.select(column.number).where(column.series == made.id, column.board == board)
    if connection.execute(known.where(column.number == last.number)).first() is not None:
        return None  # it has sent its update to these weights, or gave up
    if len({row.board for row in at_work(connection, made, last, now=now)} - {board}) >= made.plan.cohort:
        return None
    forecast = pacing.forecast_of(connection, made, board, orders.of_row(last).likely_bytes, now=now)
    turn = forecast.turn(board, samples, last.within_s)
    invite(connection, made, last.number, {board: turn}, now=now)
    return int(last.number)


def at_work(connection: sa.Connection, made: Series, last: Any, *, now: float) -> list[Any]:
    """Invitations of boards that are at work on an update that would count in this round."""
    since = _since(connection, made, last)
    answered = {(row.number, row.board) for row in _answers(connection, made.id, since)}
    rows = invited_rows(connection, made.id, since)
    return [row for row in rows if (row.number, row.board) not in answered and alive(row, made.plan, now=now)]


def _since(connection: sa.Connection, made: Series, last: Any) -> int:
    """The earliest round of which updates count in this one."""
    return all_series.oldest(connection, made.id, made.plan.staleness) if last.buffered else int(last.number)


def alive(row: Any, plan: Plan, *, now: float) -> bool:
    """Whether an invited board still is to be waited for: slow is not dead."""
    return not row.gave_up and now - (row.heard_at or row.invited_at) <= plan.silence_s


def invited_rows(connection: sa.Connection, series: str, since: int) -> list[Any]:
    column = db.invitations.c
    return list(connection.execute(sa.select(db.invitations).where(column.series == series, column.number >= since)))


def _answers(connection: sa.Connection, series: str, since: int) -> list[Any]:
    column = db.updates.c
    query = sa.select(column.number, column.board).where(column.series == series, column.number >= since)
    return list(connection.execute(query))


def answered(connection: sa.Connection, made: Series, number: int, board: str) -> bool:
    """Whether this board has sent an update to this round."""
    column = db.updates.c
    mine = sa.select(column.board).where(column.series == made.id, column.number == number, column.board == board)
    return connection.execute(mine).first() is not None


def _last_rounds(connection: sa.Connection, series: str) -> dict[str, int]:
    """By board, the last round that it was invited to, whatever came of it: who never answers must not stay first."""
    column = db.invitations.c
    query = sa.select(column.board, sa.func.max(column.number)).where(column.series == series)
    return {str(board): int(number) for board, number in connection.execute(query.group_by(column.board))}


def _without_quitters(connection: sa.Connection, made: Series, there: list[str], number: int) -> list[str]:
    """Without boards of whose last invitations no update came, QUITS in a row, for as many rounds after the last of
    them; all, where too few would be left."""
    column = db.invitations.c
    mine = sa.select(column.board).where(column.series == made.id)
    lately = mine.where(column.number >= number - QUITS, ~_came()).distinct()
    quitters = {board for board in connection.execute(lately).scalars() if _quit(connection, made.id, board)}
    left = [board for board in there if board not in quitters]
    return left if len(left) >= made.plan.quorum else there


def _quit(connection: sa.Connection, series: str, board: str) -> bool:
    """Whether it answered none of its last QUITS invitations: gave up, fell silent, was too slow, late or refused."""
    column = db.invitations.c
    mine = sa.select(_came()).where(column.series == series, column.board == board)
    last = connection.execute(mine.order_by(column.number.desc()).limit(QUITS)).scalars().all()
    return len(last) == QUITS and not any(last)


def _came() -> sa.Exists:
    """Of an invitation: whether its board has sent an update that was taken."""
    asked, came = db.invitations.c, db.updates.c
    mine = sa.and_(came.series == asked.series, came.number == asked.number, came.board == asked.board)
    return sa.exists().where(mine).correlate(db.invitations)


def _invitation(series: str, number: int, board: str) -> sa.Update:
    column = db.invitations.c
    return db.invitations.update().where(column.series == series, column.number == number, column.board == board)


def _heard(connection: sa.Connection, series: str, number: int, board: str, *, now: float) -> None:
    started = sa.func.coalesce(db.invitations.c.started_at, now)
    connection.execute(_invitation(series, number, board).values(heard_at=now, started_at=started))


def _ask_again_s(connection: sa.Connection, made: Series, board: str, samples: int, *, now: float) -> float:
    """Later and later while a round lasts: whoever waits loses a tenth of that at most. Where nobody is waited for,
    and the plan says so, a board is not asked more often than it could answer."""
    last, plan = all_series.last_round(connection, made.id), made.plan
    waited_s = 0.0 if last is None else now - last.begun_at
    pause_s = max(_SOONEST_S, min(max(made.boards / ASKING_PER_S, waited_s / 10), plan.silence_s / _BEATS))
    if "frequency" not in plan.adapt or last is None or not last.buffered:
        return pause_s
    forecast = pacing.forecast_of(connection, made, board, orders.of_row(last).likely_bytes, now=now)
    turn_s = forecast.turn(board, samples, last.within_s).expected_s or 0.0
    return max(pause_s, min(turn_s, plan.gather_s / 2))  # a round that gathers boards must not miss it


def _sealed(
    cloud: Cloud, connection: sa.Connection, made: Series, number: int, board: str, request: JoinRequest, *, now: float
) -> str:
    """The invitation, signed: who stole the server's certificate cannot have boards train on weights of its own."""
    column = db.rounds.c
    row = connection.execute(sa.select(db.rounds).where(column.series == made.id, column.number == number)).one()
    asked, order, rows = invitation_of(connection, made, number, board), orders.of_row(row).order, ""
    plan, until = made.plan, max(_until(connection, made, asked, row.deadline_at), now + made.plan.silence_s)
    if asked.own_blob:
        order, rows = BlobRef(asked.own_blob, asked.own_bytes), asked.rows_blob
    short = orders.shortcut(connection, made, number, request.holds or "")
    if request.holds != order.digest or asked.down_bytes is None:
        size = sum(blob.size for blob in short.blobs) if short else order.size
        size = 0 if request.holds == order.digest else size
        connection.execute(_invitation(made.id, number, board).values(down_bytes=size))
    told = Invitation(
        series=made.id, number=number, board=board,
        base=made.base.weights, order=order,
        algorithm=plan.algorithm, options=plan.options, boards=made.boards, local=plan.local,
        compression=plan.compression, noise=plan.noise, clip=plan.clip,
        seed=_seed(plan.seed, number, board), memory=memory_of(connection, made, board),
        heartbeat_s=max(_SOONEST_S, plan.silence_s / _BEATS), until=until,
        max_steps=UNSET if asked.steps is None else asked.steps, short=short or UNSET,
        rows=rows or UNSET,
    )  # fmt: skip
    key = keys.current_signing(cloud.keys, keys.newest(connection))
    statement = Statement("round", made.task, db.epoch(connection), number, now, until, plain(told))
    return seal(key, statement).decode()


def _until(connection: sa.Connection, made: Series, asked: Any, deadline_at: float) -> float:
    """When a board's turn is over: with its round, or, where nobody is waited for, as long after it began as a round
    may last; its update then counts in a later one."""
    last = all_series.last_round(connection, made.id)
    return asked.started_at + made.plan.deadline_s if last is not None and last.buffered else deadline_at


@dataclass(frozen=True)
class _Part:
    """A board's own part of a round's order, on disk. rows: digest of those that it has."""

    number: int
    order: BlobRef
    rows: str


def _cut(cloud: Cloud, made: Series, board: str, rows: str) -> _Part | None:
    """The part with these rows for a board that was invited and has none yet, while nobody waits for the database."""
    with cloud.database.reading() as connection:
        number = _invited(connection, made, board)
        if number is None or not told_rows.knows(connection, made, board, rows):
            return None
        asked = invitation_of(connection, made, number, board)
    if asked.own_blob:
        return None
    try:
        told = told_rows.load(cloud, rows)
    except (CorruptFile, NotFound, InvalidMessage):  # its disk has lost them: the board is asked again
        with cloud.database.writing(board) as connection:
            told_rows.forget(connection, made, board, rows)
        return None
    return _Part(number, orders.keep_part(cloud, made, asked.order_blob, told), rows)


def _has_part(connection: sa.Connection, made: Series, number: int, board: str, part: _Part | None) -> bool:
    """Whether the invitation has a part of its order, this one if none before: one for each invitation, whatever the
    board tells later. Not if the board was invited after it was cut."""
    if invitation_of(connection, made, number, board).own_blob:
        return True
    if part is None or part.number != number:
        return False
    own = {"own_blob": part.order.digest, "own_bytes": part.order.size, "rows_blob": part.rows}
    connection.execute(_invitation(made.id, number, board).values(own))
    return True


def _seed(seed: int, number: int, board: str) -> int:
    """Of a board's training in a round: the same plan, round and board give the same."""
    return int.from_bytes(hashlib.sha256(f"{seed} {number} {board}".encode()).digest()[:6], "big")


def memory_of(connection: sa.Connection, made: Series, board: str) -> str:
    """The board's last update that counts, or will: one of a round that is open keeps it from being invited."""
    column = db.updates.c
    query = sa.select(column.upload_id).where(column.series == made.id, column.board == board, column.dropped == "")
    return str(connection.execute(query.order_by(column.number.desc()).limit(1)).scalar() or "")
