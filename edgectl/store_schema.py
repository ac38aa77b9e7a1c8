"""Open the board's database file: connection, errors in our words, and migrations from version 1 on.

A migration runs in one transaction, after a copy of the file was put beside it. Version N of the schema is
`MIGRATIONS[:N]`; what was once released is never edited, only followed by another step.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgewire.errors import Busy, Conflict, CorruptFile, DiskFull, EdgeError, ReadOnly

BUSY_TIMEOUT_S = 10.0

_VERSION_1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE sample (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- AUTOINCREMENT: the id of an expired sample is never given to another
    task TEXT NOT NULL,
    digest TEXT NOT NULL,                  -- of values and label, as edgewire.samples computes it
    kind TEXT NOT NULL,                    -- dtype and shape, e.g. float32[8, 8]
    x BLOB NOT NULL,                       -- the values, C order, little endian
    label INTEGER NOT NULL,                -- index into the task's labels when it was added
    label_name TEXT NOT NULL,
    group_name TEXT NOT NULL,              -- recording or session, '' if unknown
    time REAL,                             -- seconds since 1970, NULL if unknown
    added_at REAL NOT NULL,
    shared_at REAL,
    shared_until REAL,
    UNIQUE (task, digest)
);

CREATE TABLE outbox (
    upload_id TEXT PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('report', 'contribution')),
    task TEXT NOT NULL,
    params TEXT NOT NULL,                  -- JSON object
    payload BLOB,                          -- NULL once it is settled
    queued_at REAL NOT NULL,
    settled_at REAL,
    refusal TEXT                           -- why the cloud refused it for good; NULL if it was sent
);
CREATE INDEX outbox_waiting ON outbox (queued_at) WHERE settled_at IS NULL;

CREATE TABLE run (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    task TEXT NOT NULL,
    kind TEXT NOT NULL,
    started_at REAL NOT NULL,
    ended_at REAL,                         -- NULL: running, or interrupted
    outcome TEXT,
    record TEXT                            -- JSON object
);
CREATE INDEX run_by_task ON run (task, id);

CREATE TABLE answer (                      -- the ε ledger: every randomized answer, given once and then repeated
    task TEXT NOT NULL,
    question TEXT NOT NULL,
    answer INTEGER NOT NULL,
    epsilon REAL NOT NULL,
    answered_at REAL NOT NULL,
    PRIMARY KEY (task, question)
) WITHOUT ROWID;
"""

_VERSION_2 = """
CREATE TABLE contributed (                 -- what was shared stays known as this board's own when the sample is deleted
    task TEXT NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (task, digest)
) WITHOUT ROWID;
INSERT INTO contributed SELECT task, digest FROM sample WHERE shared_at IS NOT NULL;
"""

_VERSION_3 = """
ALTER TABLE sample ADD COLUMN scored_at REAL;  -- when it was predicted before being trained on; NULL: not yet
UPDATE sample SET scored_at = 0;               -- some model may have been trained on what is there: too late for these

CREATE TABLE score (                       -- numbers only: they outlive the sample, and do not name it
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- in the order of prediction
    task TEXT NOT NULL,
    recording INTEGER NOT NULL,            -- equal numbers: samples of one recording
    label INTEGER NOT NULL,                -- index of the true label
    version INTEGER,                       -- of the personal model that served, NULL: the base served
    right INTEGER NOT NULL,
    probability REAL NOT NULL,             -- given to the true label
    base_version INTEGER,                  -- NULL: the base was not at hand
    base_right INTEGER,
    base_probability REAL,
    scored_at REAL NOT NULL
);
CREATE INDEX score_by_task ON score (task, id);
"""

_VERSION_4 = """
ALTER TABLE outbox RENAME TO former_outbox;
DROP INDEX outbox_waiting;
CREATE TABLE outbox (
    upload_id TEXT PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('report', 'contribution', 'withdrawal')),
    task TEXT NOT NULL,
    params TEXT NOT NULL,                  -- JSON object
    payload BLOB,                          -- NULL once it is settled
    queued_at REAL NOT NULL,
    settled_at REAL,
    refusal TEXT                           -- why the cloud refused it for good; NULL if it was sent
);
INSERT INTO outbox SELECT * FROM former_outbox ORDER BY rowid;
DROP TABLE former_outbox;
CREATE INDEX outbox_waiting ON outbox (queued_at) WHERE settled_at IS NULL;
"""

_VERSION_5 = """
CREATE TABLE told_update (                 -- the ε ledger of federated rounds: what was, or may have been, sent
    upload_id TEXT PRIMARY KEY,            -- sent twice, it tells nothing more
    task TEXT NOT NULL,
    series TEXT NOT NULL,
    number INTEGER NOT NULL,
    noise REAL NOT NULL,                   -- multiplier of the board's own noise, 0: it went without
    told_at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX told_update_by_task ON told_update (task);
"""

MIGRATIONS: tuple[str, ...] = (_VERSION_1, _VERSION_2, _VERSION_3, _VERSION_4, _VERSION_5)


