"""A board that syncs with a cloud in memory, and what is published there."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace

import numpy as np

from edgectl import enrolment, sync
from edgectl.cache import Cache
from edgectl.store import Store
from edgelearn.models.build import load, outputs
from edgelearn.retrieval.directory import describe
from edgewire import samples as sample_columns
from edgewire import tensors
from edgewire.decoding import plain
from edgewire.encryption import encrypt
from edgewire.files import digest
from edgewire.messages import DirectoryMeta
from edgewire.signing import SigningKey
from edgewire.tasks import Privacy, Task
from tests.board.conftest import Board
from tests.fakes.memory_cloud import MemoryCloud, pack_ref
from tests.learn import world

BOTH = replace(world.TASK, privacy=Privacy(modes=("directory", "embedding"), epsilon=8.0, epsilon_budget=16.0))


@dataclass
class Synced:
    """A board, its cloud, and what is published there: two cohorts of two contributors each."""

    board: Board
    onnx: bytes
    task: Task = BOTH

    def publish(self, *, seed: int = 0, encrypted: bool = True) -> None:
        packs, parts = [], []
        for cohort in range(2):
            moved = world.style(40 + cohort, 1.6)
            people = [world.samples(moved, 10, seed + 10 * cohort + i) for i in range(2)]
            x, y = np.concatenate([x for x, _ in people]), np.concatenate([y for _, y in people])
            names = np.repeat(["p0", "p1"], 10 * world.CLASSES)
            packs.append(sample_columns.to_bytes(sample_columns.make(x, y, user=names), self.task.id))
            parts.append((x, y))
        x, y = np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])
        embedding = outputs(load(world.TASK, world.base()), x)[1]
        directory = describe(embedding, y, np.repeat([0, 1], 20 * world.CLASSES), n_classes=world.CLASSES)
        blobs = [encrypt(pack, self.key_of(pack)) if encrypted else pack for pack in packs]
        refs = tuple(
            pack_ref(pack, cohort=i, samples=80, contributors=2, ciphertext=blob if encrypted else None)
            for i, (pack, blob) in enumerate(zip(packs, blobs, strict=True))
        )
        self.board.server.keys |= {digest(blob): self.key_of(pack) for pack, blob in zip(packs, blobs, strict=True)}
        base = digest(self.onnx)
        meta = plain(DirectoryMeta(self.task.id, base, refs, ()))
        self.board.server.publish(
            self.task,
            weights=tensors.pack(world.base(), {"format": "weights/1"}),
            onnx=self.onnx,
            directory=tensors.pack(directory.arrays(), meta),
            packs=blobs,
        )

    @staticmethod
    def key_of(pack: bytes) -> bytes:
        return hashlib.sha256(b"key of " + pack).digest()

    def cloud(self) -> MemoryCloud:
        known = enrolment.load(self.board.home)
        return MemoryCloud(self.board.server, key=SigningKey.load(self.board.home.key), board=known.board)

    def sync(self, cloud: MemoryCloud | None = None, *, seed: int = 0, **options: object) -> sync.Outcome:
        with self.store() as store:
            return sync.sync(
                self.board.home,
                enrolment.load(self.board.home),
                store,
                cloud or self.cloud(),
                sync.Options(**options),
                clock=self.board.server.clock,
                rng=np.random.default_rng(seed),
            )

    def store(self) -> Store:
        return Store.open(self.board.home.database)

    def add(self, moved: np.ndarray, *, per_class: int = 3, seed: int = 0) -> None:
        x, y = world.samples(moved, per_class, seed)
        with self.store() as store:
            store.add_samples(self.task, sample_columns.make(x, y), now=time.time())

    @property
    def cache(self) -> Cache:
        return Cache(self.board.home, self.task.id)
