"""What every cloud promises a board, as tests: the in-memory one and the real one over TLS must pass them alike.

A module that runs them subclasses `CloudApi` and gives it a fixture `world` (see `World`).
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest

from edgectl.cloud import Cloud
from edgectl.partial import Parts
from edgewire import tensors
from edgewire.decoding import convert, plain
from edgewire.encryption import OVERHEAD_BYTES, decrypt
from edgewire.errors import (
    Conflict,
    Gone,
    IntegrityError,
    InvalidSamples,
    NotFound,
    NotGranted,
    Refused,
    Revoked,
    TokenRefused,
    Unauthorized,
    UsageError,
)
from edgewire.files import digest
from edgewire.messages import (
    FOUND_LIMIT_BYTES,
    SAMPLES_LIMIT_BYTES,
    EnrolmentFile,
    EnrolReply,
    EnrolRequest,
    FoundMeta,
    Manifest,
    PackRef,
    Report,
    SearchMeta,
    Telemetry,
    TelemetryPoint,
    WantedMeta,
    WithdrawReply,
)
from edgewire.releases import Outcome
from edgewire.samples import from_bytes, make, sample_digests, to_bytes
from edgewire.signing import SigningKey, open_sealed
from edgewire.tasks import Task
from edgewire.trust import Trust, public_text, walk


class World(Protocol):
    """A running cloud. task: published, with a base and a directory; pack: an encrypted one of that task; other:
    published to no board of these tests."""

    task: Task
    other: str

    def enrolment_file(self, *tasks: str) -> EnrolmentFile: ...

    def connect(self, *, key: SigningKey | None = None, board: str | None = None) -> Cloud: ...

    def revoke(self, board: str) -> None: ...

    def grant(self, board: str, task_id: str) -> None: ...

    def pack(self) -> PackRef: ...


@dataclass
class Member:
    """An enrolled board."""

    key: SigningKey
    file: EnrolmentFile
    reply: EnrolReply
    cloud: Cloud

    @property
    def trust(self) -> Trust:
        return walk(self.file.roots, [text.encode() for text in self.reply.trust], now=time.time())


def introduce(world: World, file: EnrolmentFile, key: SigningKey) -> EnrolReply:
    request = EnrolRequest(file.token, "kitchen", "generic", public_text(key.public))
    return world.connect().enroll(request, key)


def join(world: World) -> Member:
    key, file = SigningKey.generate(), world.enrolment_file(world.task.id)
    reply = introduce(world, file, key)
    return Member(key, file, reply, world.connect(key=key, board=reply.board))


def some_samples(task: Task, *, seed: int | None = None) -> bytes:
    """Three samples of a task that nobody else has."""
    rng = np.random.default_rng(secrets.randbits(32) if seed is None else seed)
    x = rng.integers(0, 100, (3, *task.input.shape)).astype(task.input.dtype)
    return to_bytes(make(x, np.arange(3) % len(task.labels)), task.id)


def manifest_of(member: Member, task: Task) -> Manifest:
    answer = member.cloud.manifest(task.id, None)
    assert answer is not None
    statement = open_sealed(answer[0], member.trust.signing_keys, type="manifest", task=task.id, now=time.time())
    return convert(Manifest, statement.body, what="manifest")


def a_search(member: Member, task: Task) -> tensors.Arrays:
    """What the cloud finds like one embedding, two of each class."""
    meta = SearchMeta(task.id, manifest_of(member, task).base.onnx.digest, 2)
    raw = member.cloud.search(task.id, tensors.pack({"queries": np.ones((1, 8), np.float32)}, plain(meta)))
    arrays, answered = tensors.unpack(raw, what="found", limit_bytes=FOUND_LIMIT_BYTES)
    assert convert(FoundMeta, answered, what="found").task == task.id
    return arrays


def a_report(task: Task, upload_id: str, *, kept: int = 3) -> Report:
    return Report(upload_id, task.id, "0" * 64, "directory", "auto", "mpda", 12, 40, kept, 0.25, 3.5)


class CloudApi:
    """The promises."""

    def test_an_answer_tells_of_tasks_that_were_granted_since(self, world: World) -> None:
        member = join(world)
        assert member.cloud.tasks() == (world.task.id,)
        world.grant(member.reply.board, world.other)
        manifest_of(member, world.task)
        assert member.cloud.tasks() == tuple(sorted((world.task.id, world.other)))

    def test_enrolling_names_the_board_and_its_tasks_and_brings_the_chain_of_trust(self, world: World) -> None:
        member = join(world)
        assert member.reply.board.startswith("b")
        assert member.reply.tasks == (world.task.id,)
        assert member.trust.version == len(member.reply.trust)

    def test_enrolling_again_with_the_same_key_and_token_gives_the_same_board(self, world: World) -> None:
        member = join(world)
        assert introduce(world, member.file, member.key).board == member.reply.board

    def test_a_token_works_for_one_key_only(self, world: World) -> None:
        member = join(world)
        with pytest.raises(TokenRefused):
            introduce(world, member.file, SigningKey.generate())

    def test_a_token_that_nobody_made_is_refused(self, world: World) -> None:
        file = EnrolmentFile("https://x", "never-made-by-anybody-0", ("x",), ("r" * 44,))
        with pytest.raises(TokenRefused):
            introduce(world, file, SigningKey.generate())

    def test_the_manifest_is_signed_by_a_key_of_the_chain(self, world: World) -> None:
        assert manifest_of(join(world), world.task).task == world.task

    def test_an_unchanged_manifest_is_not_sent_again(self, world: World) -> None:
        member = join(world)
        answer = member.cloud.manifest(world.task.id, None)
        assert answer is not None
        before = member.cloud.bytes_down
        assert member.cloud.manifest(world.task.id, answer[1]) is None
        assert member.cloud.bytes_down == before

    def test_a_task_that_was_not_granted_is_refused_until_it_is(self, world: World) -> None:
        member = join(world)
        with pytest.raises(NotGranted):
            member.cloud.manifest(world.other, None)
        world.grant(member.reply.board, world.other)
        assert member.cloud.manifest(world.other, None) is not None
        assert set(member.cloud.tasks()) == {world.task.id, world.other}

    def test_a_blob_arrives_whole_and_only_once(self, world: World, tmp_path: Path) -> None:
        member = join(world)
        ref = manifest_of(member, world.task).base.weights
        seen: list[int] = []
        target = tmp_path / "weights"
        assert member.cloud.blob(ref.digest, ref.size, target, on_bytes=seen.append) == ref.size == sum(seen)
        assert digest(target.read_bytes()) == ref.digest
        assert member.cloud.blob(ref.digest, ref.size, target) == 0

    def test_an_interrupted_blob_goes_on_where_it_stopped(self, world: World, tmp_path: Path) -> None:
        member = join(world)
        ref = manifest_of(member, world.task).base.weights
        member.cloud.blob(ref.digest, ref.size, tmp_path / "whole")
        (tmp_path / "weights.part").write_bytes((tmp_path / "whole").read_bytes()[:100])
        assert member.cloud.blob(ref.digest, ref.size, tmp_path / "weights") == ref.size - 100
        assert not (tmp_path / "weights.part").exists()

    def test_a_damaged_part_is_noticed_and_removed(self, world: World, tmp_path: Path) -> None:
        member = join(world)
        ref = manifest_of(member, world.task).base.weights
        (tmp_path / "weights.part").write_bytes(b"\xff" * 100)
        with pytest.raises(Exception, match="what the cloud sent is not"):
            member.cloud.blob(ref.digest, ref.size, tmp_path / "weights")
        assert list(tmp_path.iterdir()) == []

    def test_a_blob_that_was_never_published_is_not_found(self, world: World, tmp_path: Path) -> None:
        with pytest.raises(NotFound):
            join(world).cloud.blob("0" * 64, 10, tmp_path / "blob")

    def test_a_blob_of_a_task_that_was_not_granted_is_not_handed_out(self, world: World, tmp_path: Path) -> None:
        member, other = join(world), join(world)
        world.grant(other.reply.board, world.other)
        answer = other.cloud.manifest(world.other, None)
        assert answer is not None
        statement = open_sealed(answer[0], other.trust.signing_keys, type="manifest", task=world.other, now=time.time())
        ref = convert(Manifest, statement.body, what="manifest").directory
        with pytest.raises((NotFound, NotGranted)):
            member.cloud.blob(ref.digest, ref.size, tmp_path / "blob")

    def test_what_a_search_finds_is_named_by_digest_and_can_be_fetched(self, world: World) -> None:
        member = join(world)
        found = a_search(member, world.task)
        asked = WantedMeta("wanted/1", world.task.id, manifest_of(member, world.task).base.onnx.digest)
        wanted = tensors.pack({"digests": found["digests"][::-1]}, plain(asked))
        raw = member.cloud.found(world.task.id, wanted)
        fetched = from_bytes(raw, world.task, what="samples", limit_bytes=SAMPLES_LIMIT_BYTES)
        assert len(fetched) > 0
        assert sample_digests(fetched) == [row.tobytes().hex() for row in found["digests"][::-1]]

    def test_every_neighbour_has_a_row_and_a_score(self, world: World) -> None:
        found = a_search(join(world), world.task)
        shape = (1, len(world.task.labels), 2)
        assert (found["rows"].shape, found["scores"].shape) == (shape, shape)
        assert found["rows"].min() >= -1
        assert found["rows"].max() == len(found["digests"]) - 1

    def test_small_files_come_along_with_the_manifest_and_are_not_fetched_again(
        self, world: World, tmp_path: Path
    ) -> None:
        member, parts = join(world), Parts(tmp_path)
        body = manifest_of(member, world.task)
        assert member.cloud.manifest(world.task.id, None, parts) is not None
        refs = (body.base.weights, body.base.onnx, body.directory)
        assert parts.received_bytes == sum(ref.size for ref in refs)
        for ref in refs:
            assert member.cloud.blob(ref.digest, ref.size, tmp_path / ref.digest) == 0
            assert digest((tmp_path / ref.digest).read_bytes()) == ref.digest

    def test_what_is_there_in_part_does_not_come_along_and_is_resumed(self, world: World, tmp_path: Path) -> None:
        member, parts = join(world), Parts(tmp_path)
        ref = manifest_of(member, world.task).base.weights
        member.cloud.blob(ref.digest, ref.size, tmp_path / "whole")
        (tmp_path / f"{ref.digest}.part").write_bytes((tmp_path / "whole").read_bytes()[:100])
        member.cloud.manifest(world.task.id, None, parts)
        assert (tmp_path / f"{ref.digest}.part").stat().st_size == 100
        assert member.cloud.blob(ref.digest, ref.size, tmp_path / ref.digest) == ref.size - 100

    def test_a_pack_opens_with_the_key_that_is_given_for_it(self, world: World, tmp_path: Path) -> None:
        member, pack = join(world), world.pack()
        (key,) = member.cloud.pack_keys(world.task.id, (str(pack.ciphertext),))
        assert key is not None
        member.cloud.blob(str(pack.ciphertext), pack.size + OVERHEAD_BYTES, tmp_path / "pack")
        raw = (tmp_path / "pack").read_bytes()
        assert len(decrypt(raw, key, name=pack.digest)) == pack.size

    def test_keys_come_in_the_order_of_the_question_and_none_for_what_is_no_pack(self, world: World) -> None:
        member, name = join(world), str(world.pack().ciphertext)
        keys = member.cloud.pack_keys(world.task.id, ("0" * 64, name, "f" * 64))
        assert [key is None for key in keys] == [True, False, True]

    def test_a_board_without_a_grant_gets_no_keys(self, world: World) -> None:
        member, name = join(world), str(world.pack().ciphertext)
        with pytest.raises(NotGranted):
            member.cloud.pack_keys(world.other, (name,))
        world.grant(member.reply.board, world.other)
        assert member.cloud.pack_keys(world.other, (name,)) == (None,), "a pack of another task"

    def test_a_revoked_board_gets_no_keys(self, world: World) -> None:
        member, name = join(world), str(world.pack().ciphertext)
        world.revoke(member.reply.board)
        with pytest.raises(Revoked):
            member.cloud.pack_keys(world.task.id, (name,))

    def test_a_contribution_sent_twice_counts_once(self, world: World) -> None:
        member, body, upload_id = join(world), some_samples(world.task), secrets.token_hex(16)
        until = time.time() + 86400
        first = member.cloud.contribute(world.task.id, upload_id, body, consent="packs", until=until)
        again = member.cloud.contribute(world.task.id, upload_id, body, consent="packs", until=until)
        assert first.accepted == 3
        assert again == first

    def test_an_upload_id_cannot_be_used_for_something_else(self, world: World) -> None:
        member, upload_id, until = join(world), secrets.token_hex(16), time.time() + 86400
        member.cloud.contribute(world.task.id, upload_id, some_samples(world.task), consent="packs", until=until)
        with pytest.raises(Conflict):
            member.cloud.contribute(world.task.id, upload_id, some_samples(world.task), consent="packs", until=until)

    def test_the_same_samples_under_a_new_id_are_duplicates(self, world: World) -> None:
        member, body, until = join(world), some_samples(world.task), time.time() + 86400
        member.cloud.contribute(world.task.id, secrets.token_hex(16), body, consent="packs", until=until)
        again = member.cloud.contribute(world.task.id, secrets.token_hex(16), body, consent="packs", until=until)
        assert (again.accepted, again.duplicates) == (0, 3)

    def test_a_consent_that_has_ended_is_refused(self, world: World) -> None:
        with pytest.raises(UsageError):
            join(world).cloud.contribute(
                world.task.id, secrets.token_hex(16), some_samples(world.task), consent="packs", until=1.0
            )

    def test_what_was_withdrawn_comes_again_by_a_new_consent_only(self, world: World) -> None:
        member, body, until = join(world), some_samples(world.task), time.time() + 86400

        def share(after: int) -> int:
            upload_id = secrets.token_hex(16)
            consent = {"consent": "packs", "until": until, "after": after}
            return member.cloud.contribute(world.task.id, upload_id, body, **consent).accepted

        assert share(0) == 3
        assert member.cloud.withdraw(world.task.id) == WithdrawReply(1, 3)
        assert member.cloud.withdraw(world.task.id) == WithdrawReply(1, 0)
        with pytest.raises(Gone):
            share(0)
        assert share(1) == 3

    def test_who_never_shared_has_nothing_to_withdraw(self, world: World) -> None:
        assert join(world).cloud.withdraw(world.task.id) == WithdrawReply(0, 0)

    def test_a_contribution_of_the_wrong_shape_is_refused(self, world: World) -> None:
        body = to_bytes(make(np.zeros((2, 3), world.task.input.dtype), np.zeros(2, int)), world.task.id)
        with pytest.raises(InvalidSamples):
            join(world).cloud.contribute(
                world.task.id, secrets.token_hex(16), body, consent="packs", until=time.time() + 86400
            )

    def test_a_report_sent_twice_counts_once(self, world: World) -> None:
        member, report = join(world), a_report(world.task, secrets.token_hex(16))
        assert member.cloud.report(report).accepted == 1
        assert member.cloud.report(report).accepted == 1  # the answer of the first time

    def test_a_changed_report_under_the_same_id_is_refused(self, world: World) -> None:
        member, upload_id = join(world), secrets.token_hex(16)
        member.cloud.report(a_report(world.task, upload_id))
        with pytest.raises(Conflict):
            member.cloud.report(a_report(world.task, upload_id, kept=4))

    def test_telemetry_sent_twice_counts_once(self, world: World) -> None:
        member = join(world)
        told = Telemetry(secrets.token_hex(16), (TelemetryPoint(1.0, temperature_c=51.5), TelemetryPoint(2.0)))
        assert member.cloud.telemetry(told).accepted == 2
        assert member.cloud.telemetry(told).accepted == 2  # the answer of the first time

    def test_changed_telemetry_under_the_same_id_is_refused(self, world: World) -> None:
        member, upload_id = join(world), secrets.token_hex(16)
        member.cloud.telemetry(Telemetry(upload_id, (TelemetryPoint(1.0),)))
        with pytest.raises(Conflict):
            member.cloud.telemetry(Telemetry(upload_id, (TelemetryPoint(2.0),)))

    def test_nobody_takes_telemetry_of_a_stranger(self, world: World) -> None:
        member = join(world)
        stranger = world.connect(key=SigningKey.generate(), board=member.reply.board)
        with pytest.raises((IntegrityError, Refused)):
            stranger.telemetry(Telemetry(secrets.token_hex(16), (TelemetryPoint(1.0),)))

    def test_a_revoked_board_is_shut_out_at_once(self, world: World) -> None:
        member = join(world)
        member.cloud.manifest(world.task.id, None)
        world.revoke(member.reply.board)
        with pytest.raises(Revoked):
            member.cloud.manifest(world.task.id, None)

    def test_a_revoked_key_does_not_come_back_with_a_new_token(self, world: World) -> None:
        member = join(world)
        world.revoke(member.reply.board)
        with pytest.raises(Revoked):
            introduce(world, world.enrolment_file(world.task.id), member.key)

    def test_a_board_that_nobody_enrolled_is_not_let_in(self, world: World) -> None:
        with pytest.raises(Unauthorized):
            world.connect(key=SigningKey.generate(), board="b" + "0" * 16).manifest(world.task.id, None)

    def test_another_boards_name_does_not_help_without_its_key(self, world: World) -> None:
        member = join(world)
        with pytest.raises((IntegrityError, Refused)):
            world.connect(key=SigningKey.generate(), board=member.reply.board).manifest(world.task.id, None)

    def test_who_has_the_newest_trust_gets_nothing_more(self, world: World) -> None:
        member = join(world)
        assert member.cloud.trust(member.trust.version) == []
        assert [raw.decode() for raw in member.cloud.trust(0)] == list(member.reply.trust)

    def test_a_board_that_nothing_is_released_to_has_no_orders(self, world: World) -> None:
        member = join(world)
        member.cloud.manifest(world.task.id, None)
        assert member.cloud.orders(world.task.id, "") is None

    def test_the_outcome_of_a_release_that_nobody_offered_is_refused(self, world: World) -> None:
        member = join(world)
        told = Outcome("a" * 32, member.reply.board, "b" * 16, 1, "committed", (), "0.1.0")
        with pytest.raises(NotFound):
            member.cloud.tell_outcome(world.task.id, told)
        with pytest.raises(NotGranted):
            member.cloud.tell_outcome(world.other, told)
