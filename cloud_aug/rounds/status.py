"""How series and rounds stand, for people, metrics and the console. Reads only."""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from cloud_aug import db
from cloud_aug.cloud import Cloud
from cloud_aug.rounds import attendance
from cloud_aug.rounds.plan import Series, counts_by
from edgelearn.federated.catalogue import ALGORITHMS
from edgelearn.privacy.accountant import gaussian_epsilon, sampled_epsilon
from edgewire.decoding import decode
from edgewire.errors import NotFound

DELTA = 1e-5  # of every ε that is told


@dataclass(frozen=True)
class RoundStatus:
    """state: gathering, open, closing, closed or failed. answered: updates that counted, or wait to; late, refused:
    that never will; silent: invited boards that neither answered nor gave a sign of life lately. score: of the model
    that the round made, as the boards of the next one found on their own samples; None: not known (yet).
    counts_by: the algorithm that counts it; steps_least, steps_most: local steps that boards were limited to, None: to
    none; expected_s, took_s: of the median board, from its start to its update, None: not known; energy_j: that the
    turns of the `energy_told` boards took that measure it, None: nobody did."""

    number: int
    state: str
    reason: str
    begun_at: float
    deadline_at: float
    closed_at: float | None
    invited: int
    answered: int
    late: int
    refused: int
    silent: int
    bytes_down: int
    bytes_up: int
    samples: int
    score: float | None
    counts_by: str
    steps_least: int | None
    steps_most: int | None
    expected_s: float | None
    took_s: float | None
    energy_j: float | None
    energy_told: int


@dataclass(frozen=True)
class SeriesStatus:
    """state: created, running, stopped, finished or failed. closed: rounds that were closed, of `rounds`; failed: that
    were not; present: boards that could be invited; adapt: what follows boards' pace; peer: the task
    whose base learns with this one's; epsilon: what it cost so far at δ = 1e-5, None without noise."""

    id: str
    task: str
    state: str
    reason: str
    algorithm: str
    rounds: int
    closed: int
    failed: int
    cohort: int
    quorum: int
    adapt: tuple[str, ...]
    peer: str | None
    present: int
    base_version: int
    created_at: float
    changed_at: float
    best_round: int | None
    best_score: float | None
    epsilon: float | None
    history: tuple[RoundStatus, ...] = ()


def list_all(cloud: Cloud, *, now: float, task: str | None = None) -> list[SeriesStatus]:
    """Every series, the newest first, without its rounds."""
    query = sa.select(db.series).order_by(db.series.c.created_at.desc(), db.series.c.id)
    if task is not None:
        query = query.where(db.series.c.task == task)
    with cloud.database.reading() as connection:
        return [_status(connection, row, now=now, history=0) for row in connection.execute(query).all()]


def status(cloud: Cloud, series: str, *, now: float, history: int = 1_000_000) -> SeriesStatus:
    """One series with its last rounds, oldest first. Raises NotFound."""
    with cloud.database.reading() as connection:
        row = connection.execute(sa.select(db.series).where(db.series.c.id == series)).one_or_none()
        if row is None:
            raise NotFound(f"there is no series '{series}'", hint="see 'cloud-aug round status'")
        return _status(connection, row, now=now, history=history)


def _status(connection: sa.Connection, row: sa.Row[Any], *, now: float, history: int) -> SeriesStatus:
    made = decode(Series, bytes(row.document), what="series")
    plan, scores = made.plan, scores_of(connection, made.id)
    states = _states(connection, made.id)
    best = max(scores, key=lambda number: scores[number], default=None)
    return SeriesStatus(
        id=made.id,
        task=made.task,
        state=row.state,
        reason=row.reason,
        algorithm=plan.algorithm,
        rounds=plan.rounds,
        closed=states.count("closed"),
        failed=states.count("failed"),
        cohort=plan.cohort,
        quorum=plan.quorum,
        adapt=plan.adapt,
        peer=plan.peer,
        present=len(attendance.present(connection, made, now=now)),
        base_version=made.base.version,
        created_at=row.created_at,
        changed_at=row.changed_at,
        best_round=best,
        best_score=None if best is None else scores[best],
        epsilon=_epsilon(connection, made, states.count("closed") + states.count("failed")),
        history=_history(connection, made, scores, now=now, last=history) if history else (),
    )


