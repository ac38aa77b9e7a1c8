"""What each backend promises beside the common suite: names in order, locks between machines, and outages survived."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from cloud_aug import (
    backups,
    batches,
    cloud,
    db,
    garbage,
    index,
    keys,
    migrations,
    pool,
    publications,
    s3,
    settings,
    tasks,
)
from cloud_aug.app import create_app
from cloud_aug.blobs import Blobs, BlobStore
from cloud_aug.cloud import Cloud, Stores
from cloud_aug.database import from_database_error
from edgewire.errors import Busy, CorruptFile, EdgeError, NotFound, NotReady, RetryLater, UsageError
from edgewire.samples import make, to_bytes
from tests.cloud import toys
from tests.cloud.backends import BUCKET, Backend, Services
from tests.cloud.gate import Gate
from tests.cloud.test_cloud_exchange import contribute, some


@pytest.fixture
def made(backend: Backend, tmp_path: Path) -> Iterator[Cloud]:
    """A new cloud."""
    found = toys.empty(tmp_path / "cloud", backend.stores())
    yield found
    found.database.close()


def test_the_migrations_make_exactly_the_tables_of_the_code(made: Cloud) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    assert migrations.schema_of(made.database) == db.SCHEMA
    with made.database.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), db.metadata) == []


def test_names_come_in_the_order_of_their_bytes(made: Cloud) -> None:
    tasks.publish(made, toys.TASK, now=1.0)
    names = ["ä", "a b", "B", "a", "_", "Ab", "a-c", "z"]
    offered = batches.offer(make(np.zeros((8, 2), np.float32), np.zeros(8, int), user=np.asarray(names)))
    with made.database.writing() as connection:
        consent = pool.Consent("packs", toys.FAR)
        pool.take_in(connection, made, toys.TASK, offered, consent, status="accepted", now=1.0)
    with made.database.reading() as connection:
        query = db.contributors.select().order_by(db.contributors.c.contributor)
        assert [row.contributor for row in connection.execute(query)] == sorted(names)


def test_what_one_process_locks_another_finds_busy(made: Cloud) -> None:
    other = cloud.open_cloud(made.settings.data)
    with made.locked("index-toy", doing="building"):
        with pytest.raises(Busy, match="building"), other.locked("index-toy", doing="building"):
            pass
        with other.locked("index-other", doing="building"):
            pass
    with other.locked("index-toy", doing="building"):
        pass
    other.database.close()


def test_many_locks_at_once_are_held_or_none(made: Cloud) -> None:
    other, names = cloud.open_cloud(made.settings.data), [f"index-task-{i}" for i in range(40)]
    with other.locked(names[-1], doing="building"), pytest.raises(Busy), made.locked(*names, doing="clearing"):
        pass
    with made.locked(*names, doing="clearing"):
        for name in (names[0], names[-1]):
            with pytest.raises(Busy), other.locked(name, doing="building"):
                pass
    with other.locked(*names, doing="clearing"):
        pass
    other.database.close()


def test_garbage_is_collected_however_many_tasks_there_are(made: Cloud) -> None:
    for number in range(20):
        tasks.publish(made, dataclasses.replace(toys.TASK, id=f"task-{number}"), now=1.0)
    assert garbage.collect(made, now=time.time()).blobs == 0


def test_the_number_of_a_batch_is_never_anothers_also_after_a_restore(made: Cloud, tmp_path: Path) -> None:
    def numbers(name: str) -> set[int]:
        theirs = make(np.full((1, 2), ord(name), np.float32), np.zeros(1, int), user=np.asarray([name]))
        with made.database.writing() as connection:
            consent = pool.Consent("packs", toys.FAR)
            pool.take_in(connection, made, toys.TASK, batches.offer(theirs), consent, status="accepted", now=1.0)
        with made.database.reading() as connection:
            return set(connection.execute(sa.select(db.batches.c.id)).scalars())

    tasks.publish(made, toys.TASK, now=1.0)
    first = numbers("a")
    backups.back_up(made, tmp_path / "backup", with_blobs=False, now=time.time(), on_progress=toys.quiet)
    gone = numbers("b") - first
    backups.restore(made.settings.data, tmp_path / "backup", now=time.time(), on_progress=toys.quiet)
    after = numbers("c")
    assert first < after
    assert max(after) > max(gone)


def test_a_service_that_starts_while_another_migrates_finds_it_done(made: Cloud, monkeypatch) -> None:
    seen = iter(["0000", db.SCHEMA])
    monkeypatch.setattr(migrations, "schema_of", lambda _database: next(seen))
    monkeypatch.setattr(migrations, "_upgrade", lambda _database: pytest.fail("migrated twice"))
    folder = made.settings.data
    assert migrations.bring_up_to_date(made.database, locks=made.settings.locks, backups=folder) is None


def test_boards_write_beside_each_other_but_not_beside_the_administrator(postgres, object_store, tmp_path) -> None:
    stores = Services(postgres, object_store.endpoint).stores()
    made = toys.empty(tmp_path / "cloud", stores)
    with made.database.writing("b1") as connection:
        with made.database.writing("b2") as other:
            assert db.epoch(other) == db.epoch(connection) == 1
        with made.database.engine.begin() as waiting:
            waiting.exec_driver_sql("SET LOCAL lock_timeout = 100")
            for scope in ("", "b1"):
                with pytest.raises(sa.exc.OperationalError) as refused, waiting.begin_nested():
                    db.postgres.lock_writers(waiting, scope)
                assert isinstance(from_database_error(refused.value), RetryLater)
    made.database.close()


def test_a_machine_without_power_holds_no_lock_for_long(postgres, object_store, tmp_path) -> None:
    made = toys.empty(tmp_path / "cloud", Services(postgres, object_store.endpoint).stores())
    with made.database.reading() as connection:
        asked = "SELECT name, reset_val FROM pg_settings WHERE starts_with(name, 'tcp_')"
        theirs = {name.replace("tcp_keep", "keep"): int(value) for name, value in connection.exec_driver_sql(asked)}
        mine = connection.connection.driver_connection.info.get_parameters()
    for side in (theirs, {name: int(mine[name]) for name in theirs}):
        assert 0 < side["keepalives_idle"] + side["keepalives_interval"] * side["keepalives_count"] <= 60
        assert 0 < side["tcp_user_timeout"] <= 60_000
    made.database.close()


def test_the_same_pool_gives_the_same_packs_wherever_it_stands(postgres, object_store, tmp_path) -> None:
    made = cloud.open_cloud(toys.published(tmp_path / "one"))
    stores = Services(postgres, object_store.endpoint).stores()
    other = toys.filled(tmp_path / "two", stores)
    (tmp_path / "two" / "keys" / "pseudonyms.key").write_bytes(made.keys.pseudonyms.read_bytes())
    with made.database.reading() as source, other.database.writing() as target:
        for table in (db.bases, db.pack_secrets):
            target.execute(table.insert(), [dict(row._mapping) for row in source.execute(table.select())])
    base = publications.require(made, "toy").base
    for ref in (base.onnx, base.weights):
        other.blobs.put(made.blobs.read(ref.digest))
    built = index.build(other, "toy", seed=0, now=time.time(), on_progress=toys.quiet).publication
    assert built.packs == publications.require(made, "toy").packs


# Outages


def test_a_database_that_is_away_for_a_while_costs_nothing_but_time(postgres, object_store, tmp_path, code) -> None:
    data = toys.published(tmp_path / "cloud", Services(postgres, object_store.endpoint).stores())
    with TestClient(create_app(settings.load(data)), base_url="https://localhost") as client:
        made = client.app.state.cloud  # type: ignore[attr-defined]
        headers = toys.Board().enroll(client, made, now=time.time()).headers(client, now=time.time())
        body = to_bytes(some(), "toy")
        postgres.stop()
        try:
            answer = contribute(client, headers, body)
            ready = code(client.get("/readyz"))
        finally:
            postgres.start()
        assert (code(answer), answer.headers["retry-after"]) == ((503, "retry_later"), "10")
        assert ready == (503, "retry_later")
        assert contribute(client, headers, body).json()["accepted"] == 4
        assert client.get("/readyz").status_code == 200


def test_a_cloud_whose_database_is_away_says_so_at_start(tmp_path) -> None:
    stores = Stores("postgresql+psycopg://tester@127.0.0.1:9/none")
    with pytest.raises(RetryLater, match="does not answer"):
        toys.empty(tmp_path / "cloud", stores)
    done = toys.run("task", "list", data=tmp_path / "cloud")
    assert done.returncode == RetryLater.exit_code
    assert "Traceback" not in done.stderr


@pytest.fixture
def gate(object_store) -> Iterator[Gate]:
    with Gate(object_store.endpoint) as made:
        yield made


@pytest.fixture
def remote(gate: Gate, tmp_path: Path, monkeypatch) -> s3.S3Blobs:
    """A store behind a gate, with little patience."""
    for name, value in (("CONNECT_S", 1.5), ("READ_S", 1.5), ("ATTEMPTS", 1), ("PAUSE_S", 0.0)):
        monkeypatch.setattr(s3, name, value)
    address = f"s3://{BUCKET}/{tmp_path.name}"
    return s3.S3Blobs(address, endpoint=gate.url, cache=tmp_path / "cache", cache_bytes=1 << 20)


@pytest.mark.parametrize("state", ["closed", "silent"])
def test_an_object_store_that_refuses_or_says_nothing_is_waited_for_briefly(remote, gate, state) -> None:
    ref = remote.put(b"before")
    gate.set(state)
    for attempt in (lambda: remote.path(ref.digest), lambda: remote.put(b"during"), lambda: list(remote.stored())):
        with pytest.raises(RetryLater) as refused:
            attempt()
        assert refused.value.retry_after_s == s3.PAUSE_S
    gate.set("open")
    assert remote.read(ref.digest) == b"before"
    assert remote.read(remote.put(b"during").digest) == b"during"


def test_after_a_failure_nobody_waits_for_the_object_store_for_a_while(remote, gate, monkeypatch) -> None:
    monkeypatch.setattr(s3, "PAUSE_S", 3600.0)
    gate.set("closed")
    for _ in range(2):
        with pytest.raises(RetryLater):
            remote.put(b"bytes")
    gate.set("open")
    with pytest.raises(RetryLater):
        remote.put(b"bytes")


def test_what_was_served_before_is_served_while_the_object_store_is_away(remote, gate) -> None:
    ref = remote.put(b"bytes")
    remote.path(ref.digest)
    gate.set("closed")
    assert remote.read(ref.digest) == b"bytes"


# Blobs, wherever they are


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    if request.param == "folder":
        return Blobs(tmp_path / "blobs")
    endpoint = request.getfixturevalue("object_store").endpoint
    address = f"s3://{BUCKET}/{tmp_path.name}"
    return s3.S3Blobs(address, endpoint=endpoint, cache=tmp_path / "cache", cache_bytes=1 << 20)


@pytest.fixture
def damage(store: BlobStore, object_store, postgres, tmp_path: Path) -> Callable[[str], None]:
    """Change the stored bytes of a blob."""

    def change(digest: str) -> None:
        if isinstance(store, Blobs):
            store.path(digest).write_bytes(b"bytez")
        else:
            key = f"{tmp_path.name}/{digest[:2]}/{digest}"
            Services(postgres, object_store.endpoint).bucket.put_object(Key=key, Body=b"bytez")

    return change


def test_a_blob_is_stored_once_and_read_back(store: BlobStore) -> None:
    ref = store.put(b"bytes")
    assert store.put(b"bytes") == ref
    assert store.read(ref.digest) == store.path(ref.digest).read_bytes() == b"bytes"
    assert [(blob.digest, blob.size) for blob in store.stored()] == [(ref.digest, 5)]
    store.check(ref.digest)


def test_a_file_becomes_the_same_blob_as_its_bytes(store: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"bytes" * 1000)
    ref = store.put_file(tmp_path / "file")
    assert ref == store.put(b"bytes" * 1000)
    assert store.read(ref.digest) == b"bytes" * 1000


def test_a_blob_that_changed_is_noticed_and_mended_by_making_it_again(store: BlobStore, damage) -> None:
    ref = store.put(b"bytes")
    damage(ref.digest)
    with pytest.raises(CorruptFile):
        store.read(ref.digest)
    with pytest.raises(CorruptFile):
        store.check(ref.digest)
    store.put(b"bytes")
    assert store.read(ref.digest) == b"bytes"


def test_a_store_that_was_cleared_is_empty(store: BlobStore) -> None:
    for data in (b"one", b"two"):
        store.put(data)
    store.clear()
    assert list(store.stored()) == []


def test_what_a_build_keeps_is_none_of_the_blobs_and_leaves_nothing_on_this_machine(made: Cloud) -> None:
    work = made.work("index-toy")
    ref = work.put(b"an embedding")
    assert made.work("index-toy").read(ref.digest) == b"an embedding"
    assert list(made.blobs.stored()) == []
    work.clear()
    assert not list(made.settings.data.rglob(f"*{ref.digest}*"))
    with pytest.raises(NotFound):
        work.read(ref.digest)


def test_a_removed_blob_is_gone_and_removing_it_again_is_no_error(store: BlobStore) -> None:
    ref = store.put(b"bytes")
    store.path(ref.digest)
    store.remove(ref.digest)
    store.remove(ref.digest)
    with pytest.raises(NotFound):
        store.read(ref.digest)


def test_a_damaged_copy_in_the_cache_is_fetched_again(remote) -> None:
    ref = remote.put(b"bytes")
    remote.path(ref.digest).write_bytes(b"bytez")
    assert remote.read(ref.digest) == b"bytes"
    remote.path(ref.digest).write_bytes(b"bytez")
    remote.check(ref.digest)
    assert remote.path(ref.digest).read_bytes() == b"bytes"


def test_the_cache_keeps_to_its_size_but_nothing_in_use_is_dropped(remote, monkeypatch) -> None:
    refs = [remote.put(bytes([i]) * (400 << 10)) for i in range(4)]
    kept = [remote.path(ref.digest) for ref in refs]
    assert all(path.is_file() for path in kept)
    monkeypatch.setattr(s3, "IN_USE_S", -1.0)
    remote._trim()
    assert sum(path.is_file() for path in kept) == 2


def test_what_another_machine_removed_leaves_the_cache_of_this_one_too(remote, gate, tmp_path, monkeypatch) -> None:
    address = f"s3://{BUCKET}/{tmp_path.name}"
    other = s3.S3Blobs(address, endpoint=gate.url, cache=tmp_path / "other", cache_bytes=1 << 20)
    gone, kept = (remote.put(data) for data in (b"withdrawn", b"bytes"))
    copies = [remote.path(ref.digest) for ref in (gone, kept)]
    other.remove(gone.digest)
    assert (remote.sweep(), [path.is_file() for path in copies]) == (0, [True, True]), "somebody may be reading it"
    monkeypatch.setattr(s3, "IN_USE_S", -1.0)
    assert (remote.sweep(), [path.is_file() for path in copies]) == (1, [False, True])
    assert remote.read(kept.digest) == b"bytes"


@pytest.mark.parametrize("address", ["bucket", "s3://", "https://bucket", "s3://bucket/x?y"])
def test_an_object_store_that_is_none_is_named(tmp_path, address) -> None:
    with pytest.raises(UsageError, match="object_store"):
        s3.S3Blobs(address, endpoint="", cache=tmp_path, cache_bytes=1 << 20)


def test_a_bucket_that_is_not_there_is_named(object_store, tmp_path) -> None:
    missing = s3.S3Blobs("s3://nobodys", endpoint=object_store.endpoint, cache=tmp_path, cache_bytes=1 << 20)
    with pytest.raises(EdgeError, match="no such bucket"):
        missing.put(b"bytes")


def test_a_service_that_shares_a_database_but_has_no_keys_is_not_ready(postgres, object_store, tmp_path) -> None:
    stores = Services(postgres, object_store.endpoint).stores()
    toys.empty(tmp_path / "one", stores).database.close()
    second = toys.empty(tmp_path / "two", stores)
    with pytest.raises(NotReady, match=r"signing key"):
        keys.current_signing(second.keys, second.trust())
    second.database.close()
