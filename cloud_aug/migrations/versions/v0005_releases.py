"""Version 5: releases, what became of them on each board, groups of boards, and the version a board runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from cloud_aug import db

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables, empty; boards tell their version the next time that they ask for access."""
    op.add_column("boards", sa.Column("edgectl", sa.String(length=32), nullable=True))
    op.create_table(
        "board_groups",
        sa.Column("board", sa.String(length=17), nullable=False),
        sa.Column("name", db.byte_ordered(63), nullable=False),
        sa.ForeignKeyConstraint(["board"], ["boards.id"]),
        sa.PrimaryKeyConstraint("board", "name"),
    )
    op.create_table(
        "held_bases",
        sa.Column("task", db.byte_ordered(63), nullable=False),
        sa.Column("base_version", sa.Integer(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(["task"], ["tasks.id"]),
        sa.PrimaryKeyConstraint("task", "base_version"),
    )
    _create_releases()
    _create_release_boards()


def _create_releases() -> None:
    op.create_table(
        "releases",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("task", db.byte_ordered(63), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("base_version", sa.Integer(), nullable=True),
        sa.Column("counter", sa.Integer(), nullable=True),
        sa.Column("revert_counter", sa.Integer(), nullable=True),
        sa.Column("wave", sa.Integer(), nullable=False),
        sa.Column("wave_since", sa.Float(), nullable=True),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=True),
        sa.Column("ended_at", sa.Float(), nullable=True),
        sa.CheckConstraint(
            "state IN ('draft', 'running', 'paused', 'done', 'failed', 'aborted')", name="releases_state"
        ),
        sa.ForeignKeyConstraint(["task"], ["tasks.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("releases_of_task", "releases", ["task", "counter"], unique=False)


def _create_release_boards() -> None:
    op.create_table(
        "release_boards",
        sa.Column("release", sa.String(length=16), nullable=False),
        sa.Column("board", sa.String(length=17), nullable=False),
        sa.Column("wave", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("challenge", sa.String(length=32), nullable=False),
        sa.Column("offered_at", sa.Float(), nullable=True),
        sa.Column("told_at", sa.Float(), nullable=True),
        sa.Column("outcome", sa.LargeBinary(), nullable=True),
        sa.CheckConstraint(
            "state IN ('waiting', 'offered', 'committed', 'failed', 'reverted')", name="release_boards_state"
        ),
        sa.ForeignKeyConstraint(["board"], ["boards.id"]),
        sa.ForeignKeyConstraint(["release"], ["releases.id"]),
        sa.PrimaryKeyConstraint("release", "board"),
    )
    op.create_index("release_boards_of_wave", "release_boards", ["release", "wave", "state"], unique=False)
    op.create_index("release_boards_of_board", "release_boards", ["board"], unique=False)
