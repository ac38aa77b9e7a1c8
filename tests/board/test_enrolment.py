"""Become a board of a cloud, once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgectl import enrolment, sharing
from edgectl.home import Home
from edgectl.store import Store
from edgewire import errors
from edgewire.decoding import encode
from edgewire.messages import EnrolReply, EnrolRequest
from edgewire.samples import make
from edgewire.signing import SigningKey
from tests.board.conftest import GESTURES, Board
from tests.fakes.memory_cloud import URL, MemoryCloud, MemoryServer


class Lost(Exception):
    """The answer was lost on the way."""


def enroll(board: Board, file: bytes, *, force: bool = False, server: MemoryServer | None = None, lose: bool = False):  # type: ignore[no-untyped-def]
    def introduce(url: str, bundle: Path, request: EnrolRequest, key: SigningKey) -> EnrolReply:
        reply = MemoryCloud(server or board.server).enroll(request, key)
        if lose:
            raise Lost
        return reply

    now = board.server.clock()
    return enrolment.enroll(board.home, file, name="kitchen", profile="pi-5", now=now, force=force, introduce=introduce)


def test_enrolling_leaves_what_later_commands_need(newcomer: Board) -> None:
    result = enroll(newcomer, encode(newcomer.server.enrolment_file("gestures")))
    assert result.changed
    assert result.enrolment == enrolment.load(newcomer.home)
    assert (result.enrolment.url, result.enrolment.tasks) == (URL, ("gestures",))
    assert result.enrolment.trust.signing_keys == {newcomer.server.signing.id: newcomer.server.signing.public}
    assert newcomer.home.key.stat().st_mode & 0o777 == 0o600
    assert newcomer.home.root.stat().st_mode & 0o777 == 0o700


def test_a_board_whose_key_was_revoked_before_it_heard_that_it_is_one_enrolls_with_another(newcomer: Board) -> None:
    file = encode(newcomer.server.enrolment_file("gestures"))
    with pytest.raises(Lost):
        enroll(newcomer, file, lose=True)
    (revoked,) = newcomer.server.boards
    newcomer.server.revoke(revoked)
    with pytest.raises(errors.Revoked):
        enroll(newcomer, encode(newcomer.server.enrolment_file("gestures")))
    assert enroll(newcomer, encode(newcomer.server.enrolment_file("gestures"))).enrolment.board != revoked


def test_enrolling_twice_changes_nothing(newcomer: Board) -> None:
    file = encode(newcomer.server.enrolment_file("gestures"))
    first = enroll(newcomer, file)
    again = enroll(newcomer, file)
    assert (again.changed, again.enrolment) == (False, first.enrolment)


def test_a_lost_answer_is_asked_for_again_with_the_same_key(newcomer: Board) -> None:
    file = encode(newcomer.server.enrolment_file("gestures"))
    with pytest.raises(Lost):
        enroll(newcomer, file, lose=True)
    with pytest.raises(errors.NotEnrolled):
        enrolment.load(newcomer.home)
    assert enroll(newcomer, file).changed
    assert len(newcomer.server.boards) == 1


def test_another_cloud_needs_force(newcomer: Board) -> None:
    enroll(newcomer, encode(newcomer.server.enrolment_file("gestures")))
    elsewhere = newcomer.server.enrolment_file("gestures")
    other = encode(type(elsewhere)("https://other.test", elsewhere.token, elsewhere.authorities, elsewhere.roots))
    with pytest.raises(errors.Conflict, match="enrolled at"):
        enroll(newcomer, other)
    assert enroll(newcomer, other, force=True).enrolment.url == "https://other.test"


def test_leaving_a_cloud_makes_a_new_key(newcomer: Board) -> None:
    first = enroll(newcomer, encode(newcomer.server.enrolment_file("gestures"))).enrolment
    second = enroll(newcomer, encode(newcomer.server.enrolment_file("gestures")), force=True).enrolment
    assert first.board != second.board


def waiting(board: Board) -> tuple[int, int]:
    """(uploads in the outbox, samples that count as shared)"""
    with Store.open(board.home.database) as store:
        return store.outbox_size(), len(store.shared_ids("gestures"))


def test_what_was_meant_for_the_former_cloud_is_never_sent_to_another(newcomer: Board) -> None:
    enroll(newcomer, encode(newcomer.server.enrolment_file("gestures")))
    with Store.open(newcomer.home.database) as store:
        store.add_samples(GESTURES, make(np.zeros((1, 2, 3), np.float32), np.zeros(1)), now=0.0)
        sharing.queue(store, GESTURES, sharing.offer(store, GESTURES, group=None), until=9e9, now=0.0)
    retrieval = newcomer.home.task("gestures") / "retrieval.json"
    retrieval.parent.mkdir(parents=True)
    retrieval.write_text("packs of the former cloud")
    update = newcomer.home.round_update("gestures")
    update.parent.mkdir(parents=True)
    update.write_text("learnt for the former cloud")
    enroll(newcomer, encode(newcomer.server.enrolment_file("gestures")), force=True)
    assert waiting(newcomer) == (1, 1)  # the same cloud again
    elsewhere = MemoryServer()
    enroll(newcomer, encode(elsewhere.enrolment_file("gestures")), force=True, server=elsewhere)
    assert waiting(newcomer) == (0, 0)
    assert not retrieval.exists()
    assert not update.exists()


def test_a_refused_token_leaves_the_former_enrolment(newcomer: Board) -> None:
    first = enroll(newcomer, encode(newcomer.server.enrolment_file("gestures"))).enrolment
    used = newcomer.server.enrolment_file("gestures")
    newcomer.server.tokens[used.token] = (("gestures",), "somebody else")
    with pytest.raises(errors.TokenRefused):
        enroll(newcomer, encode(used), force=True)
    assert enrolment.load(newcomer.home) == first


def test_a_cloud_that_cannot_prove_its_root_is_forged(newcomer: Board) -> None:
    stranger = MemoryServer()
    file = newcomer.server.enrolment_file("gestures")
    stranger.tokens[file.token] = (("gestures",), None)
    with pytest.raises(errors.Forged):
        enroll(newcomer, encode(file), server=stranger)
    with pytest.raises(errors.NotEnrolled):
        enrolment.load(newcomer.home)


@pytest.mark.parametrize("junk", [b"", b"{}", b"\xff\x00", b'{"url": "http://plain.example"}'])
def test_what_is_no_enrolment_file_is_refused(newcomer: Board, junk: bytes) -> None:
    with pytest.raises(errors.InvalidMessage):
        enroll(newcomer, junk)


def test_a_file_far_too_large_is_refused(newcomer: Board) -> None:
    with pytest.raises(errors.TooLarge):
        enroll(newcomer, b" " * (enrolment.FILE_LIMIT_BYTES + 1))


def test_a_chain_that_was_tampered_with_on_disk_is_forged(board: Board) -> None:
    stranger = MemoryServer()
    board.home.trust.write_bytes(encode([raw.decode() for raw in stranger.chain]))
    with pytest.raises(errors.Forged):
        enrolment.load(board.home)


def test_a_damaged_record_says_what_to_do(board: Board) -> None:
    board.home.enrolment.write_bytes(b"{")
    with pytest.raises(errors.CorruptFile, match="--force"):
        enrolment.load(board.home)


def test_new_links_of_the_chain_are_kept(board: Board) -> None:
    known = enrolment.load(board.home)
    board.server.rotate_signing()
    updated = enrolment.update_trust(board.home, known, board.server.chain[1:], board.server.clock())
    assert updated.trust.version == 2
    assert enrolment.load(board.home).trust == updated.trust
    assert board.server.signing.id in updated.trust.signing_keys


def test_links_that_are_known_already_change_nothing(board: Board) -> None:
    known = enrolment.load(board.home)
    before = board.home.trust.read_bytes()
    assert enrolment.update_trust(board.home, known, board.server.chain, board.server.clock()) == known
    assert board.home.trust.read_bytes() == before


def test_a_chain_with_a_gap_is_refused_and_nothing_changes(board: Board) -> None:
    known = enrolment.load(board.home)
    board.server.rotate_signing()
    board.server.rotate_signing()
    with pytest.raises(errors.Outdated):
        enrolment.update_trust(board.home, known, board.server.chain[2:], board.server.clock())
    assert enrolment.load(board.home) == known


def test_tasks_granted_later_are_kept(board: Board) -> None:
    known = enrolment.update_tasks(board.home, enrolment.load(board.home), ["gestures", "postures"])
    assert known == enrolment.load(board.home)
    assert known.tasks == ("gestures", "postures")


def test_a_wrong_clock_does_not_stop_what_is_on_disk(board: Board) -> None:
    assert enrolment.load(Home(board.home.root)).trust.version == 1  # nothing here asks what time it is
