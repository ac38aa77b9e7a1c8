"""Packs on the cloud: nothing to read in the store, keys for who may have them, secrets that can be replaced."""

from __future__ import annotations

import shutil
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from cloud_aug import backups, cloud, db, doctor, garbage, index, packs, publications, settings, withdrawals
from cloud_aug.app import create_app
from cloud_aug.cloud import Cloud
from edgewire.encryption import HEAD, decrypt
from edgewire.errors import CorruptFile, NotFound
from edgewire.files import digest
from edgewire.messages import BlobRef
from edgewire.samples import from_bytes
from edgewire.signing import unb64
from tests.cloud import toys
from tests.cloud.backends import files_only
from tests.cloud.toys import TASK

GOLDEN = Path(__file__).parent / "golden" / "folder-0004.tar.gz"
LATER = 8 * 86400.0  # more than gc's grace


@pytest.fixture
def made(data) -> Cloud:
    return cloud.open_cloud(data)


def build(made: Cloud, *, now: float | None = None) -> publications.Publication:
    return index.build(made, "toy", seed=0, now=now or time.time(), on_progress=toys.quiet).publication


def keys(client: Any, bearer: dict[str, str], names: list[str], task: str = "toy") -> Any:
    return client.post(f"/v1/tasks/{task}/keys", json={"packs": names}, headers=bearer)


def fetch(client: Any, bearer: dict[str, str], name: str) -> Any:
    return client.get(f"/v1/blobs/{name}", headers=bearer)


def stored(made: Cloud) -> list[bytes]:
    return [made.blobs.read(blob.digest) for blob in made.blobs.stored()]


def test_every_pack_is_encrypted_where_it_is_stored(made):
    refs = publications.require(made, "toy").packs
    for ref in refs:
        raw = made.blobs.read(ref.ciphertext)
        assert raw.startswith(HEAD)
        assert len(raw) == ref.size + 32
        with pytest.raises(NotFound):
            made.blobs.read(ref.digest)
    assert not any(b"samples/1" in raw for raw in stored(made))


def test_a_pack_is_fetched_by_its_ciphertext_and_opens_with_its_key(client, cloud, bearer):
    refs = publications.require(cloud, "toy").packs
    given = keys(client, bearer, [ref.ciphertext for ref in refs]).json()["keys"]
    for ref, key in zip(refs, given, strict=True):
        answer = fetch(client, bearer, ref.ciphertext)
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        raw = decrypt(answer.content, unb64(key), name=ref.digest)
        assert len(from_bytes(raw, TASK, what="pack", limit_bytes=1 << 20)) == ref.samples
    assert len(set(given)) == len(refs), "a key opens one pack"


def test_a_board_of_an_older_release_gets_packs_by_their_own_digest_over_tls(client, cloud, bearer):
    for ref in publications.require(cloud, "toy").packs:
        answer = fetch(client, bearer, ref.digest)
        assert digest(answer.content) == ref.digest
        assert (answer.headers["etag"], answer.headers["cache-control"]) == (f'"{ref.digest}"', "no-store")


def test_nobody_gets_a_key_without_a_grant_of_the_task(client, cloud, bearer, code, clock):
    (name, *_) = [ref.ciphertext for ref in publications.require(cloud, "toy").packs]
    assert code(keys(client, {}, [name])) == (401, "unauthorized")
    assert code(keys(client, bearer, [name], task="other")) == (403, "not_granted")
    with cloud.database.writing() as connection:
        connection.execute(db.grants.delete())
    assert code(keys(client, bearer, [name])) == (403, "not_granted")


@pytest.mark.parametrize(
    "body", [{}, {"packs": []}, {"packs": ["x"]}, {"packs": "0" * 64}, {"packs": ["0" * 64] * 1001}]
)
def test_a_question_for_keys_that_is_none_is_refused(client, bearer, body):
    assert client.post("/v1/tasks/toy/keys", json=body, headers=bearer).status_code == 422


