"""What every command and route works with: settings, database, blobs and keys of one data folder, opened together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cloud_aug import certificates, db, journal, keys, settings, writes
from cloud_aug.blobs import Blobs, BlobStore
from cloud_aug.database import Database
from cloud_aug.keys import KeyFolders
from cloud_aug.migrations import bring_up_to_date
from cloud_aug.settings import Settings
from edgewire.trust import Trust


@dataclass(frozen=True)
class Cloud:
    """One data folder, opened."""

    settings: Settings
    database: Database
    blobs: BlobStore
    keys: KeyFolders

    def trust(self) -> Trust:
        """The newest trust statement."""
        with self.database.reading() as connection:
            return keys.newest(connection)

    @property
    def journal(self) -> Path:
        """The file of withdrawals, which no restore touches."""
        return self.settings.data / journal.FILE_NAME

    def work(self, name: str) -> BlobStore:
        """What a build keeps from one step to the next, seen by every machine that sees the blobs."""
        chosen = self.settings
        if not chosen.object_store:
            (chosen.data / "work").mkdir(mode=0o700, exist_ok=True)
            return Blobs(chosen.data / "work" / name)
        from cloud_aug.s3 import S3Work

        return S3Work(f"{chosen.object_store.rstrip('/')}/work/{name}", **_s3_options(chosen))

    @contextlib.contextmanager
    def locked(self, *names: str, doing: str) -> Iterator[None]:
        """Let one process at a time do this, of all services on the same database. Raises Busy."""
        with self.database.exclusive(*(self.settings.locks / f"{name}.lock" for name in names), doing=doing):
            yield


def open_cloud(data: Path, *, offline: Path | None = None) -> Cloud:
    """Open a data folder; a database of an older version is migrated after a backup. Raises NotFound before `init`."""
    return open_settings(settings.load(data), offline=offline)


def open_settings(chosen: Settings, *, offline: Path | None = None) -> Cloud:
    """The same for settings that are at hand."""
    for folder in (chosen.locks, chosen.data / "backups"):
        folder.mkdir(mode=0o700, exist_ok=True)
    file = chosen.data / settings.DATABASE_NAME
    if not chosen.database_url and not file.exists():
        file.touch(mode=0o600)  # its journal files take its mode; the samples in it are nobody else's business
    database = Database(chosen.database)
    bring_up_to_date(database, locks=chosen.locks, backups=chosen.data / "backups")
    journal.reconcile(database, chosen.data / journal.FILE_NAME)
    folders = KeyFolders(chosen.data / "keys", offline or chosen.offline_folder)
    return Cloud(chosen, database, _open_blobs(chosen), folders)


def _open_blobs(chosen: Settings) -> BlobStore:
    if not chosen.object_store:
        return Blobs(chosen.data / "blobs")
    from cloud_aug.s3 import S3Blobs

    return S3Blobs(chosen.object_store, **_s3_options(chosen))


def _s3_options(chosen: Settings) -> dict[str, Any]:
    cache, limit = chosen.data / "cache", chosen.limits.cache_bytes
    return {"endpoint": chosen.object_store_endpoint, "cache": cache, "cache_bytes": limit}


@dataclass(frozen=True)
class Stores:
    """Where a new cloud keeps what it has; '' is its data folder. See Settings."""

    database_url: str = ""
    object_store: str = ""
    object_store_endpoint: str = ""


def create(
    data: Path, *, url: str, hosts: Sequence[str], offline: Path | None, stores: Stores | None = None, now: float
) -> tuple[Cloud, bool]:
    """Make a data folder with keys and an empty database; one that is there stays. Returns it and whether it is new."""
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (data / settings.FILE_NAME).is_file():
        certificates.check_hosts(
            hosts
        )  # first: a settings file that cannot work would stand in the way of the next try
        chosen = asdict(stores or Stores())
        settings.save(Settings(data, url, tuple(hosts), offline=str(offline) if offline else "", **chosen))
    cloud = open_cloud(data)
    with cloud.locked("keys", doing="making keys"):
        made = keys.create(cloud.keys, cloud.database, hosts=cloud.settings.hosts, now=now)
        if made:
            with cloud.database.writing() as connection:
                writes.insert_new(connection, db.service, [{"name": "epoch", "value": "1"}])
    return cloud, made
