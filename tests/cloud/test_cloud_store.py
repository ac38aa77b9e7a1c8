"""Old databases open, new ones are refused, damaged ones are noticed."""

from __future__ import annotations

import gzip
import os
import sqlite3
import time
from pathlib import Path

import pytest

from cloud_aug import boards, census, cloud, db, migrations, publications, settings, tasks, writes
from cloud_aug.blobs import LEFTOVER_AGE_S, Blobs
from cloud_aug.database import Database
from edgewire.errors import Busy, CorruptFile, NotFound, Outdated, UsageError
from tests.cloud import toys

GOLDEN = Path(__file__).parent / "golden" / "version-0001.sqlite3.gz"


@pytest.fixture
def folder(tmp_path) -> Path:
    """A data folder whose database is taken away."""
    toys.empty(tmp_path / "cloud").database.close()
    for path in (tmp_path / "cloud").glob("cloud.sqlite3*"):
        path.unlink()
    return tmp_path / "cloud"


def test_a_database_of_version_1_opens_with_all_that_is_in_it(folder):
    (folder / "cloud.sqlite3").write_bytes(gzip.decompress(GOLDEN.read_bytes()))
    made = cloud.open_cloud(folder)
    assert migrations.schema_of(made.database) == db.SCHEMA
    assert tasks.load(made, "toy") == toys.TASK
    assert [board.name for board in boards.list_all(made)] == ["board-1"]
    assert census.stats(made, "toy", now=time.time()).accepted == 108
    assert publications.require(made, "toy").samples == 108
    assert made.trust().version == 1


def test_the_migrations_make_exactly_the_tables_of_the_code(folder):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    made = cloud.open_cloud(folder)
    with made.database.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), db.metadata) == []


def test_a_database_from_the_future_is_refused_and_left_alone(folder):
    cloud.open_cloud(folder).database.close()
    with sqlite3.connect(folder / "cloud.sqlite3") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(Outdated, match="9999"):
        cloud.open_cloud(folder)


def test_a_database_of_an_older_version_is_copied_aside_before_it_is_migrated(folder, monkeypatch):
    cloud.open_cloud(folder).database.close()
    with sqlite3.connect(folder / "cloud.sqlite3") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0000'")
    monkeypatch.setattr(migrations, "_upgrade", lambda database: None)
    cloud.open_cloud(folder)
    backup = folder / "backups" / f"before-{db.SCHEMA}-from-0000.sqlite3"
    with sqlite3.connect(backup) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == ("0000",)
    assert backup.stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_no_database_is_named_as_that(folder):
    (folder / "cloud.sqlite3").write_bytes(b"not a database" * 100)
    with pytest.raises(CorruptFile):
        cloud.open_cloud(folder)


def test_the_database_is_durable_and_checks_its_references(folder):
    made = cloud.open_cloud(folder)
    with made.database.reading() as connection:
        pragma = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert pragma == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_a_transaction_that_fails_leaves_nothing(folder):
    made = cloud.open_cloud(folder)

    def fail() -> None:
        with made.database.writing() as connection:
            writes.insert_new(connection, db.service, [{"name": "x", "value": "1"}])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with made.database.reading() as connection:
        assert connection.execute(db.service.select().where(db.service.c.name == "x")).first() is None


def test_insert_new_counts_only_what_is_new(folder):
    made = cloud.open_cloud(folder)
    with made.database.writing() as connection:
        rows = [{"name": name, "value": "1"} for name in "abc"]
        assert writes.insert_new(connection, db.service, rows[:2]) == 2
        assert writes.insert_new(connection, db.service, rows) == 1
        assert writes.insert_new(connection, db.service, []) == 0


