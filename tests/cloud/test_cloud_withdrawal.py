"""Deletion that sticks: at once, in every copy that the cloud hands out, and through crashes and restores."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from cloud_aug import (
    backups,
    census,
    cloud,
    db,
    index,
    journal,
    packs,
    pool,
    pretrain,
    publications,
    searchable,
    withdrawals,
)
from cloud_aug.cloud import Cloud
from cloud_aug.journal import Withdrawal
from cloud_aug.pretrain import TrainSettings
from edgewire.decoding import convert
from edgewire.errors import CorruptFile, NotFound
from edgewire.messages import Manifest, PackRef, Withdrawals
from edgewire.samples import from_bytes, sample_digests, to_bytes
from edgewire.signing import open_sealed
from tests.cloud import toys
from tests.cloud.backends import files_only
from tests.cloud.test_cloud_exchange import contribute, find, found_by, queries, search, some
from tests.cloud.toys import FAR, TASK

CONSENT = pool.Consent("packs", FAR)


@pytest.fixture
def made(data) -> Cloud:
    return cloud.open_cloud(data)


def delete(made: Cloud, name: str = "person-0") -> withdrawals.Withdrawn:
    return withdrawals.delete(made, "toy", name, now=time.time())


def build(made: Cloud) -> publications.Publication:
    return index.build(made, "toy", seed=0, now=time.time(), on_progress=toys.quiet).publication


def digests_of(made: Cloud, name: str) -> set[str]:
    shared = pool.load(made, TASK, now=time.time())
    return {shared.digests[i] for i in np.flatnonzero(shared.samples.user == name).tolist()}


def in_packs(made: Cloud, publication: publications.Publication) -> set[str]:
    return {name for ref in publication.packs for name in _of_pack(made, ref)}


def manifest(client: Any, cloud_: Cloud, bearer: dict[str, str], now: float) -> Manifest:
    envelope = client.get("/v1/tasks/toy/manifest", headers=bearer).content
    keys = cloud_.trust().signing_keys
    return convert(Manifest, open_sealed(envelope, keys, type="manifest", task="toy", now=now).body, what="manifest")


def test_the_next_search_is_without_what_was_deleted(client, cloud, bearer):
    theirs = digests_of(cloud, "person-0")
    assert search(client, bearer, queries(cloud, k=100)).status_code == 200
    assert delete(cloud) == withdrawals.Withdrawn(1, 18, changed=True)
    found = [row.tobytes().hex() for row in found_by(search(client, bearer, queries(cloud, k=100)))[0]]
    assert len(found) == 90
    assert not theirs & set(found)


def test_packs_that_hold_it_are_gone_and_listed_under_signature(client, cloud, bearer, clock):
    theirs = digests_of(cloud, "person-0")
    refs = publications.require(cloud, "toy").packs
    before = manifest(client, cloud, bearer, clock())
    assert not isinstance(before.withdrawals, Withdrawals)
    delete(cloud)
    holding = tuple(sorted(ref.digest for ref in refs if theirs & set(_of_pack(cloud, ref))))
    assert manifest(client, cloud, bearer, clock()).withdrawals == Withdrawals(1, holding)
    for ref in refs:
        status = client.get(f"/v1/blobs/{ref.digest}", headers=bearer).status_code
        assert status == (410 if ref.digest in holding else 200)


def _of_pack(made: Cloud, ref: PackRef) -> list[str]:
    return sample_digests(from_bytes(packs.read(made, "toy", ref), TASK, what="pack", limit_bytes=1 << 20))


def test_the_next_build_leaves_it_out_and_removes_the_files(made):
    theirs, before = digests_of(made, "person-0"), publications.require(made, "toy")
    old_files = searchable.read(made, before.search.digest)[0].files
    delete(made)
    after = build(made)
    assert (after.contributors, after.samples) == (5, 90)
    assert not theirs & in_packs(made, after)
    assert sum(one.vectors for one in searchable.read(made, after.search.digest)[0].classes) == 90
    withdrawn = before.pack_names - after.pack_names
    for name in (*withdrawn, *old_files, before.search.digest):
        with pytest.raises(NotFound):
            made.blobs.path(name)


def test_what_was_deleted_is_not_taken_in_again_until_a_new_consent(made, tmp_path):
    file = toys.data_file(tmp_path / "people.npz")
    delete(made)
    again = pool.ingest(made, file, "toy", CONSENT, now=time.time())
    assert (again.accepted, again.withdrawn, again.changed) == (0, 18, False)
    renewed = pool.ingest(made, file, "toy", CONSENT, renewed=["person-0"], now=time.time())
    assert (renewed.accepted, renewed.withdrawn) == (18, 0)
    assert delete(made).number == 2


def test_packs_of_before_stay_withdrawn_after_a_new_consent(client, cloud, bearer, tmp_path):
    before = {ref.digest for ref in publications.require(cloud, "toy").packs}
    delete(cloud)
    file = toys.data_file(tmp_path / "people.npz")
    pool.ingest(cloud, file, "toy", CONSENT, renewed=["person-0"], now=time.time())
    after = {ref.digest for ref in build(cloud).packs}
    assert len(before - after) == 1, "the same samples, in another pack"
    assert client.get(f"/v1/blobs/{(before - after).pop()}", headers=bearer).status_code == 410
    assert all(client.get(f"/v1/blobs/{name}", headers=bearer).status_code == 200 for name in after)


def test_a_board_withdraws_what_it_shared_and_nothing_else(client, cloud, board, bearer, clock):
    contribute(client, bearer, to_bytes(some(), "toy"))
    pool.accept(cloud, "toy", board.id, now=clock())
    answer = client.delete("/v1/tasks/toy/contributors/me", headers=bearer)
    assert answer.json() == {"number": 1, "samples": 4}
    assert client.delete("/v1/tasks/toy/contributors/me", headers=bearer).json() == {"number": 1, "samples": 0}
    assert census.stats(cloud, "toy", now=clock()).usable == 108
    assert contribute(client, bearer, to_bytes(some(), "toy")).json()["accepted"] == 4, "the answer of the first time"
    assert census.stats(cloud, "toy", now=clock()).quarantine == 0


def test_a_stranger_withdraws_nothing(client, code):
    assert client.delete("/v1/tasks/toy/contributors/me").status_code == 401


def test_a_board_without_samples_cannot_tell_whether_a_task_exists(client, bearer):
    answers = [client.delete(f"/v1/tasks/{task}/contributors/me", headers=bearer) for task in ("toy", "nothing")]
    assert [answer.json() for answer in answers] == [{"number": 0, "samples": 0}] * 2


def test_who_was_never_there_cannot_be_deleted(made):
    with pytest.raises(NotFound):
        delete(made, "nobody")


def test_who_withdraws_while_the_index_is_built_is_in_no_pack_that_is_given_out(made, monkeypatch, client, bearer):
    def on_progress(stage: str, _done: int, _total: int) -> None:
        if stage == "verify":
            delete(made)

    built = index.build(made, "toy", seed=1, now=time.time(), on_progress=on_progress).publication
    statuses = [client.get(f"/v1/blobs/{ref.digest}", headers=bearer).status_code for ref in built.packs]
    assert statuses.count(410) == 1


def test_the_base_can_be_trained_without_a_contributor(made):
    settings = TrainSettings(epochs=1, rehearse=False, without=("person-0",))
    record = pretrain.train(made, "toy", settings, now=time.time(), on_progress=toys.quiet).record
    assert (record.contributors, record.samples) == (5, 90)


def test_a_kill_between_journal_and_database_is_made_good_at_the_next_start(made, monkeypatch):
    def killed(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(journal, "apply", killed)
        with pytest.raises(KeyboardInterrupt):
            delete(made)
    assert digests_of(made, "person-0")
    assert not digests_of(cloud.open_cloud(made.settings.data), "person-0")


def test_database_and_journal_teach_each_other(made):
    delete(made)
    made.journal.unlink()
    journal.append(made.journal, [Withdrawal("toy", "person-1", 1, 5.0), Withdrawal("gone", "x", 1, 5.0)])
    again = cloud.open_cloud(made.settings.data)
    assert census.stats(again, "toy", now=time.time()).withdrawals == 2
    assert {one.contributor for one in journal.read(made.journal)} == {"person-0", "person-1", "x"}
    assert journal.reconcile(again.database, again.journal) == 0


def test_a_line_that_a_kill_cut_off_is_passed_over_and_a_damaged_one_is_not(tmp_path):
    file, first = tmp_path / "journal", Withdrawal("toy", "ann", 1, 1.0)
    journal.append(file, [first])
    file.write_bytes(file.read_bytes() + b'{"at":2.0,"contr')
    second = Withdrawal("toy", "bob", 1, 2.0)
    journal.append(file, [second])
    assert journal.read(file) == [first, second]
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_bytes(b"\0" * 40 + b"\n" + file.read_bytes())
    with pytest.raises(CorruptFile, match="line 1"):
        journal.read(file)


def snapshot(data: Path, target: Path) -> None:
    """Database and blobs as they are, as a backup takes them; without the journal."""
    target.mkdir()
    with closing(sqlite3.connect(data / "cloud.sqlite3")) as source, closing(sqlite3.connect(target / "db")) as copy:
        source.backup(copy)
    shutil.copytree(data / "blobs", target / "blobs")


def restore(data: Path, source: Path) -> None:
    for path in data.glob("cloud.sqlite3*"):
        path.unlink()
    shutil.rmtree(data / "blobs")
    shutil.copy(source / "db", data / "cloud.sqlite3")
    shutil.copytree(source / "blobs", data / "blobs")


@files_only
def test_nothing_comes_back_through_kills_restarts_restores_and_rebuilds(data, tmp_path):
    made, rng, gone = cloud.open_cloud(data), random.Random(0), {}
    file = toys.data_file(tmp_path / "more.npz", toys.people(12, seed=3))
    pool.ingest(made, file, "toy", CONSENT, now=time.time())
    build(made)
    snapshot(data, tmp_path / "before")
    for name in ("person-1", "person-4", "person-9"):
        theirs = digests_of(made, name)
        made.database.close()
        _delete_and_kill(data, name, rng)
        made = cloud.open_cloud(data)
        delete(made, name)  # if the killed command had not done it
        gone[name] = theirs
        made.database.close()
        restore(data, tmp_path / "before")
        made = cloud.open_cloud(data)
        assert _epoch(made) > 1
        pool.ingest(made, file, "toy", CONSENT, now=time.time())
        published = in_packs(made, build(made))
        for lost in gone.values():
            assert lost
            assert not lost & set(pool.load(made, TASK, now=time.time()).digests)
            assert not lost & published
    assert census.stats(made, "toy", now=time.time()).withdrawals == 3


@files_only
def test_a_pack_that_the_restored_database_never_knew_is_on_the_list(data, tmp_path):
    made = cloud.open_cloud(data)
    snapshot(data, tmp_path / "before")
    pool.ingest(made, toys.data_file(tmp_path / "more.npz", toys.people(6, seed=3)), "toy", CONSENT, now=time.time())
    later = {ref.digest for ref in build(made).packs}
    delete(made, "person-2")
    made.database.close()
    restore(data, tmp_path / "before")
    again = cloud.open_cloud(data)
    with again.database.reading() as connection:
        listed = set(publications.withdrawn_packs(connection, "toy"))
    assert later & listed


def _restored(made: Cloud, source: Path) -> Cloud:
    backups.restore(made.settings.data, source, now=time.time(), on_progress=toys.quiet)
    return cloud.open_cloud(made.settings.data)


def _backup(made: Cloud, target: Path) -> Path:
    backups.back_up(made, target, with_blobs=True, now=time.time(), on_progress=toys.quiet)
    return target


def _consent_of(made: Cloud, name: str) -> tuple[float, int]:
    column = db.contributors.c
    query = sa.select(column.consent_until, column.withdrawals).where(column.contributor == name)
    with made.database.reading() as connection:
        until, number = connection.execute(query).one()
    return until, number


def test_a_restore_leaves_every_consent_as_it_was_given_last(made, tmp_path):
    file, sooner = toys.data_file(tmp_path / "people.npz"), time.time() + 1000.0
    delete(made, "person-0")
    delete(made, "person-1")
    pool.ingest(made, file, "toy", CONSENT, renewed=["person-0"], now=time.time())
    source, shared = _backup(made, tmp_path / "backup"), digests_of(made, "person-0")
    pool.ingest(made, file, "toy", pool.Consent("packs", sooner), now=time.time())  # not of who withdrew
    delete(made, "person-5")
    for _ in range(2):
        made = _restored(made, source)
        consents = [_consent_of(made, f"person-{i}") for i in (0, 1, 2, 5)]
        assert consents == [(FAR, 1), (0.0, 1), (sooner, 0), (0.0, 1)]
        assert digests_of(made, "person-0") == shared, "given anew before the backup, and not taken back since"
        assert not digests_of(made, "person-5")


@files_only
def test_a_backup_made_afterwards_holds_no_byte_of_it(made, tmp_path):
    shared = pool.load(made, TASK, now=time.time()).samples
    values = {name: shared.x[shared.user == name][0].tobytes() for name in ("person-0", "person-1")}
    delete(made, "person-0")
    copied = (_backup(made, tmp_path / "backup") / backups.DATABASE).read_bytes()
    assert {name: raw in copied for name, raw in values.items()} == {"person-0": False, "person-1": True}
    with made.database.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA secure_delete").scalar() == 1


def test_a_restore_brings_back_no_file_of_a_withdrawn_pack_and_a_build_goes_on(made, tmp_path):
    before = publications.require(made, "toy")
    source = _backup(made, tmp_path / "backup")
    delete(made)
    build(made)
    made = _restored(made, source)
    with made.database.reading() as connection:
        listed = set(publications.withdrawn_packs(connection, "toy"))
    kept = {ref.digest for ref in before.packs if ref.ciphertext in {blob.digest for blob in made.blobs.stored()}}
    assert kept == {ref.digest for ref in before.packs} - listed
    assert len(kept) < len(before.packs)
    assert build(made).contributors == 5


def test_any_number_of_packs_may_have_been_withdrawn(made):
    names = [f"{number:064x}" for number in range(70_000)]
    (ref, *_) = publications.require(made, "toy").packs
    with made.database.reading() as connection:
        assert packs.stored(connection, "toy", [*names, ref.digest]) == [*names, ref.digest, ref.ciphertext]


def test_who_withdraws_after_a_restore_takes_back_packs_that_the_backup_never_knew(made, tmp_path):
    source = _backup(made, tmp_path / "backup")
    pool.ingest(made, toys.data_file(tmp_path / "more.npz", toys.people(6, seed=3)), "toy", CONSENT, now=time.time())
    later = {ref.digest for ref in build(made).packs}
    made = _restored(made, source)
    delete(made, "person-2")
    with made.database.reading() as connection:
        listed = set(publications.withdrawn_packs(connection, "toy"))
    assert len(listed & later) == 1
    assert len(listed) == 2, "and the one that the backup knows"


def test_a_withdrawal_that_ends_while_a_command_starts_is_not_done_again(made, tmp_path, monkeypatch):
    stale, before = journal._known, _epoch(made)

    def known(connection: sa.Connection) -> dict[tuple[str, str], Withdrawal]:
        seen = stale(connection)  # the file has the line by now, this snapshot lacks the row
        with monkeypatch.context() as patch:
            patch.setattr(journal, "_known", stale)
            pool.ingest(made, file, "toy", CONSENT, renewed=["person-0"], now=time.time())
        return {key: one for key, one in seen.items() if key[1] != "person-0"}

    file = toys.data_file(tmp_path / "people.npz")
    delete(made)
    monkeypatch.setattr(journal, "_known", known)
    assert journal.reconcile(made.database, made.journal) == 0
    assert (_epoch(made), len(digests_of(made, "person-0"))) == (before, 18)


def _delete_and_kill(data: Path, name: str, rng: random.Random) -> None:
    line = toys.command("pool", "delete", "--task", "toy", "--contributor", name, data=data)
    process = subprocess.Popen(line, env=toys.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(rng.uniform(0.3, 1.2))
    os.kill(process.pid, signal.SIGKILL)
    process.wait(30)


def _epoch(made: Cloud) -> int:
    with made.database.reading() as connection:
        return db.epoch(connection)


def test_an_answer_holds_no_sample_twice_and_no_more_than_a_fifth_of_one_contributor(made, tmp_path, client, bearer):
    flood = toys.people(1, 300, seed=8)
    both = {name: np.concatenate([column, column]) for name, column in flood.items()}
    both["user"] = np.repeat(["flood", "echo"], 900)
    pool.ingest(made, toys.data_file(tmp_path / "flood.npz", both), "toy", CONSENT, now=time.time())
    build(made)
    found = find(client, bearer, queries(made, k=100, n=8))
    counts = np.unique(found.user, return_counts=True)[1]
    assert counts.max() <= len(found) / 5
    assert len(set(sample_digests(found))) == len(found)
