"""What happened to one board, the newest first: its reports, releases, and what the audit log says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from cloud_aug import db
from cloud_aug.releases import plan
from edgewire.decoding import decode
from edgewire.messages import Report

ROWS = 100


@dataclass(frozen=True)
class Event:
    """at: seconds since 1970; gain: of a report, accuracy over the base."""

    at: float
    what: str
    detail: str
    gain: float | None = None


def of_board(connection: sa.Connection, board: str) -> list[Event]:
    """The last events of a board, at most ROWS of each kind are read."""
    found = [*_reports(connection, board), *_released(connection, board), *_noted(connection, board)]
    return sorted(found, key=lambda event: -event.at)[:ROWS]


def _reports(connection: sa.Connection, board: str) -> list[Event]:
    sent, told = db.uploads.c, db.reports.c
    joined = db.reports.join(db.uploads, sa.and_(told.board == sent.board, told.upload_id == sent.upload_id))
    query = sa.select(told.document, sent.received_at).select_from(joined).where(sent.board == board)
    rows = connection.execute(query.order_by(sent.received_at.desc()).limit(ROWS))
    return [_of_report(decode(Report, bytes(row.document), what="report"), row.received_at) for row in rows]


def _of_report(report: Report, at: float) -> Event:
    kept = f", {report.kept} of {report.candidates} candidates kept" if report.candidates else ""
    detail = f"{report.task}: ships {report.shipped} after {report.samples} samples{kept}, {report.seconds:.0f} s"
    return Event(at, "trained", detail, report.gain)


def _released(connection: sa.Connection, board: str) -> list[Event]:
    mine, column = db.release_boards, db.release_boards.c
    query = sa.select(column.state, column.told_at, db.releases.c.task, db.releases.c.document)
    query = query.join_from(mine, db.releases).where(column.board == board, column.told_at.is_not(None))
    rows = connection.execute(query.order_by(column.told_at.desc()).limit(ROWS))
    return [Event(row.told_at, row.state, f"{row.task}: {plan.read(row.document).what}") for row in rows]


def _noted(connection: sa.Connection, board: str) -> list[Event]:
    """What it did and what was done to it: two queries, each along an index of its own."""
    column = db.audit.c
    to_it = sa.select(db.audit).where(column.subject == board).order_by(column.id.desc()).limit(ROWS)
    by_it = sa.select(db.audit).where(column.actor == board).order_by(column.id.desc()).limit(ROWS)
    rows = {row.id: row for query in (to_it, by_it) for row in connection.execute(query)}
    return [_of_note(row, board) for row in rows.values()]


def _of_note(row: sa.Row[Any], board: str) -> Event:
    said = decode(dict[str, Any], row.detail.encode(), what="audit line")
    detail = ", ".join(f"{name} {value}" for name, value in said.items())
    return Event(row.at, row.action, detail if row.actor == board else f"by {row.actor} {detail}".rstrip())
