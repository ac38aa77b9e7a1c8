"""Schema changes from version 1 on. The file is copied aside first; a schema from the future is refused."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa

from cloud_aug.database import Database, from_database_error
from cloud_aug.db import SCHEMA
from edgewire.errors import Outdated


def bring_up_to_date(database: Database, *, locks: Path, backups: Path) -> str | None:
    """Migrate to SCHEMA if needed; returns the backup's path if one was made.

    Raises Outdated if the database is newer than this program, CorruptFile if it is no database, RetryLater if it does
    not answer.
    """
    current = _checked(database)
    if current == SCHEMA:
        return None
    with database.exclusive(locks / "migrate.lock", doing="migrating the database"):
        current = _checked(database)  # another service may have done it while this one came here
        backup = _back_up(database, backups, current) if current not in (None, SCHEMA) else None
        if current != SCHEMA:
            _upgrade(database)
    return backup


def _checked(database: Database) -> str | None:
    try:
        current = schema_of(database)
    except sa.exc.DBAPIError as error:
        raise from_database_error(error) from None
    if current is not None and current > SCHEMA:
        raise Outdated(
            f"the database has schema {current}, this program knows up to {SCHEMA}",
            hint="install the newer version again, or restore a backup made before the upgrade",
        )
    return current


def schema_of(database: Database) -> str | None:
    """The schema's version, None for an empty database."""
    with database.reading() as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        return str(connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar())


def _back_up(database: Database, folder: Path, current: str | None) -> str | None:
    """Copy a SQLite file while it may be in use. PostgreSQL has its own tools for that."""
    file = database.engine.url.database
    if database.engine.dialect.name != "sqlite" or not file:
        return None
    folder.mkdir(mode=0o700, exist_ok=True)
    target = folder / f"before-{SCHEMA}-from-{current}.sqlite3"
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(target)) as copy:
        source.backup(copy)
    target.chmod(0o600)
    return str(target)


def _upgrade(database: Database) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    with database.writing() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, SCHEMA)