def connect(path: Path, *, migrations: Sequence[str] = MIGRATIONS) -> sqlite3.Connection:
    """Open or create the database and bring it to the newest schema.

    Raises CorruptFile, ReadOnly, DiskFull, Busy, or Conflict if a newer edgectl wrote it.
    """
    with translated(path):
        existed = path.exists() and path.stat().st_size > 0
        if not existed:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # private before the first byte
        connection, shared = _opened(path)
        try:
            if shared:
                _migrate(connection, path, migrations, existed=existed)
            elif _version(connection) != len(migrations):
                raise DiskFull(f"no room to bring {path} up to date", hint="free some space and run this again")
        except BaseException:
            connection.close()
            raise
        return connection


def _opened(path: Path, *, shared: bool = True) -> tuple[sqlite3.Connection, bool]:
    """A connection, and whether others may have one at the same time: a full disk has no room for the file that they
    share, and what is there must be readable without it."""
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    try:
        if not shared:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # a power cut after "added" must not lose a sample
        connection.execute("PRAGMA foreign_keys = ON")
        _version(connection)  # SQLite looks into the file only now
    except BaseException as error:
        connection.close()
        if shared and isinstance(error, sqlite3.Error) and isinstance(from_sqlite(error, path), DiskFull):
            return _opened(path, shared=False)
        raise
    return connection, shared


def _migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[str], *, existed: bool) -> None:
    if _version(connection) == len(migrations):
        return
    with transaction(connection):  # another process may have migrated while this one waited: look again inside
        version = _version(connection)
        if version > len(migrations):
            raise Conflict(
                f"{path} has schema version {version}, this edgectl knows up to {len(migrations)}",
                hint="install the edgectl that wrote it, or restore the backup that lies beside it",
            )
        if version == 0 and _tables(connection):
            raise CorruptFile(f"{path} is an SQLite file of something else", hint="move it away")
        if existed and version:
            _back_up(path, version)
        for number, script in enumerate(migrations[version:], start=version + 1):
            _run_script(connection, script)
            connection.execute(f"PRAGMA user_version = {number}")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _tables(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])


def _back_up(path: Path, version: int) -> None:
    """Copy the database as it is before a migration; a second connection reads what was committed, WAL included."""
    target = path.with_name(f"{path.name}.v{version}.bak")
    source = sqlite3.connect(path)
    copy = sqlite3.connect(target)
    try:
        source.backup(copy)
    except BaseException:  # half a backup would fill the disk for good
        copy.close()
        for left in (target, target.with_name(f"{target.name}-journal")):
            left.unlink(missing_ok=True)
        raise
    finally:
        copy.close()
        source.close()
    target.chmod(0o600)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def _run_script(connection: sqlite3.Connection, script: str) -> None:
    """Run statements one by one: `executescript` would commit the transaction that must hold them together."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            connection.execute(statement)
            statement = ""


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of the block or nothing. Inside another transaction it is part of that one."""
    if connection.in_transaction:
        yield
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # a full disk may have rolled back already
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """Questions of the block are answered from one state, and neither wait for a writer nor keep one waiting."""
    if connection.in_transaction:
        yield
        return
    connection.execute("BEGIN")
    try:
        yield
    finally:
        with contextlib.suppress(sqlite3.Error):  # nothing was written, and what failed inside is what matters
            connection.execute("COMMIT")


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """SQLite's errors as ours: each asks something else of the user. None of them loses what was committed."""
    try:
        yield
    except sqlite3.Error as error:
        raise from_sqlite(error, path) from error


def from_sqlite(error: sqlite3.Error, path: Path) -> EdgeError:
    """Told apart by SQLite's texts: Python 3.10 does not pass on its error codes."""
    text = str(error)
    if "full" in text:
        return DiskFull(f"the disk is full, {path} was left as it was", hint="free some space and run this again")
    if "readonly" in text or ("unable to open" in text and not os.access(path.parent, os.W_OK)):
        return ReadOnly(f"{path} cannot be written", hint="remount its file system read-write or check its owner")
    if "locked" in text or "busy" in text:
        return Busy(f"another process is writing to {path}", hint="wait for it to end, then run this again")
    if "not a database" in text or "malformed" in text or "corrupt" in text:
        return CorruptFile(
            f"{path} is damaged ({text})",
            hint=f"move it away and start empty, or recover what is readable: sqlite3 {path} .recover",
        )
    if "disk I/O" in text:  # SQLite says so, too, when the kernel refuses to let a file grow
        return _from_failed_write(path)
    return EdgeError(f"the database {path} failed: {text}", hint="run `edgectl doctor`")


def _from_failed_write(path: Path) -> EdgeError:
    try:
        with path.with_name(path.name + ".probe").open("wb") as probe:
            probe.write(bytes(1 << 16))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return DiskFull(
                f"no room to write {path}, it was left as it was", hint="free some space and run this again"
            )
        if error.errno == errno.EROFS:
            return ReadOnly(f"{path} cannot be written", hint="remount its file system read-write")
    finally:
        with contextlib.suppress(OSError):
            path.with_name(path.name + ".probe").unlink()
    return EdgeError(
        f"the disk failed while reading or writing {path}", hint="check the kernel log; the card may be dying"
    )