def test_a_folder_without_a_cloud_says_what_to_do(tmp_path):
    with pytest.raises(NotFound, match="cloud-aug init"):
        cloud.open_cloud(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "url = 3",
        "url = ",
        'url = "https://x"\nhosts = []\ncolour = "red"',
        'url = "http://x"\nhosts = []',
        'data = "x"',
        'url = "https://x"\nhosts = []\n[limits]\nrequestsatonce = 3',
    ],
)
def test_wrong_settings_are_named(tmp_path, text):
    (tmp_path / "settings.toml").write_text(text)
    with pytest.raises(UsageError, match=r"settings\.toml"):
        settings.load(tmp_path)


def test_the_data_folder_comes_from_the_environment_or_the_user(monkeypatch):
    assert settings.default_data_folder({"CLOUD_AUG_DATA": "/srv/cloud"}) == Path("/srv/cloud")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert settings.default_data_folder({}) == Path("/var/lib/cloud-aug")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert settings.default_data_folder({"XDG_DATA_HOME": "/home/ann/data"}) == Path("/home/ann/data/cloud-aug")


def test_a_blob_is_stored_once_and_read_back(tmp_path):
    blobs = Blobs(tmp_path)
    ref = blobs.put(b"bytes")
    assert blobs.put(b"bytes") == ref
    assert blobs.read(ref.digest) == b"bytes"
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_a_blob_that_changed_on_disk_is_noticed(tmp_path):
    blobs = Blobs(tmp_path)
    ref = blobs.put(b"bytes")
    blobs.path(ref.digest).write_bytes(b"bytez")
    with pytest.raises(CorruptFile):
        blobs.read(ref.digest)
    with pytest.raises(CorruptFile):
        blobs.check(ref.digest)


def test_a_damaged_blob_is_mended_by_making_it_again(tmp_path):
    blobs = Blobs(tmp_path)
    ref = blobs.put(b"bytes")
    blobs.path(ref.digest).write_bytes(b"bytez")
    blobs.put(b"bytes")
    assert blobs.read(ref.digest) == b"bytes"


def test_samples_are_readable_by_the_owner_only_even_in_an_open_folder(tmp_path):
    folder = tmp_path / "cloud"
    folder.mkdir(mode=0o755)
    toys.published(folder)
    open_to_others = [path for path in folder.rglob("*") if path.stat().st_mode & 0o077]
    assert [path.name for path in open_to_others] == ["people.npz"]  # the test's own


@pytest.mark.parametrize("address", ["nonsense", "nosuch://host/x", "postgresql+asyncpg://u:hidden@host/x"])
def test_a_database_address_that_is_none_is_named_without_its_password(tmp_path, address):
    with pytest.raises(UsageError) as refused:
        Database(address).close()
    assert "hidden" not in str(refused.value)


def test_an_init_that_cannot_work_leaves_no_settings_in_the_way(tmp_path):
    with pytest.raises(UsageError, match="host name"):
        cloud.create(tmp_path / "c", url="https://a", hosts=["bücher"], offline=None, now=time.time())
    offline = tmp_path / 'a "quoted" folder'
    made, new = cloud.create(tmp_path / "c", url="https://a", hosts=["a", "::1"], offline=offline, now=time.time())
    assert new
    assert made.keys.offline == offline


def test_two_inits_or_rotations_at_once_are_busy(folder):
    made = cloud.open_cloud(folder)
    with made.locked("keys", doing="making keys"):
        with pytest.raises(Busy):
            cloud.create(folder, url="https://a", hosts=["a"], offline=None, now=time.time())
        done = toys.run("keys", "rotate", "signing", data=folder)
    assert done.returncode == Busy.exit_code


def test_what_a_killed_writer_left_is_swept_but_not_what_one_is_writing(tmp_path):
    blobs = Blobs(tmp_path)
    folder = blobs.path(blobs.put(b"bytes").digest).parent
    (folder / ".old.tmp").write_bytes(b"half")
    assert blobs.sweep() == 0
    assert blobs.sweep(now=time.time() + LEFTOVER_AGE_S + 1) == 1
    assert [path.name for path in folder.iterdir()] == [blobs.put(b"bytes").digest]
