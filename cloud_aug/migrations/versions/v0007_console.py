"""Version 7: who may log in to the console, what long work does, and the last of each board as columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import sqlalchemy as sa
from alembic import op

from cloud_aug import db

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_REPORTED = ("task", "base", "shipped", "gain")
_MEASURED = ("temperature_c", "throttled", "power_w", "power_quality")


def upgrade() -> None:
    """Make the tables, and fill the states of boards from what they have told."""
    for name in ("subject", "actor"):
        op.create_index(f"audit_of_{name}", "audit", [name, "id"], unique=False)
    _create_entrance()
    op.create_table(
        "jobs",
        sa.Column("id", db.row_id, nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("task", db.byte_ordered(63), nullable=False),
        sa.Column("stage", sa.String(length=40), nullable=False),
        sa.Column("done", sa.BigInteger(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.Column("told_at", sa.Float(), nullable=False),
        sa.Column("ended_at", sa.Float(), nullable=True),
        sa.Column("outcome", sa.String(length=10), nullable=True),
        sa.Column("detail", sa.String(length=300), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    states = op.create_table(
        "board_states",
        sa.Column("board", sa.String(length=17), nullable=False),
        sa.Column("told_at", sa.Float(), nullable=True),
        sa.Column("temperature_c", sa.Float(), nullable=True),
        sa.Column("throttled", sa.Boolean(), nullable=True),
        sa.Column("power_w", sa.Float(), nullable=True),
        sa.Column("power_quality", sa.String(length=10), nullable=True),
        sa.Column("reported_at", sa.Float(), nullable=True),
        sa.Column("task", db.byte_ordered(63), nullable=True),
        sa.Column("base", sa.String(length=64), nullable=True),
        sa.Column("shipped", sa.String(length=32), nullable=True),
        sa.Column("gain", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["board"], ["boards.id"]),
        sa.PrimaryKeyConstraint("board"),
    )
    connection = op.get_bind()
    for row in _states(connection):
        connection.execute(states.insert().values(row))


def _create_entrance() -> None:
    op.create_table(
        "accounts",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("role", sa.String(length=10), nullable=False),
        sa.Column("password", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("logged_in_at", sa.Float(), nullable=True),
        sa.Column("removed_at", sa.Float(), nullable=True),
        sa.CheckConstraint("role IN ('viewer', 'operator', 'admin')", name="accounts_role"),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "sessions",
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("account", sa.String(length=63), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("seen_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["account"], ["accounts.name"]),
        sa.PrimaryKeyConstraint("hash"),
    )
    op.create_index(op.f("ix_sessions_account"), "sessions", ["account"], unique=False)
    op.create_table(
        "guesses",
        sa.Column("who", sa.String(length=64), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("last_at", sa.Float(), nullable=False),
        sa.Column("blocked_until", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("who"),
    )
    op.create_index(op.f("ix_guesses_last_at"), "guesses", ["last_at"], unique=False)


def _states(connection: sa.Connection) -> Iterator[dict[str, Any]]:
    """A row for each board that has told anything."""
    nothing = dict.fromkeys((*_MEASURED, *_REPORTED, "told_at", "reported_at"))
    measured, reported = dict(_measured(connection)), dict(_reported(connection))
    for board in sorted(measured.keys() | reported.keys()):
        yield {"board": board, **nothing, **measured.get(board, {}), **reported.get(board, {})}


def _measured(connection: sa.Connection) -> Iterator[tuple[str, dict[str, Any]]]:
    """Of each board the last point of the message that came last."""
    told = sa.table("telemetry", *(sa.column(name) for name in ("id", "board", "document", "received_at")))
    last = sa.select(sa.func.max(told.c.id)).group_by(told.c.board)
    for row in connection.execute(sa.select(told).where(told.c.id.in_(last))):
        point = msgspec.json.decode(bytes(row.document))["points"][-1]
        yield row.board, {"told_at": row.received_at, **{name: point.get(name) for name in _MEASURED}}


def _reported(connection: sa.Connection) -> Iterator[tuple[str, dict[str, Any]]]:
    """Of each board its reports, the last one last: a later pair of a dict replaces an earlier one."""
    reports = sa.table("reports", *(sa.column(name) for name in ("board", "upload_id", "document")))
    uploads = sa.table("uploads", *(sa.column(name) for name in ("board", "upload_id", "received_at")))
    same = sa.and_(reports.c.board == uploads.c.board, reports.c.upload_id == uploads.c.upload_id)
    query = sa.select(reports.c.board, reports.c.document, uploads.c.received_at).join_from(reports, uploads, same)
    for row in connection.execute(query.order_by(uploads.c.received_at)):
        report = msgspec.json.decode(bytes(row.document))
        yield row.board, {"reported_at": row.received_at, **{name: report.get(name) for name in _REPORTED}}
