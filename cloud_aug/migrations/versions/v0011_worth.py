"""Version 11: what an update was worth to its round, and what it cost the board that made it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns, empty: of updates that there are nobody knows."""
    for name in ("worth", "energy_j"):
        op.add_column("updates", sa.Column(name, sa.Float(), nullable=True))
