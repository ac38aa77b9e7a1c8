"""A board that syncs with a cloud in memory, and releases that this cloud orders."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from benchmarks.releases import models
from edgectl import enrolment, sync, tasks
from edgectl.inference import Predictor
from edgectl.releases import record
from edgectl.releases.record import Record
from edgectl.telemetry.reading import Reading
from edgewire import golden, tensors
from edgewire.files import digest
from edgewire.messages import Base, Manifest
from edgewire.releases import BasePayload, Limits, Order, Policy
from tests.board.synced import Synced

CALM = Reading(0.0, 0.0, available_mib=500.0, throttled=False, under_voltage=False)
RELEASE, OTHER = "a" * 16, "b" * 16
CHALLENGE = "c" * 32


@dataclass
class Released:
    """One board, one task."""

    synced: Synced
    reading: Reading = CALM

    @property
    def task_id(self) -> str:
        return self.synced.task.id

    @property
    def board(self) -> str:
        return enrolment.load(self.synced.board.home).board

    def payload(self, onnx: bytes | None = None, *, version: int = 2, moved: float = 0.0) -> BasePayload:
        """A base to release, on the server: the published one with another file, directory and golden answers. moved:
        how far the directory's means are from the published ones."""
        server, made = self.synced.board.server, models.good(self.synced.onnx) if onnx is None else onnx
        known = server.bodies[self.task_id]
        x = golden.inputs(self.synced.task.input)
        answers = golden.to_bytes(x, Predictor(made).run(x)[0], self.task_id)
        arrays, meta = tensors.unpack(server.blobs[known.directory.digest], what="directory", limit_bytes=1 << 24)
        arrays["global_means"] = arrays["global_means"] + np.float32(moved)
        directory = tensors.pack(arrays, {**meta, "base": digest(made)})
        refs = [server.publish_blob(self.task_id, data) for data in (made, directory, answers)]
        return BasePayload(Base(version, known.base.weights, refs[0]), refs[1], refs[2])

    def install(
        self, payload: BasePayload | None = None, *, counter: int = 1, release: str = RELEASE, **changes: object
    ) -> Order:
        """Order it; changes: fields of the order, and what `MemoryServer.order` takes."""
        sealing = {name: changes.pop(name) for name in ("epoch", "valid_s") if name in changes}
        order = Order(
            release, self.board, "base", "install", CHALLENGE, limits=Limits(latency_ratio=100.0, slack_ms=1000.0),
            payload=payload or self.payload(),
        )  # fmt: skip
        order = replace(order, **changes)  # type: ignore[arg-type]
        self.synced.board.server.order(self.task_id, order, counter=counter, **sealing)  # type: ignore[arg-type]
        return order

    def call_back(self, *, counter: int = 2, release: str = RELEASE) -> None:
        order = Order(release, self.board, "base", "revert", CHALLENGE)
        self.synced.board.server.order(self.task_id, order, counter=counter)

    def order_policy(self, policy: Policy, *, counter: int = 1) -> None:
        order = Order(RELEASE, self.board, "policy", "install", CHALLENGE, policy=policy)
        self.synced.board.server.order(self.task_id, order, counter=counter)

    def sync(self, **options: object) -> sync.TaskOutcome:
        return self.synced.sync(read_state=lambda: self.reading, profile="generic", **options).tasks[0]

    def manifest(self) -> Manifest:
        """As every command sees it."""
        home = self.synced.board.home
        return tasks.known_task(home, enrolment.load(home), self.task_id, self.synced.board.server.clock())

    def record(self) -> Record:
        return record.read(self.synced.board.home, self.task_id, "base")

    @property
    def told(self) -> list[tuple[str, str]]:
        """Release and verdict of each outcome that the cloud got."""
        return [(one.release, one.verdict) for one in self.synced.board.server.outcomes]
