"""Backups come back whole, on anything; what was revoked or deleted since does not. What is unused goes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import sqlalchemy as sa

from cloud_aug import (
    auth,
    backups,
    boards,
    census,
    certificates,
    cloud,
    db,
    doctor,
    garbage,
    index,
    keys,
    pool,
    publications,
    rotation,
    searchable,
    settings,
    snapshots,
)
from cloud_aug import withdrawals as leaving
from cloud_aug.blobs import Blobs
from cloud_aug.boards import Selection
from cloud_aug.cloud import Cloud
from cloud_aug.database import Database
from cloud_aug.releases import status, steering
from cloud_aug.releases.plan import Wave
from edgewire.decoding import JSON_LIMIT_BYTES, plain
from edgewire.errors import Busy, Conflict, CorruptFile, NotFound
from edgewire.messages import Withdrawals
from edgewire.signing import SigningKey, Statement, seal
from tests.cloud import toys
from tests.cloud.backends import Backend, files_only
from tests.cloud.players import begun
from tests.cloud.releasing import Device, second_base, started

DAY_S = 86400.0


@pytest.fixture
def made(data: Path) -> Iterator[Cloud]:
    opened = cloud.open_cloud(data)
    yield opened
    opened.database.close()


def back_up(made: Cloud, target: Path) -> Path:
    backups.back_up(made, target, with_blobs=True, now=time.time(), on_progress=toys.quiet)
    return target


def take_snapshot(made: Cloud, target: Path) -> None:
    snapshots.take(made, "toy", target, now=time.time(), on_progress=toys.quiet)


def restore(made: Cloud, source: Path) -> None:
    backups.restore(made.settings.data, source, now=time.time(), on_progress=toys.quiet)


def grow(made: Cloud, folder: Path) -> None:
    """More people, and a build with them."""
    file = toys.data_file(folder / "more.npz", {**toys.people(4, seed=3), "user": toys.people(4)["user"] + "-new"})
    pool.ingest(made, file, "toy", pool.Consent("packs", toys.FAR), now=time.time())
    index.build(made, "toy", seed=0, now=time.time(), on_progress=toys.quiet)


def rows(made: Cloud, table: sa.Table) -> set[tuple[object, ...]]:
    with made.database.reading() as connection:
        return {tuple(row) for row in connection.execute(table.select())}


def epoch(made: Cloud) -> int:
    with made.database.reading() as connection:
        return db.epoch(connection)


def test_a_restore_brings_pool_and_publications_back_under_a_higher_epoch(made: Cloud, tmp_path: Path) -> None:
    before = {table.name: rows(made, table) for table in (db.batches, db.publications, db.bases, db.contributors)}
    source = back_up(made, tmp_path / "backup")
    grow(made, tmp_path)
    assert publications.require(made, "toy").version == 2
    restore(made, source)
    assert {name: rows(made, db.metadata.tables[name]) for name in before} == before
    assert epoch(made) == 2
    grow(made, tmp_path)  # numbers of new rows do not meet old ones
    assert publications.require(made, "toy").version == 2
    assert {check.outcome for check in doctor.examine(made, deep=True, now=time.time())} <= {"ok", "warning"}


def test_a_release_that_was_called_back_since_stays_called_back(made: Cloud, tmp_path: Path) -> None:
    now = time.time()
    second_base(made)
    device, release = Device(made).enroll(now=now), started(made, now=now, waves=(Wave(1.0, 1.0),)).info.id
    device.does("committed", now=now + 2)
    source = back_up(made, tmp_path / "backup")
    steering.abort(made, release, now=now + 3, reason="the labels moved")
    restore(made, source)
    with made.database.reading() as connection:
        named = publications.general(connection, "toy")
    assert named is not None
    assert named.base.version == 1
    info = status.find(made, release).info
    assert (info.state, info.reason) == ("aborted", "the labels moved")
    assert [order.action for order, _ in device.asks(now=now + 4)] == ["revert"]


def test_a_round_that_comes_back_is_not_hidden_by_the_noise_that_it_had(made: Cloud, tmp_path: Path) -> None:
    now, board = time.time(), "b" + "1" * 16
    with made.database.writing() as connection:
        row = {"id": board, "name": "one", "profile": "generic", "public_key": "k", "enrolled_at": now}
        connection.execute(db.boards.insert().values(row))
        connection.execute(db.grants.insert().values(board=board, task="toy", granted_at=now))
    begun(made, lambda: now, algorithm="dp-fedavg", cohort=1, quorum=1)
    noises = []
    for number in range(2):
        with made.database.reading() as connection:
            noises.append(connection.execute(sa.select(db.rounds.c.entropy)).scalar_one())
        if number == 0:
            restore(made, back_up(made, tmp_path / "backup"))
    assert noises[0] != noises[1]


def test_who_was_revoked_or_left_since_a_backup_does_not_come_back(made: Cloud, tmp_path: Path) -> None:
    now = time.time()
    token = auth.make_enrolment_token(made, ["toy"], now=now, valid_for_s=600)
    with made.database.writing() as connection:
        row = {"id": "b" + "1" * 16, "name": "one", "profile": "generic", "public_key": "k", "enrolled_at": now}
        connection.execute(db.boards.insert().values(row))
    source = back_up(made, tmp_path / "backup")
    with made.database.writing() as connection:
        auth.spend_enrolment_token(connection, token, "b" + "1" * 16, now=now)
    boards.revoke(made, "b" + "1" * 16, now=now)
    leaving.delete(made, "toy", "person-1", now=now)
    for _ in range(2):
        restore(made, source)
        again = cloud.open_cloud(made.settings.data)
        assert boards.list_all(again)[0].revoked_at == now
        with pytest.raises(Exception, match="used already"), again.database.writing() as connection:
            auth.spend_enrolment_token(connection, token, "b" + "2" * 16, now=now)
        loaded = pool.load(again, toys.TASK, now=time.time())
        assert "person-1" not in loaded.contributors
        assert census.stats(again, "toy", now=time.time()).withdrawals == 1
        again.database.close()


def test_a_task_and_a_group_that_a_board_lost_since_a_backup_do_not_come_back(made: Cloud, tmp_path: Path) -> None:
    now, names = time.time(), [f"b{number:016x}" for number in (1, 2)]
    with made.database.writing() as connection:
        for name in names:
            row = {"id": name, "name": name, "profile": "generic", "public_key": name, "enrolled_at": now}
            connection.execute(db.boards.insert().values(row))
    boards.push(made, "toy", Selection(("*",)), now=now)
    boards.set_groups(made, names[0], ["attic"], now=now)
    source = back_up(made, tmp_path / "backup")
    boards.recall(made, "toy", Selection((names[0],)), now=now)
    boards.set_groups(made, names[0], ["cellar"], now=now)
    restore(made, source)
    again = cloud.open_cloud(made.settings.data)
    with again.database.reading() as connection:
        assert [auth.granted(connection, name) for name in names] == [set(), {"toy"}]
        assert boards.groups_of(connection, names[0]) == ["cellar"]
    again.database.close()


def test_a_backup_comes_back_on_another_backend(
    data: Path, made: Cloud, tmp_path: Path, postgres, object_store
) -> None:
    from tests.cloud.backends import Files, Services

    there: Backend = Files() if made.settings.database_url else Services(postgres, object_store.endpoint)
    source, stores, target = back_up(made, tmp_path / "backup"), there.stores(), tmp_path / "new"
    target.mkdir()
    settings.save(settings.Settings(target, "https://localhost:8443", toys.HOSTS, **vars(stores)))
    with pytest.raises(NotFound, match="no database here"):
        backups.restore(target, source, now=time.time(), on_progress=toys.quiet)
    backups.restore(target, source, lost=True, now=time.time(), on_progress=toys.quiet)
    moved = cloud.open_cloud(target)
    assert publications.require(moved, "toy") == publications.require(made, "toy")
    assert rows(moved, db.batches) == rows(made, db.batches)
    assert epoch(moved) > time.time() - 600, "higher than any that a board may have seen"
    assert {check.outcome for check in doctor.examine(moved, deep=True, now=time.time())} <= {"ok", "warning"}
    grow(moved, tmp_path)
    moved.database.close()


@files_only
def test_a_backup_that_is_not_whole_is_refused_and_nothing_changes(made: Cloud, tmp_path: Path) -> None:
    source, before = back_up(made, tmp_path / "backup"), rows(made, db.publications)
    blob = next((source / "blobs").glob("??/*"))
    good = blob.read_bytes()
    for change in (lambda: blob.write_bytes(good + b"x"), blob.unlink, (source / "backup.json").unlink):
        change()
        with pytest.raises((CorruptFile, NotFound)):
            restore(made, source)
    assert (rows(made, db.publications), epoch(made)) == (before, 1)
    with pytest.raises(Conflict):
        back_up(made, source)


@files_only
@pytest.mark.parametrize("take", [back_up, take_snapshot])
def test_what_cannot_be_copied_whole_leaves_no_samples_behind(made: Cloud, tmp_path: Path, monkeypatch, take) -> None:
    before = set(tmp_path.iterdir())
    monkeypatch.setattr(Blobs, "put_file", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        take(made, tmp_path / "copy")
    assert set(tmp_path.iterdir()) == before


@files_only
def test_a_backup_need_not_be_writable_to_come_back(made: Cloud, tmp_path: Path, monkeypatch) -> None:
    def opened(file: Path) -> AbstractContextManager[Database]:
        assert not file.is_relative_to(source), "not even its journal files can be made there"
        return real(file)

    source, real = back_up(made, tmp_path / "backup"), backups._opened
    before = sorted(source.rglob("*"))
    monkeypatch.setattr(backups, "_opened", opened)
    restore(made, source)
    assert sorted(source.rglob("*")) == before
    assert not (made.settings.data / "restoring").exists()


@files_only
def test_a_backup_of_another_cloud_is_refused(made: Cloud, tmp_path: Path) -> None:
    source = back_up(made, tmp_path / "backup")
    stranger = toys.empty(tmp_path / "stranger")
    with pytest.raises(Conflict, match="another cloud"):
        restore(stranger, source)


@files_only
def test_a_restore_that_fails_half_way_changes_nothing(made: Cloud, tmp_path: Path, monkeypatch) -> None:
    source = back_up(made, tmp_path / "backup")
    grow(made, tmp_path)
    before = rows(made, db.publications)
    monkeypatch.setattr(db, "renumber", lambda _connection: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        restore(made, source)
    assert (rows(made, db.publications), epoch(made)) == (before, 1)


def test_tables_that_a_restore_keeps_refer_only_to_each_other() -> None:
    for table in db.KEPT:
        assert {key.column.table for key in table.foreign_keys} <= db.KEPT


@files_only
def test_backup_and_restore_are_commands_and_leave_secrets_to_the_owner(made: Cloud, data: Path, tmp_path) -> None:
    target = tmp_path / "backup"
    told = toys.report("backup", str(target), data=data)
    assert told["backup"]["blobs"] > 0
    assert [path for path in target.rglob("*") if path.stat().st_mode & 0o077] == []
    assert toys.report("restore", str(target), data=data)["changed"]
    assert json.loads((target / "backup.json").read_bytes())["epoch"] == 1


# Garbage


def test_blobs_go_when_nothing_has_named_them_for_a_while(made: Cloud, tmp_path: Path) -> None:
    first = publications.require(made, "toy")
    grow(made, tmp_path)
    stray, now = made.blobs.put(b"stray"), time.time()
    assert garbage.collect(made, now=now).blobs == 0, "boards may be in the middle of a sync"
    assert garbage.collect(made, dry_run=True, now=now + 8 * DAY_S).blobs > 0
    found = garbage.collect(made, now=now + 8 * DAY_S)
    left = {blob.digest for blob in made.blobs.stored()}
    assert found.blobs > 0
    assert not {stray.digest, first.directory.digest} & left
    assert all(check.outcome != "failed" for check in doctor.examine(made, deep=True, now=now))
    assert garbage.collect(made, now=now + 8 * DAY_S).blobs == 0


def test_what_a_killed_build_left_is_cleared_away(made: Cloud) -> None:
    made.work("index-toy").put(b"an embedding")
    garbage.collect(made, dry_run=True, now=time.time())
    assert len(list(made.work("index-toy").stored())) == 1
    garbage.collect(made, now=time.time())
    assert list(made.work("index-toy").stored()) == []


@files_only
def test_nothing_is_collected_while_something_is_built(made: Cloud) -> None:
    for work in ("index-toy", "base-toy"):
        with made.locked(work, doing="building"), pytest.raises(Busy):
            garbage.collect(made, now=time.time())


@files_only
def test_nothing_is_restored_while_something_is_built(made: Cloud, tmp_path: Path) -> None:
    source = back_up(made, tmp_path / "backup")
    for work in ("index-toy", "base-toy"):
        with made.locked(work, doing="building"), pytest.raises(Busy):
            restore(made, source)
    assert epoch(made) == 1


@files_only
def test_gc_is_a_command(data: Path) -> None:
    assert toys.report("gc", "--dry-run", data=data)["changed"] is False
    assert toys.report("gc", "--grace", "1s", data=data)["kept"] > 0


# Doctor


def outcomes(made: Cloud, *, now: float | None = None) -> dict[str, str]:
    return {check.name: check.outcome for check in doctor.examine(made, deep=True, now=now or time.time())}


def test_the_doctor_finds_nothing_wrong_with_a_sound_cloud(made: Cloud) -> None:
    found = outcomes(made)
    assert found.pop("disk") in ("ok", "warning")
    assert set(found.values()) == {"ok"}
    assert set(found) == {"database", "blobs", "keys", "certificate", "task toy"}


@files_only
def test_the_doctor_notices_keys_that_were_not_copied_after_a_rotation_elsewhere(made: Cloud) -> None:
    old = made.keys.tls.read_bytes()
    for finish in (False, True):
        rotation.rotate("ca", made.database, made.keys, toys.HOSTS, finish=finish, now=time.time())
        assert outcomes(made)["certificate"] == "ok"
    made.keys.tls.write_bytes(old)
    (found,) = [check for check in doctor.examine(made, deep=False, now=time.time()) if check.name == "certificate"]
    assert (found.outcome, found.detail) == ("failed", "is of an authority that boards do not believe")
    assert "copy keys/" in found.hint


@files_only
def test_the_doctor_says_in_time_that_the_authority_ends(made: Cloud) -> None:
    authority = made.trust().authorities[0]
    end = certificates.expires_at(authority)
    keys.issue_server_certificate(made.keys, authority, toys.HOSTS, now=end - 20 * DAY_S)
    (found,) = [
        check for check in doctor.examine(made, deep=False, now=end - 20 * DAY_S) if check.name == "certificate"
    ]
    assert (found.outcome, found.detail) == ("warning", "its authority ends in 20 days")
    assert "keys rotate ca" in found.hint


def test_the_doctor_says_in_time_that_the_list_of_withdrawals_becomes_too_long(made: Cloud, monkeypatch) -> None:
    leaving.delete(made, "toy", "person-0", now=time.time())
    index.build(made, "toy", seed=0, now=time.time(), on_progress=toys.quiet)
    assert outcomes(made)["task toy"] == "ok"
    monkeypatch.setattr(doctor, "WITHDRAWN_LIMIT", 1)
    assert outcomes(made)["task toy"] == "warning"


def test_a_manifest_can_list_as_many_withdrawn_packs_as_the_doctor_says(made: Cloud) -> None:
    listed = Withdrawals(1, tuple(f"{number:064x}" for number in range(doctor.WITHDRAWN_LIMIT)))
    statement = Statement("manifest", "toy", 1, 1, 0.0, 1.0, plain(listed))
    assert 0.98 < len(seal(SigningKey.generate(), statement)) / JSON_LIMIT_BYTES < 1


@files_only
def test_the_doctor_names_what_is_wrong_and_what_to_do(made: Cloud) -> None:
    assert outcomes(made, now=time.time() + 800 * DAY_S)["certificate"] == "warning"
    assert outcomes(made, now=time.time() + 900 * DAY_S)["certificate"] == "failed"
    assert outcomes(made, now=toys.FAR - DAY_S)["task toy"] == "warning"
    publication = publications.require(made, "toy")
    names = made.blobs.path(searchable.read(made, publication.search.digest)[0].names)
    aside = names.rename(names.with_suffix(".aside"))
    (check,) = [check for check in doctor.examine(made, deep=False, now=time.time()) if check.name == "task toy"]
    assert (check.outcome, "index build" in check.hint) == ("failed", True), "no service could search after its start"
    aside.rename(names)
    pack = publication.packs[0]
    made.blobs.path(pack.ciphertext).write_bytes(b"damaged")
    made.keys.pseudonyms.unlink()
    found = {check.name: check for check in doctor.examine(made, deep=True, now=time.time())}
    assert (found["task toy"].outcome, found["keys"].outcome) == ("failed", "failed")
    assert all(check.hint for check in found.values() if check.outcome == "failed")
    done = toys.run("doctor", "--deep", data=made.settings.data)
    assert (done.returncode, "does not match its name" in done.stdout) == (1, True)
