"""The real cloud, a process of its own on loopback with TLS, keeps the same promises, also to the command line."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cloud_aug import auth, boards, index, pool, pretrain, publications, tasks
from cloud_aug.cloud import Cloud as Service
from cloud_aug.cloud import open_cloud
from edgectl.cloud import Cloud, HttpCloud
from edgewire.decoding import encode
from edgewire.messages import EnrolmentFile, PackRef
from edgewire.signing import SigningKey
from tests.board.conftest import Board
from tests.cloud import toys
from tests.cloud.backends import Backend, files_only
from tests.suites.cloud_api import CloudApi

OTHER = replace(toys.TASK, id="other")


class RealWorld:
    """A served data folder; administration through the service's own functions, as its shell would."""

    task, other = toys.TASK, OTHER.id

    def __init__(self, url: str, service: Service, folder: Path) -> None:
        self.url, self.service = url, service
        self.bundle = folder / "ca.pem"
        self.bundle.write_text(service.trust().ca_bundle)
        self._connected: list[HttpCloud] = []

    def enrolment_file(self, *names: str) -> EnrolmentFile:
        token = auth.make_enrolment_token(self.service, names, now=time.time(), valid_for_s=3600)
        trust = self.service.trust()
        return EnrolmentFile(self.url, token, trust.authorities, trust.roots)

    def connect(self, *, key: SigningKey | None = None, board: str | None = None) -> Cloud:
        self._connected.append(HttpCloud(self.url, ca_bundle=self.bundle, key=key, board=board))
        return self._connected[-1]

    def hang_up(self) -> None:
        """Close what the test opened: a server that stops waits for open connections."""
        while self._connected:
            self._connected.pop().close()

    def revoke(self, board: str) -> None:
        boards.revoke(self.service, board, now=time.time())

    def pack(self) -> PackRef:
        return publications.require(self.service, self.task.id).packs[0]

    def grant(self, board: str, task_id: str) -> None:
        boards.grant(self.service, board, task_id, now=time.time())


def publish_other(data: Path) -> None:
    service = open_cloud(data)
    tasks.publish(service, OTHER, now=time.time())
    pool.ingest(service, data / "people.npz", OTHER.id, pool.Consent("packs", toys.FAR), now=time.time())
    settings = pretrain.TrainSettings(epochs=1, rehearse=False)
    pretrain.train(service, OTHER.id, settings, now=time.time(), on_progress=toys.quiet)
    index.build(service, OTHER.id, seed=0, now=time.time(), on_progress=toys.quiet)
    service.database.close()


@pytest.fixture(scope="module")
def running(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealWorld]:
    data = toys.published(tmp_path_factory.mktemp("real") / "cloud", backend.stores())
    publish_other(data)
    with toys.serving(data) as server:
        yield RealWorld(server.url, open_cloud(data), data)


class TestRealCloud(CloudApi):
    @pytest.fixture
    def world(self, running: RealWorld) -> Iterator[RealWorld]:
        yield running
        running.hang_up()


@files_only
def test_a_board_enrolls_and_examines_itself(running: RealWorld, newcomer: Board) -> None:
    file = encode(running.enrolment_file("toy"))
    first = newcomer.edgectl("enroll", "-", "--name", "kitchen", "--json", stdin=file)
    again = newcomer.edgectl("enroll", "-", "--json", stdin=file)
    report = json.loads(first.stdout)
    assert (report["changed"], report["tasks"], report["url"]) == (True, ["toy"], running.url)
    assert json.loads(again.stdout)["changed"] is False
    checks = {c["name"]: c for c in json.loads(newcomer.edgectl("doctor", "--quick", "--json").stdout)["checks"]}
    assert checks["cloud"]["outcome"] == "ok"
    assert "tasks: toy" in checks["cloud"]["detail"]


@files_only
def test_a_used_token_and_a_revoked_board_are_refused_with_11(running: RealWorld, tmp_path: Path) -> None:
    file = running.enrolment_file("toy")
    one, two = Board(tmp_path / "one"), Board(tmp_path / "two")
    enrolled = json.loads(one.edgectl("enroll", "-", "--json", stdin=encode(file)).stdout)
    assert two.edgectl("enroll", "-", stdin=encode(file)).returncode == 11
    running.revoke(enrolled["board"])
    assert one.edgectl("doctor", "--quick").returncode == 11


@files_only
def test_a_server_of_another_authority_is_refused_with_8(running: RealWorld, newcomer: Board, tmp_path: Path) -> None:
    stranger = toys.empty(tmp_path / "stranger").trust()
    file = replace(running.enrolment_file("toy"), authorities=stranger.authorities)
    done = newcomer.edgectl("enroll", "-", stdin=encode(file))
    assert done.returncode == 8
    assert b"not signed by the authority" in done.stderr


@files_only
def test_a_cloud_with_another_root_is_refused_with_8(running: RealWorld, newcomer: Board, tmp_path: Path) -> None:
    stranger = toys.empty(tmp_path / "stranger").trust()
    file = replace(running.enrolment_file("toy"), roots=stranger.roots)
    assert newcomer.edgectl("enroll", "-", stdin=encode(file)).returncode == 8
    assert not newcomer.home.enrolment.exists()