def test_the_key_of_a_withdrawn_pack_is_not_given_from_the_next_request_on(client, cloud, bearer, clock):
    refs = publications.require(cloud, "toy").packs
    names = [ref.ciphertext for ref in refs]
    assert None not in keys(client, bearer, names).json()["keys"]
    withdrawals.delete(cloud, "toy", "person-0", now=clock())
    gone = [key is None for key in keys(client, bearer, names).json()["keys"]]
    assert sum(gone) == 1
    for ref, withdrawn in zip(refs, gone, strict=True):
        expected = 410 if withdrawn else 200
        assert {fetch(client, bearer, name).status_code for name in (ref.digest, ref.ciphertext)} == {expected}


def test_a_withdrawn_pack_leaves_the_store_with_the_next_build(made):
    before = {ref.ciphertext for ref in publications.require(made, "toy").packs}
    withdrawals.delete(made, "toy", "person-0", now=time.time())
    after = {ref.ciphertext for ref in build(made).packs}
    assert len(before - after) == 1
    with pytest.raises(NotFound):
        made.blobs.path((before - after).pop())


def test_the_key_ends_with_the_consent(client, cloud, bearer, clock):
    names = [ref.ciphertext for ref in publications.require(cloud, "toy").packs]
    with cloud.database.writing() as connection:
        mine = db.contributors.c.contributor == "person-0"
        connection.execute(db.contributors.update().where(mine).values(consent_until=clock() + 60))
    assert None not in keys(client, bearer, names).json()["keys"]
    clock.now += 61
    assert keys(client, bearer, names).json()["keys"].count(None) == 1


def test_the_same_pool_gives_the_same_ciphertexts_again(made):
    before = publications.require(made, "toy")
    with made.database.writing() as connection:
        connection.execute(db.publications.delete())
    assert {ref.ciphertext for ref in build(made).packs} == {ref.ciphertext for ref in before.packs}


def test_a_new_secret_encrypts_everything_anew_and_changes_no_pack(client, cloud, bearer, clock):
    before = publications.require(cloud, "toy")
    assert packs.replace_secret(cloud, "toy", now=clock()).generation == 2
    after = build(cloud, now=clock())
    assert [ref.digest for ref in after.packs] == [ref.digest for ref in before.packs]
    assert not {ref.ciphertext for ref in after.packs} & {ref.ciphertext for ref in before.packs}
    for ref in (*before.packs, *after.packs):
        (key,) = keys(client, bearer, [ref.ciphertext]).json()["keys"]
        assert decrypt(fetch(client, bearer, ref.ciphertext).content, unb64(key), name=ref.digest)


def test_a_replaced_secret_goes_with_the_last_pack_that_it_opens(made):
    before, now = publications.require(made, "toy"), time.time()
    packs.replace_secret(made, "toy", now=now)
    build(made, now=now)
    garbage.collect(made, now=now)
    assert packs.read(made, "toy", before.packs[0])
    assert garbage.collect(made, now=now + LATER).secrets == 1
    with pytest.raises(NotFound):
        packs.read(made, "toy", before.packs[0])
    assert {check.outcome for check in doctor.examine(made, deep=True, now=now)} == {"ok"}


@files_only
def test_the_secrets_are_replaced_by_a_command_without_the_offline_keys(data):
    shutil.rmtree(data / "offline")
    assert toys.report("keys", "rotate", "packs", data=data)["changed"]
    assert toys.report("index", "build", "--task", "toy", data=data)["changed"]
    assert not toys.report("index", "build", "--task", "toy", data=data)["changed"]


