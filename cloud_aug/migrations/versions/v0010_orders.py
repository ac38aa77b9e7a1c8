"""Version 10: a shorter way to a round's order, and what each board was sent."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; rounds that there are have whole orders only."""
    op.add_column("rounds", sa.Column("short_blob", sa.String(length=64), nullable=True))
    op.add_column("rounds", sa.Column("short_bytes", sa.Integer(), nullable=True))
    op.add_column("invitations", sa.Column("down_bytes", sa.Integer(), nullable=True))
