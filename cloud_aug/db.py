"""The cloud's tables. SQLAlchemy Core, nothing that only one database knows: `sqlite.py` and `postgres.py` have that.
Times are seconds since 1970."""

from __future__ import annotations

import sqlalchemy as sa

from cloud_aug import postgres
from cloud_aug.db_rounds import invitations as invitations
from cloud_aug.db_rounds import paces as paces
from cloud_aug.db_rounds import presences as presences
from cloud_aug.db_rounds import rounds as rounds
from cloud_aug.db_rounds import series as series
from cloud_aug.db_rounds import touched as touched
from cloud_aug.db_rounds import updates as updates
from cloud_aug.metadata import byte_ordered as byte_ordered
from cloud_aug.metadata import metadata as metadata
from cloud_aug.metadata import row_id as row_id

SCHEMA = "0011"


service = sa.Table(
    "service",
    metadata,
    sa.Column("name", sa.String(32), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

trust_statements = sa.Table(
    "trust_statements",
    metadata,
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("envelope", sa.LargeBinary, nullable=False),
)

tasks = sa.Table(
    "tasks",
    metadata,
    sa.Column("id", byte_ordered(63), primary_key=True),
    sa.Column("document", sa.LargeBinary, nullable=False),
    sa.Column("published_at", sa.Float, nullable=False),
)

boards = sa.Table(
    "boards",
    metadata,
    sa.Column("id", sa.String(17), primary_key=True),
    sa.Column("name", sa.String(63), nullable=False),
    sa.Column("profile", sa.String(63), nullable=False),
    sa.Column("public_key", sa.String(44), nullable=False, unique=True),
    sa.Column("enrolled_at", sa.Float, nullable=False),
    sa.Column("last_seen_at", sa.Float),
    sa.Column("revoked_at", sa.Float),
    sa.Column("edgectl", sa.String(32)),  # the version it told when it last asked for access
)

board_groups = sa.Table(
    "board_groups",
    metadata,
    sa.Column("board", sa.ForeignKey("boards.id"), primary_key=True),
    sa.Column("name", byte_ordered(63), primary_key=True),
)

grants = sa.Table(
    "grants",
    metadata,
    sa.Column("board", sa.ForeignKey("boards.id"), primary_key=True),
    sa.Column("task", sa.ForeignKey("tasks.id"), primary_key=True),
    sa.Column("granted_at", sa.Float, nullable=False),
)

enrolment_tokens = sa.Table(
    "enrolment_tokens",
    metadata,
    sa.Column("hash", sa.String(64), primary_key=True),
    sa.Column("tasks", sa.Text, nullable=False),  # space-separated
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("expires_at", sa.Float, nullable=False),
    sa.Column("used_by", sa.ForeignKey("boards.id")),
    sa.Column("used_at", sa.Float),
)

access_tokens = sa.Table(
    "access_tokens",
    metadata,
    sa.Column("hash", sa.String(64), primary_key=True),
    sa.Column("board", sa.ForeignKey("boards.id"), nullable=False),
    sa.Column("tasks", sa.Text, nullable=False),  # space-separated
    sa.Column("expires_at", sa.Float, nullable=False, index=True),
)

nonces = sa.Table(
    "nonces",
    metadata,
    sa.Column("board", sa.ForeignKey("boards.id"), primary_key=True),
    sa.Column("nonce", sa.String(32), primary_key=True),
    sa.Column("expires_at", sa.Float, nullable=False, index=True),
)

administrators = sa.Table(
    "administrators",
    metadata,
    sa.Column("hash", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(63), nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("expires_at", sa.Float, nullable=False),
)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("id", row_id, primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("actor", sa.String(80), nullable=False),
    sa.Column("action", sa.String(40), nullable=False),
    sa.Column("subject", sa.String(200), nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Index("audit_of_subject", "subject", "id"),
    sa.Index("audit_of_actor", "actor", "id"),
)

# Who may log in to the console. One that was removed stays as a row, so that no restore brings it back.
accounts = sa.Table(
    "accounts",
    metadata,
    sa.Column("name", sa.String(63), primary_key=True),
    sa.Column("role", sa.String(10), nullable=False),
    sa.Column("password", sa.String(200), nullable=False),  # as passwords.py writes it
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("logged_in_at", sa.Float),
    sa.Column("removed_at", sa.Float),
    sa.CheckConstraint("role IN ('viewer', 'operator', 'admin')", name="accounts_role"),
)

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("hash", sa.String(64), primary_key=True),
    sa.Column("account", sa.ForeignKey("accounts.name"), nullable=False, index=True),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("seen_at", sa.Float, nullable=False),
)

# Passwords that did not fit, by the digest of the name or address that they came with.
guesses = sa.Table(
    "guesses",
    metadata,
    sa.Column("who", sa.String(64), primary_key=True),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("last_at", sa.Float, nullable=False, index=True),
    sa.Column("blocked_until", sa.Float, nullable=False),
)

# Long work of whichever process: what it does now, and how it ended.
jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", row_id, primary_key=True),
    sa.Column("kind", sa.String(20), nullable=False),
    sa.Column("task", byte_ordered(63), nullable=False),
    sa.Column("stage", sa.String(40), nullable=False),
    sa.Column("done", sa.BigInteger, nullable=False),
    sa.Column("total", sa.BigInteger, nullable=False),
    sa.Column("started_at", sa.Float, nullable=False),
    sa.Column("told_at", sa.Float, nullable=False),
    sa.Column("ended_at", sa.Float),
    sa.Column("outcome", sa.String(10)),  # done, failed
    sa.Column("detail", sa.String(300), nullable=False),
)

contributors = sa.Table(
    "contributors",
    metadata,
    sa.Column("task", sa.ForeignKey("tasks.id"), primary_key=True),
    sa.Column("contributor", byte_ordered(200), primary_key=True),
    sa.Column("purposes", sa.Text, nullable=False),  # space-separated
    sa.Column("consent_until", sa.Float, nullable=False),
    sa.Column("consented_at", sa.Float, nullable=False),
    sa.Column("withdrawals", sa.Integer, nullable=False, server_default="0"),  # how often; never falls
)

# Samples of one contributor that came in together: a row each would cost as much again as the samples themselves.
batches = sa.Table(
    "batches",
    metadata,
    sa.Column("id", row_id, primary_key=True),
    sa.Column("task", byte_ordered(63), nullable=False),
    sa.Column("contributor", byte_ordered(200), nullable=False),
    sa.Column("after", sa.Integer, nullable=False),  # how often the contributor had withdrawn before
    sa.Column("status", sa.String(10), nullable=False),
    sa.Column("rows", sa.Integer, nullable=False),
    sa.Column("added_at", sa.Float, nullable=False),
    sa.Column("digests", sa.LargeBinary, nullable=False),  # 32 bytes each
    sa.Column("labels", sa.LargeBinary, nullable=False),  # int16
    sa.Column("recordings", sa.LargeBinary),  # JSON list of names, NULL: none is known
    sa.Column("times", sa.LargeBinary),  # float64, NULL: none is known
    sa.Column("payload", sa.LargeBinary, nullable=False),  # values, C order; last, so that the rest is read without it
    sa.ForeignKeyConstraint(["task", "contributor"], ["contributors.task", "contributors.contributor"]),
    sa.CheckConstraint("status IN ('accepted', 'quarantine', 'rejected')", name="batches_status"),
    sa.Index("batches_of_contributor", "task", "contributor"),
    sqlite_autoincrement=True,  # an index may still name the id of a deleted batch: it must not become another's
)

uploads = sa.Table(
    "uploads",
    metadata,
    sa.Column("board", sa.ForeignKey("boards.id"), primary_key=True),
    sa.Column("upload_id", sa.String(32), primary_key=True),
    sa.Column("task", sa.ForeignKey("tasks.id"), nullable=False),
    sa.Column("kind", sa.String(12), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("items", sa.Integer, nullable=False),
    sa.Column("accepted", sa.Integer, nullable=False),
    sa.Column("received_at", sa.Float, nullable=False),
)

reports = sa.Table(
    "reports",
    metadata,
    sa.Column("board", sa.String(17), primary_key=True),
    sa.Column("upload_id", sa.String(32), primary_key=True),
    sa.Column("task", sa.ForeignKey("tasks.id"), nullable=False),
    sa.Column("document", sa.LargeBinary, nullable=False),
    sa.ForeignKeyConstraint(["board", "upload_id"], ["uploads.board", "uploads.upload_id"]),
)

telemetry = sa.Table(
    "telemetry",
    metadata,
    sa.Column("id", row_id, primary_key=True),  # in the order of arrival: boards' clocks may be wrong
    sa.Column("board", sa.ForeignKey("boards.id"), nullable=False),
    sa.Column("upload_id", sa.String(32), nullable=False),
    sa.Column("document", sa.LargeBinary, nullable=False),  # Telemetry as JSON
    sa.Column("received_at", sa.Float, nullable=False),
    sa.UniqueConstraint("board", "upload_id"),
)

# The last of each board, as columns that a list can be sorted and filtered by.
board_states = sa.Table(
    "board_states",
    metadata,
    sa.Column("board", sa.ForeignKey("boards.id"), primary_key=True),
    sa.Column("told_at", sa.Float),  # of the telemetry
    sa.Column("temperature_c", sa.Float),
    sa.Column("throttled", sa.Boolean),
    sa.Column("power_w", sa.Float),
    sa.Column("power_quality", sa.String(10)),
    sa.Column("reported_at", sa.Float),  # of the report
    sa.Column("task", byte_ordered(63)),
    sa.Column("base", sa.String(64)),  # digest
    sa.Column("shipped", sa.String(32)),
    sa.Column("gain", sa.Float),
)

bases = sa.Table(
    "bases",
    metadata,
    sa.Column("task", sa.ForeignKey("tasks.id"), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("made_from", sa.String(64), nullable=False),  # digest of pool, seed and settings
    sa.Column("document", sa.LargeBinary, nullable=False),  # BaseRecord as JSON
    sa.Column("trained_at", sa.Float, nullable=False),
)

publications = sa.Table(
    "publications",
    metadata,
    sa.Column("task", sa.ForeignKey("tasks.id"), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("base_version", sa.Integer, nullable=False),
    sa.Column("directory", sa.String(64), nullable=False),
    sa.Column("search", sa.String(64), nullable=False),
    sa.Column("document", sa.LargeBinary, nullable=False),  # Publication as JSON
    sa.Column("published_at", sa.Float, nullable=False),
    sa.ForeignKeyConstraint(["task", "base_version"], ["bases.task", "bases.version"]),
)

published_blobs = sa.Table(
    "published_blobs",
    metadata,
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("task", sa.ForeignKey("tasks.id"), primary_key=True),
)

pack_contributors = sa.Table(
    "pack_contributors",
    metadata,
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("task", byte_ordered(63), primary_key=True),
    sa.Column("contributor", byte_ordered(200), primary_key=True),
    sa.Column("after", sa.Integer, nullable=False, server_default="0"),  # as of the batches in it
    sa.ForeignKeyConstraint(["task", "contributor"], ["contributors.task", "contributors.contributor"]),
)

# From these, and from what is in it, the key of every pack of a task follows.
pack_secrets = sa.Table(
    "pack_secrets",
    metadata,
    sa.Column("task", byte_ordered(63), primary_key=True),
    sa.Column("generation", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("secret", sa.LargeBinary, nullable=False),
    sa.Column("made_at", sa.Float, nullable=False),
)

packs = sa.Table(
    "packs",
    metadata,
    sa.Column("ciphertext", sa.String(64), primary_key=True),  # digest of the encrypted bytes: the blob's name
    sa.Column("task", byte_ordered(63), primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False),  # of the samples' bytes: the pack's name everywhere else
    sa.Column("generation", sa.Integer, nullable=False),
    sa.ForeignKeyConstraint(["task", "generation"], ["pack_secrets.task", "pack_secrets.generation"]),
    sa.Index("packs_by_digest", "digest"),
)

# Queries that were answered a second time by exact search, for a live figure of what approximate search misses.
replays = sa.Table(
    "replays",
    metadata,
    sa.Column("task", sa.ForeignKey("tasks.id"), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),  # of the publication
    sa.Column("queries", sa.Integer, nullable=False),
    sa.Column("wanted", sa.Integer, nullable=False),  # neighbours that exact search found
    sa.Column("found", sa.Integer, nullable=False),  # of these, by the index
)

manifests = sa.Table(
    "manifests",
    metadata,
    sa.Column("task", sa.ForeignKey("tasks.id"), primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("body_digest", sa.String(64), nullable=False),
    sa.Column("key_id", sa.String(16), nullable=False),
    sa.Column("sealed_at", sa.Float, nullable=False),
    sa.Column("envelope", sa.LargeBinary, nullable=False),
)

# Bases that the manifest does not name: boards get them by a release, wave by wave.
held_bases = sa.Table(
    "held_bases",
    metadata,
    sa.Column("task", sa.ForeignKey("tasks.id"), primary_key=True),
    sa.Column("base_version", sa.Integer, primary_key=True, autoincrement=False),
)

releases = sa.Table(
    "releases",
    metadata,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("task", sa.ForeignKey("tasks.id"), nullable=False),
    sa.Column("state", sa.String(10), nullable=False),
    sa.Column("document", sa.LargeBinary, nullable=False),  # Plan as JSON
    sa.Column("base_version", sa.Integer),  # NULL: a policy
    sa.Column("counter", sa.Integer),  # of its orders; NULL: not started
    sa.Column("revert_counter", sa.Integer),  # of the orders to go back; NULL: nobody has to
    sa.Column("wave", sa.Integer, nullable=False),
    sa.Column("wave_since", sa.Float),
    sa.Column("revision", sa.Integer, nullable=False),  # rises with every change: who saw an older one must look again
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("started_at", sa.Float),
    sa.Column("ended_at", sa.Float),
    sa.CheckConstraint("state IN ('draft', 'running', 'paused', 'done', 'failed', 'aborted')", name="releases_state"),
    sa.Index("releases_of_task", "task", "counter"),
)

release_boards = sa.Table(
    "release_boards",
    metadata,
    sa.Column("release", sa.ForeignKey("releases.id"), primary_key=True),
    sa.Column("board", sa.ForeignKey("boards.id"), primary_key=True),
    sa.Column("wave", sa.Integer, nullable=False),
    sa.Column("state", sa.String(10), nullable=False),
    sa.Column("challenge", sa.String(32), nullable=False),
    sa.Column("offered_at", sa.Float),
    sa.Column("told_at", sa.Float),
    sa.Column("outcome", sa.LargeBinary),  # the last Outcome as JSON
    sa.CheckConstraint(
        "state IN ('waiting', 'offered', 'committed', 'failed', 'reverted')", name="release_boards_state"
    ),
    sa.Index("release_boards_of_wave", "release", "wave", "state"),
    sa.Index("release_boards_of_board", "board"),
)


# Who may come in, what was done, and what opens packs: a restore leaves these as they are, and adds what they lack.
# They refer to nothing but each other.
KEPT = frozenset(
    {
        accounts,
        administrators,
        audit,
        board_groups,
        boards,
        enrolment_tokens,
        jobs,
        nonces,
        pack_secrets,
        trust_statements,
    }
)


def renumber(connection: sa.Connection) -> None:
    """Let numbers that rows get go on after the highest there is: rows that brought theirs did not count."""
    for table in metadata.sorted_tables if connection.dialect.name == "postgresql" else ():
        if table.autoincrement_column is not None:
            postgres.renumber(connection, table)


def epoch(connection: sa.Connection) -> int:
    """Rises when the service is restored from a backup, so that boards take what they would call outdated."""
    value = connection.execute(sa.select(service.c.value).where(service.c.name == "epoch")).scalar()
    return int(value or 1)
