"""Version 9: how fast boards are, what each was asked for, and whether a round waits for boards."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa
from alembic import op

from cloud_aug import db

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table, empty, and the columns; rounds of series by FedBuff have waited for nobody."""
    op.create_table(
        "paces",
        sa.Column("task", db.byte_ordered(63), nullable=False),
        sa.Column("board", sa.String(length=17), nullable=False),
        sa.Column("steps_per_s", sa.Float(), nullable=False),
        sa.Column("bytes_per_s", sa.Float(), nullable=False),
        sa.Column("samples", sa.Integer(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["task"], ["tasks.id"]),
        sa.ForeignKeyConstraint(["board"], ["boards.id"]),
        sa.PrimaryKeyConstraint("task", "board"),
    )
    for name in ("samples", "steps"):
        op.add_column("invitations", sa.Column(name, sa.Integer(), nullable=True))
    for name in ("started_at", "expected_s"):
        op.add_column("invitations", sa.Column(name, sa.Float(), nullable=True))
    op.add_column("rounds", sa.Column("within_s", sa.Float(), nullable=True))
    op.add_column("rounds", sa.Column("buffered", sa.Boolean(), nullable=False, server_default=sa.false()))
    _mark_buffered(op.get_bind())


def _mark_buffered(connection: sa.Connection) -> None:
    series = sa.table("series", sa.column("id"), sa.column("document"))
    rounds = sa.table("rounds", sa.column("series"), sa.column("buffered"))
    for row in connection.execute(sa.select(series)).all():
        if msgspec.json.decode(bytes(row.document))["plan"]["algorithm"] == "fedbuff":
            connection.execute(rounds.update().where(rounds.c.series == row.id).values(buffered=sa.true()))
