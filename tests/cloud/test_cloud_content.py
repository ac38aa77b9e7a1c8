"""What boards fetch: manifest, directory, packs, base."""

from __future__ import annotations

import time
from typing import Any

import pytest

from cloud_aug import index, keys, pool, publications
from cloud_aug.publications import MANIFEST_LIFETIME_S
from edgelearn.retrieval.directory import Directory
from edgewire import tensors
from edgewire.decoding import convert
from edgewire.files import digest
from edgewire.messages import DIRECTORY_LIMIT_BYTES, DirectoryMeta, Manifest
from edgewire.samples import from_bytes
from edgewire.signing import Statement, open_sealed
from edgewire.trust import walk
from tests.cloud import toys
from tests.cloud.toys import TASK


@pytest.fixture
def publication(cloud) -> publications.Publication:
    return publications.require(cloud, "toy")


def fetch(client: Any, bearer: dict[str, str], blob: str, **headers: str) -> Any:
    return client.get(f"/v1/blobs/{blob}", headers={**bearer, **headers})


def opened(cloud: Any, envelope: bytes, now: float) -> Statement:
    return open_sealed(envelope, cloud.trust().signing_keys, type="manifest", task="toy", now=now)


def test_a_board_walks_from_its_root_to_the_manifest_and_reads_every_blob(client, cloud, board, bearer, clock):
    roots = cloud.trust().roots
    trust = walk(roots, [text.encode() for text in board.trust], now=clock())
    envelope = client.get("/v1/tasks/toy/manifest", headers=bearer).content
    statement = open_sealed(envelope, trust.signing_keys, type="manifest", task="toy", now=clock())
    manifest = convert(Manifest, statement.body, what="manifest")
    data = fetch(client, bearer, manifest.directory.digest).content
    arrays, meta = tensors.unpack(data, what="directory", limit_bytes=DIRECTORY_LIMIT_BYTES)
    described = convert(DirectoryMeta, meta, what="directory")
    assert Directory(**arrays).cohorts == 1 + max(pack.cohort for pack in described.packs)
    packs = [fetch(client, bearer, pack.digest).content for pack in described.packs]
    assert [digest(pack) for pack in packs] == [pack.digest for pack in described.packs]
    samples = [from_bytes(pack, TASK, what="pack", limit_bytes=1 << 20) for pack in packs]
    assert sum(len(part) for part in samples) == 108
    assert fetch(client, bearer, manifest.base.onnx.digest).status_code == 200


def test_packs_hold_pseudonyms_and_no_recordings_or_times(client, bearer, publication):
    for ref in publication.packs:
        samples = from_bytes(fetch(client, bearer, ref.digest).content, TASK, what="pack", limit_bytes=1 << 20)
        assert not any("person" in str(user) for user in samples.user)
        assert set(samples.group.tolist()) == {""}


