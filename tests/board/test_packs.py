"""How packs and the small files of a publication reach a board: encrypted, in few requests, and not twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgectl.partial import Parts
from edgewire.errors import DigestMismatch, InvalidMessage, Offline
from edgewire.files import digest
from edgewire.messages import PARTS_LIMIT_BYTES, Withdrawals
from tests.board.synced import BOTH, Synced

NAME = digest(b"part")


def ciphertexts(synced: Synced) -> list[str]:
    return list(synced.board.server.keys)


def test_packs_arrive_encrypted_and_lie_in_the_cache_as_they_are_read(synced: Synced) -> None:
    assert synced.sync().tasks[0].packs == 2
    retrieval = synced.cache.retrieval()
    for name in retrieval.files:
        assert synced.cache.holds(name)
        assert synced.cache.path(name).stat().st_mode & 0o777 == 0o600
    assert not any(synced.cache.path(name).exists() for name in ciphertexts(synced))
    assert len(synced.cache.retrieved(synced.board.server.bodies[BOTH.id], retrieval)) == 2


def test_the_keys_of_all_packs_are_asked_for_at_once_and_only_for_those_that_are_lacking(synced: Synced) -> None:
    first, again = synced.cloud(), synced.cloud()
    synced.sync(first)
    assert first.asked_keys == [tuple(ciphertexts(synced))]
    gone = synced.cache.retrieval().files[0]
    synced.cache.path(gone).unlink()
    synced.sync(again)
    assert again.asked_keys == [(ciphertexts(synced)[0],)]


def test_a_pack_whose_key_is_not_given_is_left_out(synced: Synced) -> None:
    del synced.board.server.keys[ciphertexts(synced)[0]]
    outcome = synced.sync().tasks[0]
    assert outcome.packs == 1
    assert "consent" in outcome.note


def test_a_pack_under_another_key_is_refused_and_nothing_of_it_is_kept(synced: Synced) -> None:
    name = ciphertexts(synced)[0]
    synced.board.server.keys[name] = b"\0" * 32
    with pytest.raises(DigestMismatch, match="not pack"):
        synced.sync()
    assert not synced.cache.path(name).exists()
    assert synced.cache.retrieval() is None


def test_a_pack_that_was_cut_off_is_resumed(synced: Synced) -> None:
    synced.sync()
    synced.publish(seed=7)
    server, names = synced.board.server, ciphertexts(synced)[2:]
    server.cut_after = cut = server.bodies[BOTH.id].directory.size + 1  # which comes along with the manifest
    with pytest.raises(Offline):
        synced.sync()
    assert synced.cache.path(f"{names[0]}.part").stat().st_size == cut
    cloud = synced.cloud()
    assert synced.sync(cloud).tasks[0].packs == 2
    assert cloud.bytes_down < sum(len(server.blobs[name]) for name in names) + len(server.sealed_manifest(BOTH.id))


def test_a_publication_that_only_encrypts_anew_brings_no_pack_again(synced: Synced) -> None:
    synced.sync()
    synced.key_of = lambda pack: digest(b"another secret" + pack).encode()[:32]  # type: ignore[method-assign]
    synced.publish()
    cloud = synced.cloud()
    assert synced.sync(cloud).tasks[0].packs == 2
    assert cloud.asked_keys == []


def test_packs_of_a_cloud_that_does_not_encrypt_are_taken_as_they_are(synced: Synced) -> None:
    synced.publish(encrypted=False)
    cloud = synced.cloud()
    assert synced.sync(cloud).tasks[0].packs == 2
    assert cloud.asked_keys == []


def test_a_withdrawn_pack_is_removed_by_the_digest_of_its_samples(synced: Synced) -> None:
    synced.sync()
    gone, kept = synced.cache.retrieval().files
    synced.board.server.withdrawals[BOTH.id] = Withdrawals(1, (gone,))
    synced.sync()
    assert not synced.cache.path(gone).exists()
    assert synced.cache.retrieval().files == (kept,)


def test_what_a_board_has_does_not_come_along_with_the_manifest(synced: Synced) -> None:
    synced.sync()
    synced.board.server.tasks[BOTH.id] = replace(BOTH, title="Renamed")
    body = synced.board.server.bodies[BOTH.id]
    synced.board.server.bodies[BOTH.id] = replace(body, task=replace(BOTH, title="Renamed"))
    synced.board.server.versions[BOTH.id] += 1
    cloud = synced.cloud()
    assert synced.sync(cloud).changed
    assert cloud.bytes_down == len(synced.board.server.sealed_manifest(BOTH.id))


def test_parts_are_split_wherever_the_pieces_end(tmp_path: Path) -> None:
    whole = b"manifest" + b"part" + b"other"
    for cut in range(1, len(whole)):
        parts = Parts(tmp_path)
        listed = f"8, {NAME}:4, {digest(b'other')}:5"
        assert parts.receive(listed, [whole[:cut], whole[cut:]]) == b"manifest"
        assert (tmp_path / f"{NAME}.part").read_bytes() == b"part"
        assert parts.received_bytes == 9


def test_what_arrived_of_a_part_stays_and_need_not_come_again(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    with pytest.raises(Offline, match="1 bytes early"):
        parts.receive(f"8, {NAME}:4", [b"manifestpar"])
    assert (tmp_path / f"{NAME}.part").read_bytes() == b"par"
    assert parts.have() == NAME[:16]


def test_files_that_no_manifest_names_are_not_told(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"part")
    (tmp_path / f".{NAME}.x.tmp").write_bytes(b"left by a kill")
    assert Parts(tmp_path, frozenset({NAME})).have() == ""


@pytest.mark.parametrize(
    "listed",
    ["", "x", "8,", "-1", "8, ../etc:4", f"8, {NAME}", f"8, {NAME}:{PARTS_LIMIT_BYTES + 1}", "99999999", f"8 {NAME}:4"],
)
def test_sizes_that_cannot_be_are_refused_before_anything_is_written(tmp_path: Path, listed: str) -> None:
    with pytest.raises(InvalidMessage):
        Parts(tmp_path).receive(listed, [b"x" * 100])
    assert list(tmp_path.iterdir()) == []
