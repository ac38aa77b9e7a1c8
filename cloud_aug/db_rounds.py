"""The tables of federated rounds (`cloud_aug.rounds`); `db.py` has all others, and hands these out with them."""

from __future__ import annotations

import sqlalchemy as sa

from cloud_aug.metadata import metadata

# A series of federated rounds of one task (cloud_aug.rounds).
series = sa.Table(
    "series",
    metadata,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("task", sa.ForeignKey("tasks.id"), nullable=False),
    sa.Column("document", sa.LargeBinary, nullable=False),  # rounds.plan.Series as JSON
    sa.Column("state", sa.String(10), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("changed_at", sa.Float, nullable=False),
)

rounds = sa.Table(
    "rounds",
    metadata,
    sa.Column("series", sa.ForeignKey("series.id"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),  # from 1
    sa.Column("state", sa.String(10), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("begun_at", sa.Float, nullable=False),
    sa.Column("deadline_at", sa.Float, nullable=False),  # of its state
    sa.Column("closed_at", sa.Float),
    sa.Column("entropy", sa.LargeBinary, nullable=False),  # of the server's noise: drawn once, so that it can be redone
    sa.Column("server", sa.String(64), nullable=False),  # digest: weights and state before it
    sa.Column("order_blob", sa.String(64), nullable=False),  # digest: what its boards are sent
    sa.Column("order_bytes", sa.Integer, nullable=False),
    sa.Column("short_blob", sa.String(64)),  # digest: of what the order can be made (rounds.orders); NULL: nothing
    sa.Column("short_bytes", sa.Integer),
    sa.Column("result", sa.String(64)),  # digest: weights and state after it
    sa.Column("within_s", sa.Float),  # in which most of its boards should be done; NULL: nobody could tell
    # whether nobody is waited for; decided when it begins, so that whoever follows a killed service does the same
    sa.Column("buffered", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("late", sa.Integer, nullable=False, server_default="0"),
    sa.Column("refused", sa.Integer, nullable=False, server_default="0"),
)

invitations = sa.Table(
    "invitations",
    metadata,
    sa.Column("series", sa.String(16), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("board", sa.ForeignKey("boards.id"), primary_key=True),
    sa.Column("invited_at", sa.Float, nullable=False),
    sa.Column("heard_at", sa.Float),  # its last sign of life; NULL: it has not fetched the invitation yet
    sa.Column("gave_up", sa.Boolean, nullable=False),
    sa.Column("started_at", sa.Float),  # when it first fetched the invitation
    sa.Column("samples", sa.Integer),  # that it said it had; NULL: it was drawn unasked
    sa.Column("steps", sa.Integer),  # local steps that it was ordered at most; NULL: no limit
    sa.Column("expected_s", sa.Float),  # from started_at to its update; NULL: nobody could tell
    sa.Column("down_bytes", sa.Integer),  # of the order, the way that it was told of; NULL: it has not asked yet
    sa.Column("own_blob", sa.String(64)),  # digest: the order with its own rows of tables only; NULL: it has all
    sa.Column("own_bytes", sa.Integer),
    sa.Column("rows_blob", sa.String(64)),  # digest: which rows these are
    sa.ForeignKeyConstraint(["series", "number"], ["rounds.series", "rounds.number"]),
)

# Boards that said they could take part.
presences = sa.Table(
    "presences",
    metadata,
    sa.Column("series", sa.ForeignKey("series.id"), primary_key=True),
    sa.Column("board", sa.ForeignKey("boards.id"), primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("samples", sa.Integer, nullable=False),
    sa.Column("network", sa.String(10), nullable=False),
    sa.Column("temperature_c", sa.Float),
)

# A row only once the update's blob is on disk; what has a row is acknowledged.
updates = sa.Table(
    "updates",
    metadata,
    sa.Column("board", sa.ForeignKey("boards.id"), primary_key=True),
    sa.Column("upload_id", sa.String(32), primary_key=True),
    sa.Column("series", sa.String(16), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),  # of the round whose weights it started from
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("samples", sa.Integer, nullable=False),
    sa.Column("score", sa.Float),  # of the weights that the board was sent, on its own samples
    sa.Column("received_at", sa.Float, nullable=False),
    sa.Column("counted_in", sa.Integer),  # number of the round in which it counts
    sa.Column("dropped", sa.String(20), nullable=False),  # why it never counts; '': it does, or may
    sa.Column("kept", sa.Boolean, nullable=False),  # whether its blob still is
    sa.Column("worth", sa.Float),  # to its round (leave-one-out); NULL: its algorithm does not ask, or it never counted
    sa.Column("energy_j", sa.Float),  # that the board's turn took, as it said; NULL: it did not
    sa.ForeignKeyConstraint(["series", "number"], ["rounds.series", "rounds.number"]),
    sa.UniqueConstraint("series", "number", "board"),
    sa.Index("updates_counted", "series", "counted_in"),
)

# Which rows of tables boards touch, as they told (rounds.rows).
touched = sa.Table(
    "touched",
    metadata,
    sa.Column("series", sa.ForeignKey("series.id"), primary_key=True),
    sa.Column("board", sa.ForeignKey("boards.id"), primary_key=True),
    sa.Column("blob", sa.String(64), primary_key=True),  # digest
    sa.Column("at", sa.Float, nullable=False),
)

# How fast boards are, from what the service saw of their turns in any series (rounds.pacing).
paces = sa.Table(
    "paces",
    metadata,
    sa.Column("task", sa.ForeignKey("tasks.id"), primary_key=True),
    sa.Column("board", sa.ForeignKey("boards.id"), primary_key=True),
    sa.Column("steps_per_s", sa.Float, nullable=False),
    sa.Column("bytes_per_s", sa.Float, nullable=False),
    sa.Column("samples", sa.Integer, nullable=False),  # that it had in its last turn
    sa.Column("at", sa.Float, nullable=False),  # of that turn
)