def _states(connection: sa.Connection, series: str) -> list[str]:
    query = sa.select(db.rounds.c.state).where(db.rounds.c.series == series)
    return [str(state) for state in connection.execute(query).scalars()]


def scores_of(connection: sa.Connection, series: str) -> dict[int, float]:
    """By closed round: how good the model that it made is, by the mean over the samples of the boards that got it. A
    board got the model of the newest round that was closed before its own."""
    made = sa.select(db.rounds.c.number).where(db.rounds.c.series == series, db.rounds.c.state == "closed")
    closed = sorted(connection.execute(made).scalars())
    column = db.updates.c
    query = sa.select(column.number, column.score, column.samples).where(column.series == series)
    found: dict[int, list[tuple[float, int]]] = {}
    for number, score, samples in connection.execute(query.where(column.dropped == "", column.score.is_not(None))):
        if before := bisect_left(closed, number):
            found.setdefault(closed[before - 1], []).append((score, samples))
    return {
        number: sum(score * samples for score, samples in told) / sum(samples for _, samples in told)
        for number, told in found.items()
    }


def _epsilon(connection: sa.Connection, series: Series, rounds: int) -> float | None:
    """That a board took part, by the server's noise; or what the busiest board sent at most, by its own: an update that
    was refused or too late has reached the server, too."""
    multiplier = series.plan.options.get("noise_multiplier", 1.0)
    if ALGORITHMS[series.plan.algorithm].invites == "coin" and multiplier:
        share = min(1.0, series.plan.cohort / max(1, series.boards))
        return sampled_epsilon(multiplier, share, rounds, DELTA)
    if series.plan.noise:
        column = db.invitations.c
        asked = sa.select(sa.func.count()).where(column.series == series.id, column.heard_at.is_not(None))
        sent = asked.group_by(column.board)
        busiest = max(connection.execute(sent).scalars(), default=0)
        return gaussian_epsilon(series.plan.noise, busiest, DELTA)
    return None


def _history(
    connection: sa.Connection, series: Series, scores: dict[int, float], *, now: float, last: int
) -> tuple[RoundStatus, ...]:
    query = sa.select(db.rounds).where(db.rounds.c.series == series.id).order_by(db.rounds.c.number.desc()).limit(last)
    rows = connection.execute(query).all()[::-1]
    since = rows[0].number if rows else 0
    asked, answers = _asked(connection, series, since), _answers(connection, series, since)
    return tuple(
        _round(series, row, asked[row.number], answers[row.number], scores.get(row.number), now=now) for row in rows
    )


def _asked(connection: sa.Connection, series: Series, since: int) -> Mapping[int, list[Any]]:
    """Invitations by round."""
    column, found = db.invitations.c, defaultdict[int, list[Any]](list)
    query = sa.select(db.invitations).where(column.series == series.id, column.number >= since)
    for row in connection.execute(query):
        found[row.number].append(row)
    return found


def _answers(connection: sa.Connection, series: Series, since: int) -> Mapping[int, list[Any]]:
    """Updates by the rounds that they started from and those that they count in."""
    column, found = db.updates.c, defaultdict[int, list[Any]](list)
    these = sa.or_(column.number >= since, column.counted_in >= since)
    for row in connection.execute(sa.select(db.updates).where(column.series == series.id, these)):
        for number in {row.number, row.counted_in or row.number}:
            found[number].append(row)
    return found


