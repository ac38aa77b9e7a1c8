"""Version 8: packs are encrypted, each under a key that follows from a secret of its task."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from cloud_aug import db

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables. Packs that are there stay as they are until the next build, which encrypts them."""
    op.create_table(
        "pack_secrets",
        sa.Column("task", db.byte_ordered(63), nullable=False),
        sa.Column("generation", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("made_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("task", "generation"),
    )
    op.create_table(
        "packs",
        sa.Column("ciphertext", sa.String(length=64), nullable=False),
        sa.Column("task", db.byte_ordered(63), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["task", "generation"], ["pack_secrets.task", "pack_secrets.generation"]),
        sa.PrimaryKeyConstraint("ciphertext", "task"),
    )
    op.create_index("packs_by_digest", "packs", ["digest"], unique=False)
