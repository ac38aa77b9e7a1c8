"""Version 10: a shorter way to a round's order, orders of a board's own rows, and what each board was sent."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns and the table, empty; rounds that there are have whole orders only."""
    op.add_column("rounds", sa.Column("short_blob", sa.String(length=64), nullable=True))
    op.add_column("rounds", sa.Column("short_bytes", sa.Integer(), nullable=True))
    for name in ("down_bytes", "own_bytes"):
        op.add_column("invitations", sa.Column(name, sa.Integer(), nullable=True))
    for name in ("own_blob", "rows_blob"):
        op.add_column("invitations", sa.Column(name, sa.String(length=64), nullable=True))
    op.create_table(
        "touched",
        sa.Column("series", sa.String(length=16), nullable=False),
        sa.Column("board", sa.String(length=17), nullable=False),
        sa.Column("blob", sa.String(length=64), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["series"], ["series.id"]),
        sa.ForeignKeyConstraint(["board"], ["boards.id"]),
        sa.PrimaryKeyConstraint("series", "board", "blob"),
    )