def test_a_manifest_that_did_not_change_is_answered_by_304(client, bearer):
    first = client.get("/v1/tasks/toy/manifest", headers=bearer)
    again = client.get("/v1/tasks/toy/manifest", headers={**bearer, "If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_manifest_is_sealed_again_before_half_of_its_life_has_passed(client, cloud, board, bearer, clock):
    first = opened(cloud, client.get("/v1/tasks/toy/manifest", headers=bearer).content, clock())
    clock.now += MANIFEST_LIFETIME_S / 2 + 1
    headers = board.headers(client, now=clock())
    second = opened(cloud, client.get("/v1/tasks/toy/manifest", headers=headers).content, clock())
    assert second.expires_at > first.expires_at
    assert (second.version, second.body) == (first.version, first.body)


def test_a_new_publication_raises_the_version_and_is_served_at_once(client, cloud, bearer, clock, tmp_path):
    before = opened(cloud, client.get("/v1/tasks/toy/manifest", headers=bearer).content, clock())
    file = toys.data_file(tmp_path / "more.npz", toys.people(3, seed=9))
    pool.ingest(cloud, file, "toy", pool.Consent("packs", toys.FAR), now=time.time())
    index.build(cloud, "toy", seed=0, now=clock(), on_progress=toys.quiet)
    after = opened(cloud, client.get("/v1/tasks/toy/manifest", headers=bearer).content, clock())
    assert after.version == before.version + 1
    assert after.body["directory"] != before.body["directory"]


def test_a_publication_in_the_middle_of_a_request_for_the_manifest_is_not_undone_by_it(
    client, cloud, bearer, clock, tmp_path, monkeypatch
):
    client.get("/v1/tasks/toy/manifest", headers=bearer)
    toys.publish_changed(cloud, reports=False)  # so that the next request seals again
    newest, raced = keys.newest, []

    def publish_meanwhile(connection: Any) -> Any:
        if not raced:
            raced.append(1)
            file = toys.data_file(tmp_path / "more.npz", toys.people(3, seed=9))
            pool.ingest(cloud, file, "toy", pool.Consent("packs", toys.FAR), now=clock())
            index.build(cloud, "toy", seed=0, now=clock(), on_progress=toys.quiet)
        return newest(connection)

    monkeypatch.setattr(keys, "newest", publish_meanwhile)
    answer = opened(cloud, client.get("/v1/tasks/toy/manifest", headers=bearer).content, clock())
    assert raced
    assert answer.body["directory"]["digest"] == publications.require(cloud, "toy").directory.digest


def test_a_changed_privacy_policy_reaches_boards_without_a_new_build(client, cloud, bearer, clock):
    before = opened(cloud, client.get("/v1/tasks/toy/manifest", headers=bearer).content, clock())
    toys.publish_changed(cloud, modes=["directory"])
    after = opened(cloud, client.get("/v1/tasks/toy/manifest", headers=bearer).content, clock())
    assert after.version == before.version + 1
    assert after.body["task"]["privacy"]["modes"] == ["directory"]


def test_a_blob_can_be_continued_where_it_was_cut_off(client, bearer, publication):
    name = publication.base.onnx.digest
    whole = fetch(client, bearer, name)
    assert whole.headers["etag"] == f'"{name}"'
    assert "immutable" in whole.headers["cache-control"]
    rest = fetch(client, bearer, name, **{"Range": "bytes=1000-", "If-Range": f'"{name}"'})
    assert (rest.status_code, rest.content) == (206, whole.content[1000:])
    assert rest.headers["content-range"] == f"bytes 1000-{len(whole.content) - 1}/{len(whole.content)}"


def test_a_range_of_another_blob_gives_the_whole_one(client, bearer, publication):
    name = publication.base.onnx.digest
    answer = fetch(client, bearer, name, **{"Range": "bytes=1000-", "If-Range": '"0000"'})
    assert (answer.status_code, len(answer.content)) == (200, publication.base.onnx.size)


def test_a_range_beyond_the_end_is_not_satisfiable(client, bearer, publication):
    name = publication.directory.digest
    answer = fetch(client, bearer, name, Range="bytes=99999999-")
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{publication.directory.size}"


@pytest.mark.parametrize("text", ["bytes=x", "items=0-1", "bytes=0-1,3-4", "bytes=-", "bytes=-0", "bytes=9-3"])
def test_a_range_that_is_none_is_refused_with_a_code(client, bearer, publication, code, text):
    assert code(fetch(client, bearer, publication.directory.digest, Range=text)) == (400, "usage")


def test_head_tells_the_size_and_a_known_etag_costs_no_body(client, bearer, publication):
    name = publication.directory.digest
    head = client.head(f"/v1/blobs/{name}", headers=bearer)
    assert (head.headers["content-length"], head.content) == (str(publication.directory.size), b"")
    assert fetch(client, bearer, name, **{"If-None-Match": f'"{name}"'}).status_code == 304


def test_blobs_that_are_not_published_for_a_granted_task_do_not_exist(client, cloud, bearer, publication, code):
    secret = cloud.blobs.put(b"not for boards").digest
    for name in (secret, "0" * 64, publication.search.digest):
        assert code(fetch(client, bearer, name)) == (404, "not_found")


@pytest.mark.parametrize("name", ["..%2F..%2Fcloud.sqlite3", "A" * 64, "0" * 63])
def test_names_that_are_no_digests_are_refused(client, bearer, name):
    assert fetch(client, bearer, name).status_code in (404, 422)


def test_a_pack_is_refused_once_a_consent_to_its_samples_has_ended_in_every_publication(
    client, cloud, bearer, clock, publication, tmp_path, code
):
    file = toys.data_file(tmp_path / "more.npz", toys.people(3, seed=9))
    pool.ingest(cloud, file, "toy", pool.Consent("packs", toys.FAR), now=clock())
    built = index.build(cloud, "toy", seed=0, now=clock(), on_progress=toys.quiet)
    assert built.good_until == toys.FAR
    one = toys.data_file(tmp_path / "one.npz", {name: column[:1] for name, column in toys.people().items()})
    pool.ingest(cloud, one, "toy", pool.Consent("packs", clock() + 60), now=clock())
    packs = {pack.digest for pack in (*publication.packs, *built.publication.packs)}
    assert {fetch(client, bearer, name).status_code for name in packs} == {200}
    clock.now += 61
    refused = [name for name in packs if fetch(client, bearer, name).status_code == 410]
    assert any(pack.digest in refused for pack in publication.packs)
    assert any(pack.digest in refused for pack in built.publication.packs)
    assert len(refused) < len(packs)
    assert code(fetch(client, bearer, refused[0])) == (410, "gone")
    assert fetch(client, bearer, publication.directory.digest).status_code == 200
    again = index.build(cloud, "toy", seed=0, now=clock(), on_progress=toys.quiet)
    assert {fetch(client, bearer, pack.digest).status_code for pack in again.publication.packs} == {200}


def test_packs_of_an_older_publication_stay_there_for_a_sync_under_way(
    client, cloud, bearer, clock, publication, tmp_path
):
    file = toys.data_file(tmp_path / "more.npz", toys.people(3, seed=9))
    pool.ingest(cloud, file, "toy", pool.Consent("packs", toys.FAR), now=time.time())
    index.build(cloud, "toy", seed=0, now=clock(), on_progress=toys.quiet)
    assert fetch(client, bearer, publication.packs[0].digest).status_code == 200