def test_a_restored_cloud_opens_its_packs_whatever_was_replaced_since(made, tmp_path):
    before, now = publications.require(made, "toy"), time.time()
    backups.back_up(made, tmp_path / "backup", with_blobs=True, now=now, on_progress=toys.quiet)
    packs.replace_secret(made, "toy", now=now)
    build(made, now=now)
    garbage.collect(made, now=now + LATER)
    backups.restore(made.settings.data, tmp_path / "backup", now=now, on_progress=toys.quiet)
    assert publications.require(made, "toy").packs == before.packs
    assert all(packs.read(made, "toy", ref) for ref in before.packs)
    assert packs.secret(made, "toy", now=now).generation == 2, "the newer secret is not given up"


def test_a_pack_that_is_damaged_in_the_store_is_found_by_the_doctor(made):
    ref = publications.require(made, "toy").packs[0]
    with made.database.writing() as connection:
        connection.execute(db.pack_secrets.update().values(secret=b"\0" * 32))
    with pytest.raises(CorruptFile, match="does not open"):
        packs.read(made, "toy", ref)
    assert "failed" in {check.outcome for check in doctor.examine(made, deep=True, now=time.time())}


@pytest.fixture
def old(tmp_path) -> Path:
    """A data folder that a release without encryption left behind."""
    with tarfile.open(GOLDEN) as archive:
        archive.extractall(tmp_path / "old", filter="data")
    return tmp_path / "old"


def test_an_old_data_folder_goes_on_serving_its_packs_until_the_next_build_encrypts_them(old):
    app = create_app(settings.load(old))
    with TestClient(app, base_url="https://localhost") as client:
        made = app.state.cloud
        board = toys.Board().enroll(client, made, now=time.time())
        bearer = board.headers(client, now=time.time())
        before = publications.require(made, "toy")
        assert {fetch(client, bearer, ref.digest).status_code for ref in before.packs} == {200}
        after = build(made)
        assert all(ref.ciphertext for ref in after.packs)
        assert not any(b"samples/1" in raw for raw in stored(made))
        for ref in before.packs:
            assert digest(fetch(client, bearer, ref.digest).content) == ref.digest, "a sync under way goes on"


def test_what_a_killed_first_build_left_unencrypted_is_collected(old, monkeypatch):
    made = cloud.open_cloud(old)
    monkeypatch.setattr(packs, "encrypt_older", lambda *_: 0)
    build(made)
    assert any(b"samples/1" in raw for raw in stored(made))
    garbage.collect(made, now=time.time() + LATER)
    assert not any(b"samples/1" in raw for raw in stored(made))
    assert all(packs.read(made, "toy", ref) for ref in publications.require(made, "toy").packs)


def test_small_files_follow_the_manifest_and_large_ones_do_not(client, cloud, bearer, monkeypatch):
    publication = publications.require(cloud, "toy")
    refs = [publication.directory, publication.base.onnx, publication.base.weights]
    plain = client.get("/v1/tasks/toy/manifest", headers=bearer)
    whole = client.get("/v1/tasks/toy/manifest", headers={**bearer, "Edge-Have": ""})
    listed = ", ".join([str(len(plain.content)), *(f"{ref.digest}:{ref.size}" for ref in refs)])
    assert whole.headers["edge-parts"] == listed
    assert whole.content == plain.content + b"".join(cloud.blobs.read(ref.digest) for ref in refs)
    assert whole.headers["etag"] == plain.headers["etag"]
    monkeypatch.setattr(publications, "PARTS_LIMIT_BYTES", publication.directory.size)
    few = client.get("/v1/tasks/toy/manifest", headers={**bearer, "Edge-Have": ""})
    assert few.headers["edge-parts"].count(":") == 1


def test_a_file_that_is_said_to_be_at_hand_does_not_follow_and_junk_is_no_name(client, cloud, bearer):
    ref: BlobRef = publications.require(cloud, "toy").directory
    have = f" {ref.digest[:16]} ,junk,,"
    answer = client.get("/v1/tasks/toy/manifest", headers={**bearer, "Edge-Have": have})
    assert ref.digest not in answer.headers["edge-parts"]
    assert answer.headers["edge-parts"].count(":") == 2
