"""A publication in a folder: the way back from a build, which brings nothing back that was withdrawn."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud_aug import cloud, garbage, index, packs, pool, publications, snapshots, withdrawals
from cloud_aug.cloud import Cloud
from cloud_aug.releases import steering, waves
from cloud_aug.releases.plan import Wave
from edgewire.errors import Conflict, CorruptFile, NotFound
from edgewire.samples import sample_digests
from tests.cloud import toys
from tests.cloud.backends import files_only
from tests.cloud.releasing import Device, second_base, started
from tests.cloud.test_cloud_exchange import find, queries
from tests.cloud.toys import TASK


@pytest.fixture
def made(data) -> Cloud:
    return cloud.open_cloud(data)


def take(made: Cloud, target: Path) -> Path:
    snapshots.take(made, "toy", target, now=time.time(), on_progress=toys.quiet)
    return target


def restore(made: Cloud, source: Path) -> snapshots.Restored:
    return snapshots.restore(made, source, now=time.time(), on_progress=toys.quiet)


def grow(made: Cloud, folder: Path) -> publications.Publication:
    """Three more contributors, and a build."""
    columns = toys.people(3, seed=9)
    columns["user"] = np.char.add(columns["user"], "x")
    file = toys.data_file(folder / "more.npz", columns)
    pool.ingest(made, file, "toy", pool.Consent("packs", toys.FAR), now=time.time())
    return index.build(made, "toy", seed=0, now=time.time(), on_progress=toys.quiet).publication


def statuses(client: Any, bearer: dict[str, str], publication: publications.Publication) -> list[int]:
    return [client.get(f"/v1/blobs/{ref.ciphertext}", headers=bearer).status_code for ref in publication.packs]


def test_an_earlier_publication_comes_back_as_the_newest_and_the_pool_stays(client, cloud, bearer, tmp_path):
    before, folder = publications.require(cloud, "toy"), take(cloud, tmp_path / "snapshot")
    assert grow(cloud, tmp_path).contributors == 9
    done = restore(cloud, folder)
    assert (done.changed, done.publication.version, done.publication.content) == (True, 3, before.content)
    assert statuses(client, bearer, done.publication) == [200] * len(before.packs)
    assert len(find(client, bearer, queries(cloud, k=100))) == 108
    assert index.build(cloud, "toy", seed=0, now=time.time(), on_progress=toys.quiet).publication.contributors == 9


def test_what_was_withdrawn_since_stays_withdrawn(client, cloud, bearer, tmp_path):
    folder = take(cloud, tmp_path / "snapshot")
    shared = pool.load(cloud, TASK, now=time.time())
    theirs = {name for name, user in zip(shared.digests, shared.samples.user, strict=True) if user == "person-0"}
    withdrawals.delete(cloud, "toy", "person-0", now=time.time())
    grow(cloud, tmp_path)
    publication = restore(cloud, folder).publication
    assert sorted(statuses(client, bearer, publication)) == [200] * (len(publication.packs) - 1) + [410]
    assert not theirs & set(sample_digests(find(client, bearer, queries(cloud, k=100))))
    with cloud.database.reading() as connection:
        (gone,) = set(publications.withdrawn_packs(connection, "toy")) & {ref.digest for ref in publication.packs}
    (ref,) = [ref for ref in publication.packs if ref.digest == gone]
    with pytest.raises(NotFound):
        cloud.blobs.path(ref.ciphertext)


def test_packs_open_whatever_was_replaced_and_collected_since(made, tmp_path):
    folder = take(made, tmp_path / "snapshot")
    packs.replace_secret(made, "toy", now=time.time())
    grow(made, tmp_path)
    garbage.collect(made, now=time.time() + 8 * 86400.0)
    publication = restore(made, folder).publication
    assert all(packs.read(made, "toy", ref) for ref in publication.packs)


def test_boards_that_run_a_newer_base_by_a_release_still_find_it_until_it_is_called_back(made, tmp_path):
    now, folder = time.time(), take(made, tmp_path / "snapshot")
    second_base(made)
    device, release = Device(made).enroll(now=now), started(made, now=now, waves=(Wave(1.0, 1.0),)).info.id
    device.does("committed", now=now + 2)
    with made.database.reading() as connection:
        newer = publications.general(connection, "toy")
    assert newer is not None
    assert (newer.base.version, restore(made, folder).publication.base.version) == (2, 1)
    waves.advance_all(made, now=now + 3)
    assert [order.action for order, _ in device.asks(now=now + 3)] == ["install"]
    found = publications.require(made, "toy", base=newer.base.onnx.digest)
    assert found.base.version == 2
    garbage.collect(made, grace_s=0.0, now=now * 2)
    made.blobs.check(found.search.digest)
    steering.abort(made, release, now=now + 4)
    assert [order.action for order, _ in device.asks(now=now + 5)] == ["revert"]


def test_restoring_what_is_published_changes_nothing(made, tmp_path):
    before = publications.require(made, "toy")
    assert restore(made, take(made, tmp_path / "snapshot")) == snapshots.Restored(before, changed=False)


def test_a_snapshot_is_whole_or_none(made, tmp_path):
    folder = take(made, tmp_path / "snapshot")
    with pytest.raises(Conflict, match="is there already"):
        take(made, folder)
    file = next(folder.glob("blobs/??/*"))
    file.write_bytes(b"damaged")
    with pytest.raises(CorruptFile, match="damaged"):
        restore(made, folder)
    (folder / "snapshot.json").unlink()
    with pytest.raises(NotFound, match="no whole snapshot"):
        restore(made, folder)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_snapshot_of_a_publication_with_withdrawn_packs_is_refused(made, tmp_path):
    withdrawals.delete(made, "toy", "person-0", now=time.time())
    with pytest.raises(Conflict, match="withdrawn"):
        take(made, tmp_path / "snapshot")


def test_a_snapshot_goes_back_only_where_it_came_from(made, tmp_path):
    folder = take(made, tmp_path / "snapshot")
    with pytest.raises(Conflict, match="another cloud"):
        restore(toys.filled(tmp_path / "other"), folder)


@files_only
def test_contributors_that_the_database_does_not_know_are_not_brought_back(made, tmp_path):
    old = shutil.copytree(made.settings.data, tmp_path / "old")
    grow(made, tmp_path)
    folder = take(made, tmp_path / "snapshot")
    earlier = cloud.open_cloud(old)
    with pytest.raises(Conflict, match="does not know"):
        restore(earlier, folder)
    assert publications.require(earlier, "toy").version == 1


@files_only
def test_both_are_commands(data, tmp_path):
    folder = tmp_path / "snapshot"
    assert toys.report("index", "snapshot", str(folder), "--task", "toy", data=data)["blobs"] > 5
    made = cloud.open_cloud(data)
    grow(made, tmp_path)
    assert toys.report("index", "restore", str(folder), data=data)["publication"]["version"] == 3
    assert not toys.report("index", "restore", str(folder), data=data)["changed"]
