"""What sync fetches, keeps, asks and reveals, against a cloud in memory."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgectl import enrolment, sharing, suits, tasks
from edgectl.partial import Parts
from edgectl.store import Store
from edgectl.suits import Able
from edgelearn.examples import make
from edgelearn.models.build import load, outputs
from edgewire import samples as sample_columns
from edgewire import tensors
from edgewire.errors import (
    Conflict,
    DigestMismatch,
    EdgeError,
    Forged,
    Gone,
    IntegrityError,
    InvalidMessage,
    NotReady,
    Offline,
    Outdated,
    Revoked,
    Unauthorized,
    UpgradeRequired,
    UsageError,
)
from edgewire.files import digest
from edgewire.messages import UploadReply, Withdrawals, WithdrawReply
from edgewire.signing import SigningKey
from edgewire.tasks import Needs, Privacy
from tests.board.conftest import Board
from tests.board.synced import BOTH, Synced
from tests.fakes.memory_cloud import MemoryCloud
from tests.learn import world

OTHER = replace(BOTH, id="other")
NOISY = replace(BOTH, privacy=replace(BOTH.privacy, fetch_all_below_bytes=0))


def test_a_small_pool_is_fetched_whole_and_nothing_is_revealed(synced: Synced) -> None:
    outcome = synced.sync().tasks[0]
    assert (outcome.packs, outcome.epsilon) == (2, 0.0)
    assert outcome.revealed.startswith("nothing")


def test_where_all_packs_are_fetched_no_sample_of_the_board_is_read(
    synced: Synced, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced.add(world.style(41, 1.6))
    monkeypatch.setattr(Store, "samples", None)
    assert synced.sync().tasks[0].packs == 2
    synced.add(world.style(41, 1.6), seed=1)
    assert synced.sync().tasks[0].packs == 2


def test_a_second_sync_fetches_nothing_and_says_so(synced: Synced) -> None:
    synced.sync()
    cloud = synced.cloud()
    assert not synced.sync(cloud).changed
    assert cloud.bytes_down == 0


def test_a_blob_that_was_cut_off_is_resumed_and_the_old_manifest_served_meanwhile(synced: Synced) -> None:
    synced.board.server.cut_after = 1000
    with pytest.raises(Offline):
        synced.sync()
    assert not synced.board.home.manifest(BOTH.id).exists()
    parts = list(synced.cache.folder.glob("blobs/*.part"))
    assert [part.stat().st_size for part in parts] == [1000]
    assert synced.sync().tasks[0].changed


def test_a_blob_that_is_not_what_was_signed_is_not_kept(synced: Synced) -> None:
    manifest = synced.board.server.bodies[BOTH.id]
    good = synced.board.server.blobs[manifest.base.weights.digest]
    synced.board.server.blobs[manifest.base.weights.digest] = b"x" * len(good)
    with pytest.raises(DigestMismatch):
        synced.sync()
    assert list(synced.cache.folder.glob(f"blobs/{manifest.base.weights.digest}*")) == []
    assert not synced.board.home.manifest(BOTH.id).exists()


BITS = replace(BOTH, privacy=Privacy(modes=("bits",), epsilon=8.0, epsilon_budget=16.0))


def sent_bits(synced: Synced) -> list[bytes]:
    """Every query that the cloud is asked from now on."""
    asked: list[bytes] = []

    def search(board: str, task_id: str, body: bytes) -> bytes:
        asked.append(tensors.unpack(body, what="queries", limit_bytes=1 << 20)[0]["bits"].tobytes())
        return sample_columns.to_bytes(sample_columns.make(*world.samples(world.style(41, 1.6), 5, 7)), task_id)

    synced.board.server.search = search
    return asked


def test_bits_cost_what_the_policy_says_for_the_whole_answer_and_the_same_are_sent_again(synced: Synced) -> None:
    synced.task = BITS
    synced.publish()
    synced.add(world.style(40, 1.6))
    asked = sent_bits(synced)
    outcome = synced.sync(seed=1).tasks[0]
    assert (outcome.mode, outcome.packs, outcome.epsilon) == ("bits", 1, 8.0)
    assert f"{world.CLASSES * 8 * len(asked[0]) // world.CLASSES} sign bits" in outcome.revealed
    synced.cache.path(synced.cache.retrieval().files[0]).unlink()
    assert "ε 8 spent in all" in synced.sync(seed=2).tasks[0].revealed
    assert len(asked) == 2
    assert asked[0] == asked[1]


def test_what_was_answered_is_told_again_with_the_noise_of_then_when_the_policy_has_a_larger_epsilon(
    synced: Synced,
) -> None:
    synced.task = BITS
    synced.publish()
    synced.add(world.style(40, 1.6))
    asked = sent_bits(synced)
    synced.sync(seed=1)
    synced.task = replace(BITS, privacy=Privacy(modes=("bits",), epsilon=800.0, epsilon_budget=1600.0))
    synced.publish()
    synced.cache.path(synced.cache.retrieval().files[0]).unlink()
    outcome = synced.sync(seed=2).tasks[0]
    assert asked[0] == asked[1]
    assert outcome.epsilon == 8.0
    assert "ε 8 spent in all" in outcome.revealed


def test_a_query_by_bits_that_would_overspend_is_not_sent(synced: Synced) -> None:
    synced.task = BITS
    synced.publish()
    asked = sent_bits(synced)
    for number in range(3):
        synced.add(world.style(40, 1.6), seed=number)
        outcome = synced.sync(seed=number).tasks[0]
    assert len(asked) == 2
    assert "budget is used up" in outcome.note
    with synced.store() as store:
        assert store.epsilon_spent(BITS.id) == 16.0


def test_withdrawn_packs_are_removed_with_the_next_sync(synced: Synced) -> None:
    synced.sync()
    gone, kept = synced.cache.retrieval().files
    synced.board.server.withdrawals[BOTH.id] = Withdrawals(1, (gone, "0" * 64))
    outcome = synced.sync().tasks[0]
    assert outcome.changed
    assert "withdrawn" in outcome.note
    assert synced.cache.retrieval().files == (kept,)
    assert not synced.cache.path(gone).exists()
    assert not synced.sync().changed


def test_an_answer_to_a_search_is_asked_for_again_when_anybody_withdrew(synced: Synced) -> None:
    synced.add(world.style(40, 1.6))
    answers = iter([5, 6])

    def search(board: str, task_id: str, body: bytes) -> bytes:
        return sample_columns.to_bytes(
            sample_columns.make(*world.samples(world.style(41, 1.6), next(answers), 7)), task_id
        )

    synced.board.server.search = search
    synced.sync(mode="embedding")
    before = synced.cache.retrieval()
    synced.board.server.withdrawals[BOTH.id] = Withdrawals(1, ())
    synced.sync(mode="embedding")
    after = synced.cache.retrieval()
    assert (after.withdrawals, after.files == before.files) == (1, False)
    assert not synced.cache.path(before.files[0]).exists()


def test_what_was_shared_is_withdrawn_before_newer_samples_are_shared(synced: Synced) -> None:
    synced.add(world.style(40, 1.6))
    until = time.time() + 86400

    def share(store: Store) -> None:
        offered = sharing.offer(store, BOTH, group=None)
        sharing.queue(store, BOTH, offered, until=until, now=time.time())

    with synced.store() as store:
        share(store)
        assert store.withdraw(BOTH.id, "a" * 32, time.time()) == 12
        assert [item.kind for item in store.outbox()] == ["withdrawal"], "what waited is not sent"
        share(store)
    assert synced.sync().sent == 2
    with synced.store() as store:
        store.withdraw(BOTH.id, "b" * 32, time.time())
        share(store)
    assert synced.sync().sent == 2
    with synced.store() as store:
        assert store.withdrawals(BOTH.id) == 1


def test_an_older_manifest_than_the_known_one_is_refused(synced: Synced) -> None:
    synced.sync()
    old = synced.board.server.sealed_manifest(BOTH.id)
    synced.publish(seed=5)
    synced.sync()
    synced.board.server.sealed_manifest = lambda task_id: old  # type: ignore[method-assign]
    with pytest.raises(Outdated):
        synced.sync()


def test_a_manifest_signed_by_a_stranger_is_refused(synced: Synced) -> None:
    synced.board.server.signing = SigningKey.generate()  # without telling through the chain of trust
    with pytest.raises(Forged):
        synced.sync()


def test_a_manifest_signed_by_a_rotated_key_is_accepted_through_the_chain(synced: Synced) -> None:
    synced.sync()
    synced.board.server.rotate_signing()
    synced.publish(seed=5)
    assert synced.sync().tasks[0].changed
    assert enrolment.load(synced.board.home).trust.version == 2


def test_a_new_base_replaces_the_files_of_the_old_one(synced: Synced) -> None:
    synced.sync()
    before = {path.name for path in synced.cache.folder.glob("blobs/*")}
    synced.publish(seed=5)
    synced.sync()
    after = {path.name for path in synced.cache.folder.glob("blobs/*")}
    manifest = tasks.known_task(synced.board.home, enrolment.load(synced.board.home), BOTH.id, time.time())
    assert manifest.base.version == 2
    assert len(after) == len(before)
    assert after != before


def test_a_large_pool_is_asked_for_one_cohort_through_noise_and_the_cost_is_in_the_ledger(synced: Synced) -> None:
    synced.task = NOISY
    synced.publish()
    synced.add(world.style(41, 1.6))
    outcome = synced.sync().tasks[0]
    assert (outcome.packs, outcome.epsilon) == (1, 8.0)
    with synced.store() as store:
        assert store.epsilon_spent(NOISY.id) == 8.0
    pack = synced.cache.retrieved(synced.board.server.bodies[NOISY.id], synced.cache.retrieval())[0]  # type: ignore[arg-type]
    x, _ = world.samples(world.style(41, 1.6), 10, 10)
    assert np.array_equal(pack.x[: len(x)], x)


def test_the_same_question_is_answered_from_memory_and_costs_nothing(synced: Synced) -> None:
    synced.task = NOISY
    synced.publish()
    synced.add(world.style(41, 1.6))
    synced.sync()
    synced.add(world.style(40, 1.6), seed=9)  # other samples, but the directory is the same
    synced.sync(seed=1)
    with synced.store() as store:
        assert store.epsilon_spent(NOISY.id) == 8.0


def test_an_overspent_budget_leaves_the_board_with_what_it_has(synced: Synced) -> None:
    synced.task = NOISY
    synced.add(world.style(41, 1.6))
    for seed in (0, 5, 6):
        synced.publish(seed=seed)
        outcome = synced.sync().tasks[0]
    assert "budget" in outcome.note
    assert synced.cache.retrieval() is not None
    with synced.store() as store:
        assert store.epsilon_spent(NOISY.id) == 16.0


def test_without_samples_nothing_is_asked_and_the_board_is_told_why(synced: Synced) -> None:
    outcome = synced.sync(mode="embedding").tasks[0]
    assert outcome.packs == 0
    assert "add some" in outcome.note


def test_a_search_sends_embeddings_and_keeps_what_comes_back(synced: Synced) -> None:
    x, y = world.samples(world.style(41, 1.6), 4, 3)
    found = sample_columns.to_bytes(sample_columns.make(x, y, user=np.full(len(y), "p7")), BOTH.id)
    asked = []
    synced.board.server.search = lambda board, task_id, body: asked.append(body) or found
    synced.add(world.style(41, 1.6))
    outcome = synced.sync(mode="embedding").tasks[0]
    queries = tensors.unpack(asked[0], what="query", limit_bytes=1 << 20)[0]["queries"]
    mine, _ = world.samples(world.style(41, 1.6), 3, 0)
    expected = outputs(load(world.TASK, world.base()), mine)[1]
    assert np.allclose(queries, expected, atol=1e-4)
    assert outcome.packs == 1
    assert "not private" in outcome.revealed
    assert not synced.sync(mode="embedding").changed
    assert len(asked) == 1


def test_a_board_with_many_samples_still_sends_a_request_of_bounded_size(
    synced: Synced, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgectl.sync.QUERIES_WANTED", 5)
    empty = sample_columns.to_bytes(sample_columns.make(np.zeros((0, world.FEATURES), np.float32)), BOTH.id)
    asked = []
    synced.board.server.search = lambda board, task_id, body: asked.append(body) or empty
    synced.add(world.style(41, 1.6))
    assert "of 5 local" in synced.sync(mode="embedding").tasks[0].revealed
    queries = tensors.unpack(asked[0], what="query", limit_bytes=1 << 20)[0]["queries"]
    mine, _ = world.samples(world.style(41, 1.6), 3, 0)
    expected = outputs(load(world.TASK, world.base()), mine)[1][[0, 2, 5, 8, 11]]
    assert np.allclose(queries, expected, atol=1e-4)


def test_a_task_that_is_not_ready_does_not_keep_the_others_waiting(newcomer: Board, onnx: bytes) -> None:
    newcomer.enroll("a-not-ready", BOTH.id)
    board = Synced(newcomer, onnx)
    board.publish()
    with pytest.raises(NotReady, match="a-not-ready"):
        board.sync()
    assert newcomer.home.manifest(BOTH.id).exists()


def test_a_mode_that_the_task_does_not_allow_is_refused(synced: Synced) -> None:
    synced.task = replace(BOTH, privacy=Privacy(modes=("directory",)))
    synced.publish()
    with pytest.raises(UsageError, match="does not allow"):
        synced.sync(mode="embedding")


def test_a_directory_of_another_base_is_refused(synced: Synced) -> None:
    body = synced.board.server.bodies[BOTH.id]
    raw = synced.board.server.blobs[body.directory.digest]
    arrays, meta = tensors.unpack(raw, what="directory", limit_bytes=1 << 20)
    other = tensors.pack(arrays, {**meta, "base": "0" * 64})
    weights = synced.board.server.blobs[body.base.weights.digest]
    synced.board.server.publish(BOTH, weights=weights, onnx=synced.onnx, directory=other)
    with pytest.raises(Conflict, match="does not belong"):
        synced.sync()


def test_an_upload_that_the_cloud_refuses_leaves_the_outbox_and_the_others_go_on(synced: Synced) -> None:
    x, y = world.samples(world.style(41, 1.6), 1, 3)
    body = sample_columns.to_bytes(sample_columns.make(x, y), BOTH.id)
    with synced.store() as store:
        store.queue("0" * 32, "contribution", BOTH.id, body, {"consent": "packs", "until": 1.0}, 1.0)
        store.queue("1" * 32, "contribution", BOTH.id, body, {"consent": "packs", "until": 4e9}, 2.0)
    outcome = synced.sync()
    assert (outcome.sent, outcome.refused) == (1, 1)
    with synced.store() as store:
        assert store.outbox_size() == 0


def test_what_could_not_be_sent_stays_in_the_outbox(synced: Synced) -> None:
    with synced.store() as store:
        store.queue("1" * 32, "contribution", BOTH.id, b"", {"consent": "packs", "until": 4e9}, 2.0)
    synced.board.server.offline = True
    with pytest.raises(Offline):
        synced.sync()
    with synced.store() as store:
        assert store.outbox_size() == 1


def test_what_is_withdrawn_while_a_sync_sends_is_not_sent_any_more(
    synced: Synced, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "_BATCH_BYTES", 1)
    synced.add(world.style(40, 1.6))
    until, sent = time.time() + 86400, list[str]()

    class Meanwhile(MemoryCloud):
        def contribute(self, task_id: str, upload_id: str, body: bytes, **consent: Any) -> UploadReply:
            sent.append(upload_id)
            with synced.store() as store:
                store.withdraw(BOTH.id, "a" * 32, time.time())
            return super().contribute(task_id, upload_id, body, **consent)

    with synced.store() as store:
        offered = sharing.offer(store, BOTH, group=None)
        assert len(sharing.queue(store, BOTH, offered, until=until, now=time.time())) == 12
    known_board = enrolment.load(synced.board.home)
    synced.sync(Meanwhile(synced.board.server, key=SigningKey.load(synced.board.home.key), board=known_board.board))
    assert len(sent) == 1
    with synced.store() as store:
        assert (store.outbox_size(), store.withdrawals(BOTH.id)) == (0, 1)


@pytest.mark.parametrize("error", [Revoked("no more"), UpgradeRequired("too old"), Unauthorized("who?")])
def test_what_the_cloud_has_against_the_board_leaves_the_outbox_as_it_is(synced: Synced, error: EdgeError) -> None:
    class Against(MemoryCloud):
        def withdraw(self, task_id: str) -> WithdrawReply:
            raise error

    with synced.store() as store:
        store.withdraw(BOTH.id, "a" * 32, time.time())
    known_board = enrolment.load(synced.board.home)
    with pytest.raises(type(error)):
        synced.sync(Against(synced.board.server, key=SigningKey.load(synced.board.home.key), board=known_board.board))
    with synced.store() as store:
        assert store.outbox_size() == 1


def test_a_pack_that_was_withdrawn_is_passed_over_and_the_others_are_fetched(synced: Synced) -> None:
    body = synced.board.server.bodies[BOTH.id]
    known = {body.base.weights.digest, body.base.onnx.digest, body.directory.digest}
    withdrawn = next(name for name in synced.board.server.blobs if name not in known)

    class Withdrawing(MemoryCloud):
        def blob(self, digest: str, size: int, target: Path, *, on_bytes=None) -> int:  # type: ignore[no-untyped-def]
            if digest == withdrawn:
                raise Gone("withdrawn")
            return super().blob(digest, size, target, on_bytes=on_bytes)

    known_board = enrolment.load(synced.board.home)
    cloud = Withdrawing(synced.board.server, key=SigningKey.load(synced.board.home.key), board=known_board.board)
    outcome = synced.sync(cloud).tasks[0]
    assert outcome.packs == 1
    assert "withdrawn" in outcome.note


def test_a_revoked_board_is_told_so(synced: Synced) -> None:
    synced.board.server.revoke(enrolment.load(synced.board.home).board)
    with pytest.raises(Revoked):
        synced.sync()


def test_own_contributions_are_never_candidates(synced: Synced) -> None:
    from edgectl.material import prepare

    mine = world.samples(world.style(40, 1.6), 10, 0)  # exactly what contributor p0 of the first pack shared
    with synced.store() as store:
        store.add_samples(BOTH, sample_columns.make(*mine).take(np.arange(5)), now=time.time())
        synced.sync()
        manifest = tasks.known_task(synced.board.home, enrolment.load(synced.board.home), BOTH.id, time.time())
        material = prepare(synced.board.home, manifest, store, seed=0, device="cpu", threads=1)
    assert [candidate.name for candidate in material.setting.candidates] == ["0/p1", "1/p0", "1/p1"]


def test_what_was_shared_is_no_candidate_even_after_it_was_deleted_here(synced: Synced) -> None:
    from edgectl.material import prepare

    mine = world.samples(world.style(40, 1.6), 10, 0)
    with synced.store() as store:
        store.add_samples(BOTH, sample_columns.make(*mine).take(np.arange(5)), now=time.time())
        store.mark_shared([1, 2, 3, 4, 5], 9e9, 1.0)
        store.expire(BOTH.id, older_than=None, ids=None)
        synced.add(world.style(41, 1.6), seed=3)
        synced.sync()
        manifest = tasks.known_task(synced.board.home, enrolment.load(synced.board.home), BOTH.id, time.time())
        material = prepare(synced.board.home, manifest, store, seed=0, device="cpu", threads=1)
    assert "0/p0" not in [candidate.name for candidate in material.setting.candidates]


def test_a_corrupt_file_in_the_cache_is_named_removed_and_fetched_again(synced: Synced) -> None:
    from edgewire.errors import CorruptFile

    synced.sync()
    weights = synced.board.server.bodies[BOTH.id].base.weights
    path: Path = synced.cache.path(weights.digest)
    path.write_bytes(b"x" * weights.size)
    with pytest.raises(CorruptFile, match="removed"):
        synced.cache.read(weights.digest)
    synced.sync()
    assert synced.cache.read(weights.digest)


@pytest.mark.parametrize("damaged", [b"\xff\xfe\x00", b"", b'"' + bytes(34), b'"a\nb"'])
def test_a_damaged_etag_is_as_good_as_none(synced: Synced, damaged: bytes) -> None:
    asked = list[str | None]()

    class Listening(MemoryCloud):
        def manifest(self, task_id: str, etag: str | None, parts: Parts | None = None) -> tuple[bytes, str] | None:
            asked.append(etag)
            return super().manifest(task_id, etag, parts)

    synced.sync()
    (synced.cache.folder / "manifest.etag").write_bytes(damaged)
    known = enrolment.load(synced.board.home)
    cloud = Listening(synced.board.server, key=SigningKey.load(synced.board.home.key), board=known.board)
    for _ in range(2):
        assert not synced.sync(cloud).changed
    assert asked == [None, f'"{digest(synced.board.server.sealed_manifest(BOTH.id))}"']


def test_a_task_that_is_recalled_during_a_sync_is_no_failure_of_it(
    synced: Synced, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = MemoryCloud.manifest
    me = enrolment.load(synced.board.home).board

    def recalling(self: MemoryCloud, *asked: Any) -> tuple[bytes, str] | None:
        self.server.boards[me].tasks.discard("zebras")
        return manifest(self, *asked)

    synced.board.server.grant(me, "zebras")
    monkeypatch.setattr(MemoryCloud, "manifest", recalling)
    assert [task.task for task in synced.sync().tasks] == [BOTH.id]
    assert enrolment.load(synced.board.home).tasks == (BOTH.id,)


def test_what_is_no_message_is_no_wrong_usage_of_the_board(synced: Synced, monkeypatch: pytest.MonkeyPatch) -> None:
    def portal(self: MemoryCloud) -> tuple[str, ...]:
        raise InvalidMessage("the access token is no JSON")

    monkeypatch.setattr(MemoryCloud, "tasks", portal)
    with pytest.raises(IntegrityError, match="no JSON; sync again later"):
        synced.sync()


def test_examples_of_a_store_keep_their_recordings() -> None:
    assert make(np.zeros((3, 1), np.float32), np.zeros(3, np.int64), np.array(["b", "a", "b"])).group.tolist() == [
        1,
        0,
        1,
    ]


def answered(synced: Synced) -> list[bytes]:
    """The digests of the samples at hand, in order."""
    return sample_columns.raw_digests(
        synced.cache.retrieved(synced.board.server.bodies[BOTH.id], synced.cache.retrieval())[0]
    )


@pytest.mark.parametrize("damaged", [False, True])
def test_a_later_search_fetches_only_the_samples_that_are_not_here(synced: Synced, damaged: bool) -> None:
    x, y = world.samples(world.style(41, 1.6), 4, 3)
    whole = sample_columns.make(x, y, user=np.full(len(y), "p7"))
    names, answers = sample_columns.raw_digests(whole), iter([slice(0, 5), slice(3, 9)])
    synced.board.server.search = lambda *_: sample_columns.to_bytes(whole.take(next(answers)), BOTH.id)
    synced.add(world.style(41, 1.6))
    synced.sync(mode="embedding")
    assert answered(synced) == synced.board.server.asked_for == names[:5]
    if damaged:
        synced.cache.path(synced.cache.retrieval().files[0]).write_bytes(b"torn")
    synced.add(world.style(41, 1.6), seed=1)
    synced.sync(mode="embedding")
    assert answered(synced) == names[3:9]
    assert synced.board.server.asked_for[5:] == (names[3:9] if damaged else names[5:9])


def test_a_search_that_finds_nothing_fetches_nothing(synced: Synced) -> None:
    empty = sample_columns.make(np.zeros((0, world.FEATURES), np.float32))
    synced.board.server.search = lambda *_: sample_columns.to_bytes(empty, BOTH.id)
    synced.add(world.style(41, 1.6))
    assert synced.sync(mode="embedding").tasks[0].packs == 1
    assert (answered(synced), synced.board.server.asked_for) == ([], [])


def test_a_task_that_does_not_suit_the_board_is_left_alone_and_told(synced: Synced) -> None:
    synced.task = replace(BOTH, needs=Needs(memory_mib=2000))
    synced.publish()
    cloud = synced.cloud()
    outcome = synced.sync(cloud, lacks=lambda task: suits.lacks(task, Able("generic", 512.0, 1e6, trains=True)))
    assert outcome.tasks[0].note == "left alone: the task needs 2000 MiB of memory (it has 512)"
    assert list(synced.cache.folder.glob("blobs/*")) == []
    assert suits.noted(synced.board.home, BOTH.id) == ["2000 MiB of memory (it has 512)"]
    assert synced.sync(lacks=lambda task: []).tasks[0].changed
    assert suits.noted(synced.board.home, BOTH.id) == []


@pytest.mark.parametrize(
    ("needs", "missing"),
    [
        (Needs(), ""),
        (Needs(memory_mib=1000, disk_mib=100, profiles=("pi-*",), training=True), ""),
        (Needs(memory_mib=1001), "1001 MiB of memory (it has 1000)"),
        (Needs(disk_mib=101), "101 MiB of free disk (it has 100)"),
        (Needs(profiles=("jetson-*", "pi-4*")), "a profile of jetson-*, pi-4* (it has pi-5)"),
    ],
)
def test_what_a_board_lacks_is_said_one_by_one(needs: Needs, missing: str) -> None:
    assert ", ".join(suits.lacks(replace(BOTH, needs=needs), Able("pi-5", 1000.0, 100.0, trains=True))) == missing


def test_a_board_that_cannot_train_may_be_of_no_use(synced: Synced) -> None:
    assert suits.lacks(replace(BOTH, needs=Needs(training=True)), Able("pi-5", None, 1e6, trains=False)) == [
        "torch, to train"
    ]


def test_a_task_that_is_granted_during_a_sync_comes_with_it(synced: Synced, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud, ask = synced.cloud(), MemoryCloud.manifest

    def granting(self: MemoryCloud, *asked: Any) -> tuple[bytes, str] | None:
        self.server.grant(str(self._board), OTHER.id)
        return ask(self, *asked)

    replace(synced, task=OTHER).publish()
    monkeypatch.setattr(MemoryCloud, "manifest", granting)
    assert [task.task for task in synced.sync(cloud).tasks] == [BOTH.id, OTHER.id]
