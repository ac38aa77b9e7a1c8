"""The in-memory cloud keeps the promises of the real one."""

from __future__ import annotations

import hashlib

import pytest

from edgectl.cloud import Cloud
from edgewire.encryption import encrypt
from edgewire.files import digest
from edgewire.messages import EnrolmentFile, PackRef
from edgewire.signing import SigningKey
from edgewire.tasks import InputSchema, ModelSpec, Privacy, Task
from tests.fakes.memory_cloud import MemoryCloud, MemoryServer, pack_ref
from tests.suites.cloud_api import CloudApi, some_samples


def a_task(name: str) -> Task:
    privacy = Privacy(modes=("directory", "embedding"), min_cohort=2)
    return Task(name, name, InputSchema((4,)), ("no", "yes"), ModelSpec("mlp"), privacy=privacy)


class MemoryWorld:
    def __init__(self) -> None:
        self.server = MemoryServer()
        self.task, self.other = a_task("gestures"), "secrets"
        for task in (self.task, a_task(self.other)):
            name = task.id.encode()
            key = hashlib.sha256(name).digest()
            blob = encrypt(name, key)
            self.server.keys[digest(blob)] = key
            self.server.publish(
                task, weights=name * 99, onnx=name + b"onnx", directory=name + b"directory", packs=[blob]
            )
        self.server.search = lambda *_: some_samples(self.task, seed=1)

    def pack(self) -> PackRef:
        data = self.task.id.encode()
        blob = encrypt(data, hashlib.sha256(data).digest())
        return pack_ref(data, cohort=0, samples=0, contributors=0, ciphertext=blob)

    def enrolment_file(self, *tasks: str) -> EnrolmentFile:
        return self.server.enrolment_file(*tasks)

    def connect(self, *, key: SigningKey | None = None, board: str | None = None) -> Cloud:
        return MemoryCloud(self.server, key=key, board=board)

    def revoke(self, board: str) -> None:
        self.server.revoke(board)

    def grant(self, board: str, task_id: str) -> None:
        self.server.grant(board, task_id)


class TestMemoryCloud(CloudApi):
    @pytest.fixture
    def world(self) -> MemoryWorld:
        return MemoryWorld()
