"""Version 6: federated rounds: series, their rounds, who is there, who is invited, what came back."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from cloud_aug import db

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables, empty."""
    op.create_table(
        "series",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("task", db.byte_ordered(63), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("changed_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["task"], ["tasks.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    _create_rounds()
    op.create_table(
        "invitations",
        sa.Column("series", sa.String(length=16), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("board", sa.String(length=17), nullable=False),
        sa.Column("invited_at", sa.Float(), nullable=False),
        sa.Column("heard_at", sa.Float()),
        sa.Column("gave_up", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["series", "number"], ["rounds.series", "rounds.number"]),
        sa.ForeignKeyConstraint(["board"], ["boards.id"]),
        sa.PrimaryKeyConstraint("series", "number", "board"),
    )
    op.create_table(
        "presences",
        sa.Column("series", sa.String(length=16), nullable=False),
        sa.Column("board", sa.String(length=17), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("samples", sa.Integer(), nullable=False),
        sa.Column("network", sa.String(length=10), nullable=False),
        sa.Column("temperature_c", sa.Float()),
        sa.ForeignKeyConstraint(["series"], ["series.id"]),
        sa.ForeignKeyConstraint(["board"], ["boards.id"]),
        sa.PrimaryKeyConstraint("series", "board"),
    )
    _create_updates()


def _create_rounds() -> None:
    op.create_table(
        "rounds",
        sa.Column("series", sa.String(length=16), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("begun_at", sa.Float(), nullable=False),
        sa.Column("deadline_at", sa.Float(), nullable=False),
        sa.Column("closed_at", sa.Float()),
        sa.Column("entropy", sa.LargeBinary(), nullable=False),
        sa.Column("server", sa.String(length=64), nullable=False),
        sa.Column("order_blob", sa.String(length=64), nullable=False),
        sa.Column("order_bytes", sa.Integer(), nullable=False),
        sa.Column("result", sa.String(length=64)),
        sa.Column("late", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("refused", sa.Integer(), nullable=False, server_default="0"),
        sa.ForeignKeyConstraint(["series"], ["series.id"]),
        sa.PrimaryKeyConstraint("series", "number"),
    )


def _create_updates() -> None:
    op.create_table(
        "updates",
        sa.Column("board", sa.String(length=17), nullable=False),
        sa.Column("upload_id", sa.String(length=32), nullable=False),
        sa.Column("series", sa.String(length=16), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("samples", sa.Integer(), nullable=False),
        sa.Column("score", sa.Float()),
        sa.Column("received_at", sa.Float(), nullable=False),
        sa.Column("counted_in", sa.Integer()),
        sa.Column("dropped", sa.String(length=20), nullable=False),
        sa.Column("kept", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["board"], ["boards.id"]),
        sa.ForeignKeyConstraint(["series", "number"], ["rounds.series", "rounds.number"]),
        sa.PrimaryKeyConstraint("board", "upload_id"),
        sa.UniqueConstraint("series", "number", "board"),
    )
    op.create_index("updates_counted", "updates", ["series", "counted_in"], unique=False)
