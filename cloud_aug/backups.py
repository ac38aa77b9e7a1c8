"""A copy of a cloud as it is at one moment, and the way back.

A backup is a folder: the database as an SQLite file (whatever the cloud stands on, so that it may come back on
something else), blobs, keys and settings, and last `backup.json`, which says that it is whole. The offline keys are not
in it: they are on their own medium.

Restoring puts the pool and the publications back to what they were. Who may come in stays as it is *now*: tables marked
`KEPT` are not touched, so that a revoked board stays revoked and a spent token spent. So does what contributors said
last: the journal of withdrawals is applied in the same transaction, so that what was deleted since stays deleted, a
consent counts as it was given last, and whose samples are in which pack is still known of packs that the backup does
not have. A release that was called back stays so. The epoch rises, so that boards take what they would call outdated. A
restore that is killed has changed nothing.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator, Set
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from cloud_aug import audit, changes, db, garbage, journal, keys, migrations, settings, tasks, withdrawals, writes
from cloud_aug.blobs import Blobs
from cloud_aug.cloud import Cloud, open_cloud
from cloud_aug.database import Database
from cloud_aug.folders import made_whole
from cloud_aug.releases import steering
from cloud_aug.rounds import series as all_series
from edgewire.decoding import decode, encode
from edgewire.errors import Conflict, CorruptFile, NotFound
from edgewire.files import digest_of_file, write_atomic

Progress = Callable[[str, int, int], None]

DATABASE, BLOBS, KEYS, WHOLE = "cloud.sqlite3", "blobs", "keys", "backup.json"
ROWS = 500
_OF_BOARDS = (db.grants, db.board_groups)


@dataclass(frozen=True)
class Backup:
    """made_at: seconds since 1970; database: the digest of its file; blobs: how many, 0 where they were left out."""

    made_at: float
    schema: str
    epoch: int
    database: str
    blobs: int


def back_up(cloud: Cloud, target: Path, *, with_blobs: bool, now: float, on_progress: Progress) -> Backup:
    """Copy everything into a new folder. The service may go on meanwhile. Raises Conflict if the folder exists."""
    with made_whole(target) as part:
        on_progress("database", 0, 1)
        _copy_database(cloud.database, part / DATABASE)
        with _opened(part / DATABASE) as copied:
            named = garbage.in_use(copied, cloud.blobs, since=now - garbage.GRACE_S)
            names = sorted(named & {blob.digest for blob in cloud.blobs.stored()}) if with_blobs else []
            with copied.reading() as connection:
                epoch = db.epoch(connection)
        count = _copy_blobs(cloud, names, part / BLOBS, on_progress)
        _copy_files(cloud, part)
        made = Backup(now, db.SCHEMA, epoch, digest_of_file(part / DATABASE), count)
        write_atomic(part / WHOLE, encode(made), mode=0o600)
    return made


def _copy_blobs(cloud: Cloud, names: list[str], target: Path, on_progress: Progress) -> int:
    """Returns how many; a pack that a build removes meanwhile, because somebody withdrew, is left out."""
    copies, count = Blobs(target), 0
    for done, name in enumerate(names):
        on_progress("blobs", done, len(names))
        with suppress(NotFound):
            if copies.put_file(cloud.blobs.path(name)).digest != name:
                raise CorruptFile(f"blob {name[:12]}… does not match its name", hint="see 'cloud-aug doctor --deep'")
            count += 1
    return count


def _copy_files(cloud: Cloud, target: Path) -> None:
    shutil.copytree(cloud.keys.server, target / KEYS)
    for name in (settings.FILE_NAME, journal.FILE_NAME):
        if (cloud.settings.data / name).is_file():
            shutil.copy2(cloud.settings.data / name, target / name)


def _copy_database(source: Database, file: Path) -> None:
    """A consistent copy as an SQLite file."""
    file.touch(mode=0o600)
    if source.engine.dialect.name == "sqlite":
        with closing(sqlite3.connect(str(source.engine.url.database))) as one, closing(sqlite3.connect(file)) as other:
            one.backup(other)
            other.execute("PRAGMA journal_mode=DELETE")
        return
    with _opened(file) as target, source.reading() as rows, target.writing() as connection:
        db.metadata.create_all(connection)
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES (?)", (db.SCHEMA,))
        for table in db.metadata.sorted_tables:
            _copy_rows(rows, connection, table)


@contextmanager
def _opened(file: Path) -> Iterator[Database]:
    opened = Database(f"sqlite:///{file}")
    try:
        yield opened
    finally:
        opened.close()


def restore(data: Path, source: Path, *, lost: bool = False, now: float, on_progress: Progress) -> Backup:
    """Put a cloud back to a backup; with a service running, too. lost: there is no database any more to keep things of.

    Raises NotFound or CorruptFile for what is no whole backup, Conflict for one of another cloud, Busy while anything
    is built.
    """
    backup = _check(source, on_progress)
    _lay_out(data, source)
    cloud = open_cloud(data)  # brings the journal up to date with the database as it is now
    with cloud.locked("restore", doing="restoring"), garbage.nothing_built(cloud), _newest_schema(data, source) as copy:
        _check_same_cloud(cloud, copy, lost=lost)
        _bring_journal(cloud, source / journal.FILE_NAME)
        files = sorted((source / BLOBS).glob("??/*"))
        for done, file in enumerate(files):
            on_progress("blobs", done, len(files))
            cloud.blobs.put_file(file)
        on_progress("database", 0, 1)
        with copy.reading() as rows, cloud.database.writing() as connection:
            epoch = _epoch(db.epoch(connection), backup.epoch, lost=lost, now=now)
            ended = steering.all_called_back(connection)
            _replace(rows, connection)
            steering.call_back_again(connection, ended, now=now)
            all_series.draw_noise_anew(connection)
            for withdrawal in sorted(journal.read(cloud.journal)):
                if _has_task(connection, withdrawal.task):
                    journal.apply(connection, withdrawal)
            writes.upsert(connection, db.service, {"name": "epoch", "value": str(epoch)})
            changes.note(connection)
            audit.note(connection, at=now, actor=audit.SHELL, action="restore", subject=source.name, epoch=epoch)
        with cloud.database.reading() as connection:
            known = tasks.ids(connection)
        for task in known:
            withdrawals.purge(cloud, task)
    cloud.database.close()
    return backup


def _check(source: Path, on_progress: Progress) -> Backup:
    """Read a backup through. Raises NotFound or CorruptFile."""
    try:
        backup = decode(Backup, (source / WHOLE).read_bytes(), what="backup")
    except FileNotFoundError:
        raise NotFound(f"{source} is no whole backup", hint=f"it has no {WHOLE}: was its making interrupted?") from None
    if digest_of_file(source / DATABASE) != backup.database:
        raise CorruptFile(f"{source / DATABASE} is damaged", hint="take another backup")
    files = sorted((source / BLOBS).glob("??/*"))
    for done, file in enumerate(files):
        on_progress("check", done, len(files))
        if digest_of_file(file) != file.name:
            raise CorruptFile(f"{file} is damaged", hint="take another backup")
    if len(files) < backup.blobs:
        raise CorruptFile(f"{source} lacks {backup.blobs - len(files)} blobs", hint="take another backup")
    return backup


def _lay_out(data: Path, source: Path) -> None:
    """On a new machine: settings and keys as they were. What is there stays."""
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file in (source / settings.FILE_NAME, *sorted((source / KEYS).iterdir())):
        target = data / file.relative_to(source)
        if not target.exists():
            target.parent.mkdir(mode=0o700, exist_ok=True)
            write_atomic(target, file.read_bytes(), mode=0o600)


@contextmanager
def _newest_schema(data: Path, source: Path) -> Iterator[Database]:
    """The backup's database, migrated in a copy where it is older; the backup itself stays as it is, and need not be
    writable."""
    work = data / "restoring"
    shutil.rmtree(work, ignore_errors=True)  # of one that was killed
    work.mkdir(mode=0o700)
    try:
        shutil.copyfile(source / DATABASE, work / DATABASE)
        with _opened(work / DATABASE) as copy:
            migrations.bring_up_to_date(copy, locks=work, backups=work)
            yield copy
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _check_same_cloud(cloud: Cloud, copy: Database, *, lost: bool) -> None:
    here, there = keys.chain(cloud.database), keys.chain(copy)
    if here and there and here[0] != there[0]:
        raise Conflict("this backup is of another cloud", hint="restore it into a data folder of its own")
    if not here and not lost:
        raise NotFound(
            "there is no database here whose revocations and deletions could be kept",
            hint="if it is lost, run again with --lost, and revoke again who was revoked since the backup",
        )


def _bring_journal(cloud: Cloud, file: Path) -> None:
    """What the backup knows of withdrawals and this machine does not."""
    known = set(journal.read(cloud.journal))
    if lacking := [line for line in journal.read(file) if line not in known]:
        journal.append(cloud.journal, lacking)


def _epoch(here: int, there: int, *, lost: bool, now: float) -> int:
    """Above every epoch that a board may have seen; where nobody knows, seconds since 1970 are."""
    return max(here, there, int(now) if lost else 0) + 1


def _replace(rows: sa.Connection, connection: sa.Connection) -> None:
    """Every row as in the backup, but for what is kept. What a board that is known here may use, and its groups, are as
    they are now: the backup may know of some that were taken away since."""
    known = set(connection.execute(sa.select(db.boards.c.id)).scalars())
    grants = [dict(row._mapping) for row in connection.execute(db.grants.select())]
    people, holders = _set_aside(connection, db.contributors), _set_aside(connection, db.pack_contributors)
    for table in reversed(db.metadata.sorted_tables):
        if table not in db.KEPT:
            connection.execute(table.delete())
    for table in db.metadata.sorted_tables:
        _copy_rows(rows, connection, table, without=known if table in _OF_BOARDS else frozenset())
    _keep_consents(connection, people, holders)
    writes.insert_new(connection, db.grants, [row for row in grants if _has_task(connection, row["task"])])
    for secrets in (db.access_tokens, db.sessions):  # boards ask for new ones, people log in again
        connection.execute(secrets.delete())
    db.renumber(connection)


def _set_aside(connection: sa.Connection, table: sa.Table) -> sa.Table:
    """A copy of a table as it is now, for this connection only: there may be millions of rows."""
    aside = sa.Table(f"{table.name}_now", sa.MetaData(), *(sa.Column(c.name, c.type) for c in table.columns))
    copied = sa.select(table).compile(connection)
    connection.exec_driver_sql(f"CREATE TEMPORARY TABLE {aside.name} AS {copied}")
    return aside


def _keep_consents(connection: sa.Connection, people: sa.Table, holders: sa.Table) -> None:
    """Of contributors that the backup knows: what they said last, and which packs hold their samples."""
    now, then = people.c, db.contributors.c
    same = sa.and_(now.task == then.task, now.contributor == then.contributor)
    said = {name: now[name] for name in ("purposes", "consent_until", "consented_at", "withdrawals")}
    # the backup may know of more withdrawals: the database that is here may be older
    connection.execute(db.contributors.update().where(same, now.withdrawals >= then.withdrawals).values(said))
    held, there = holders.c, db.pack_contributors.c
    theirs = sa.exists().where(then.task == held.task, then.contributor == held.contributor)
    keys = [held.digest == there.digest, held.task == there.task, held.contributor == there.contributor]
    lacking = sa.select(holders).where(theirs, ~sa.exists().where(*keys))
    connection.execute(db.pack_contributors.insert().from_select(held.keys(), lacking))
    for aside in (people, holders):
        aside.drop(connection)


def _copy_rows(
    source: sa.Connection, target: sa.Connection, table: sa.Table, *, without: Set[str] = frozenset()
) -> None:
    """Add the rows that are not there. without: boards whose rows are left out."""
    found = source.execute(table.select().execution_options(yield_per=ROWS))
    for some in found.partitions(ROWS):
        rows = [dict(row._mapping) for row in some]
        writes.insert_new(target, table, [row for row in rows if not without or row["board"] not in without])


def _has_task(connection: sa.Connection, task: str) -> bool:
    return connection.execute(sa.select(db.tasks.c.id).where(db.tasks.c.id == task)).first() is not None