def _round(
    series: Series, row: sa.Row[Any], asked: list[Any], answers: list[Any], score: float | None, *, now: float
) -> RoundStatus:
    counting = [a for a in answers if a.dropped == "" and a.counted_in in (row.number, None)]
    mine = {answer.board: answer for answer in answers if answer.number == row.number}
    steps = [ask.steps for ask in asked if ask.steps is not None]
    joules = [answer.energy_j for answer in mine.values() if answer.energy_j is not None]
    took_s = [mine[a.board].received_at - a.started_at for a in asked if a.board in mine and a.started_at is not None]
    silent = [
        ask
        for ask in asked
        if ask.board not in mine and (ask.gave_up or row.state in ("closed", "failed") or _quiet(ask, series, now=now))
    ]
    return RoundStatus(
        number=row.number,
        state=row.state,
        reason=row.reason,
        begun_at=row.begun_at,
        deadline_at=row.deadline_at,
        closed_at=row.closed_at,
        invited=len(asked),
        answered=len(counting),
        late=row.late,
        refused=row.refused,
        silent=len(silent),
        bytes_down=sum(
            row.order_bytes if ask.down_bytes is None else ask.down_bytes for ask in asked if ask.heard_at is not None
        ),
        bytes_up=sum(answer.size for answer in mine.values()),
        samples=sum(answer.samples for answer in counting),
        score=score,
        counts_by=counts_by(series.plan, buffered=row.buffered),
        steps_least=min(steps, default=None),
        steps_most=max(steps, default=None),
        expected_s=_median([ask.expected_s for ask in asked if ask.expected_s is not None]),
        took_s=_median(took_s),
        energy_j=sum(joules) if joules else None,
        energy_told=len(joules),
    )


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None


def _quiet(ask: Any, series: Series, *, now: float) -> bool:
    return bool(now - (ask.heard_at or ask.invited_at) > series.plan.silence_s)


@dataclass(frozen=True)
class Tally:
    """All rounds of a task together. rounds: by state; stragglers: invited boards that did not answer before their
    round ended; score: of the newest model that boards have judged; energy_j: that the turns of `energy_told` updates
    took, those of which boards told it."""

    rounds: dict[str, int]
    counted: int
    late: int
    refused: int
    stragglers: int
    bytes_down: int
    bytes_up: int
    score: float | None
    energy_j: float
    energy_told: int


def tally(connection: sa.Connection, task: str) -> Tally:
    """For the metrics."""
    series, rounds, invited, came = db.series.c, db.rounds.c, db.invitations.c, db.updates.c
    mine = sa.select(series.id).where(series.task == task)
    states = sa.select(rounds.state, sa.func.count()).where(rounds.series.in_(mine)).group_by(rounds.state)
    total = sa.func.coalesce
    sums = sa.select(total(sa.func.sum(rounds.late), 0), total(sa.func.sum(rounds.refused), 0))
    late, refused = connection.execute(sums.where(rounds.series.in_(mine))).one()
    energy = (total(sa.func.sum(came.energy_j), 0.0), sa.func.count(came.energy_j))
    sent = sa.select(total(sa.func.sum(came.size), 0), sa.func.count(came.counted_in), *energy)
    bytes_up, counted, energy_j, told = connection.execute(sent.where(came.series.in_(mine))).one()
    of_round = sa.and_(rounds.series == invited.series, rounds.number == invited.number)
    size = total(invited.down_bytes, rounds.order_bytes)
    asked = sa.select(total(sa.func.sum(size), 0)).join_from(db.invitations, db.rounds, of_round)
    heard = asked.where(invited.series.in_(mine), invited.heard_at.is_not(None))
    return Tally(
        rounds={str(state): int(count) for state, count in connection.execute(states)},
        counted=int(counted),
        late=int(late),
        refused=int(refused),
        stragglers=_stragglers(connection, mine),
        bytes_down=int(connection.execute(heard).scalar_one()),
        bytes_up=int(bytes_up),
        score=_newest_score(connection, task),
        energy_j=float(energy_j),
        energy_told=int(told),
    )


def _stragglers(connection: sa.Connection, mine: sa.Select[Any]) -> int:
    rounds, invited, came = db.rounds.c, db.invitations.c, db.updates.c
    of_round = sa.and_(rounds.series == invited.series, rounds.number == invited.number)
    answer = sa.and_(came.series == invited.series, came.number == invited.number, came.board == invited.board)
    over = sa.select(sa.func.count()).select_from(
        sa.join(db.invitations, db.rounds, of_round).outerjoin(db.updates, answer)
    )
    ended = over.where(invited.series.in_(mine), rounds.state.in_(("closed", "failed")), came.board.is_(None))
    return int(connection.execute(ended).scalar_one())


def _newest_score(connection: sa.Connection, task: str) -> float | None:
    query = sa.select(db.series.c.id).where(db.series.c.task == task).order_by(db.series.c.created_at.desc()).limit(1)
    newest = connection.execute(query).scalar()
    scores = {} if newest is None else scores_of(connection, newest)
    return scores[max(scores)] if scores else None
