"""A cloud with a small task, bases good and bad, and a fleet: most boards simulated, some with folders of their own
that talk to the served cloud over HTTPS."""

from __future__ import annotations

import contextlib
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from cloud_aug import auth, bases, cloud, db, index, pool, pretrain, tasks, writes
from cloud_aug.cloud import Cloud
from cloud_aug.releases import orders, outcomes
from edgectl import enrolment, sync
from edgectl.cloud import HttpCloud
from edgectl.home import Home
from edgectl.releases import gate
from edgectl.store import Store
from edgectl.telemetry.reading import Reading
from edgewire import golden, samples
from edgewire.decoding import convert, encode, plain
from edgewire.messages import Base, EnrolmentFile
from edgewire.releases import BasePayload, Order, Outcome, Verdict, proof_of
from edgewire.samples import Samples
from edgewire.signing import SigningKey, Statement, open_sealed, seal
from edgewire.tasks import InputSchema, ModelSpec, Privacy, Task
from edgewire.trust import public_text

CLASSES, FEATURES, PER_CLASS = 4, 8, 10
TASK = Task(
    "fleet",
    "Four classes in eight dimensions",
    InputSchema((FEATURES,)),
    tuple("abcd"),
    ModelSpec("mlp", width=16, embedding=8),
    privacy=Privacy(min_cohort=2, modes=("directory",)),
)
CENTRES = np.random.default_rng(1).normal(0, 1.5, (CLASSES, FEATURES))


def person(seed: int, per_class: int) -> tuple[np.ndarray, np.ndarray]:
    """x, y of somebody whose every class is moved a little."""
    rng = np.random.default_rng((seed, 23))
    y = np.repeat(np.arange(CLASSES), per_class)
    moved = rng.normal(0, 0.4, (CLASSES, FEATURES))
    return (CENTRES[y] + moved[y] + rng.normal(0, 0.9, (len(y), FEATURES))).astype(np.float32), y


def quiet(_stage: str, _done: int, _total: int) -> None:
    """Progress that nobody watches."""


def first_base(connection: sa.Connection) -> Base:
    """What every board begins with."""
    record = bases.find(connection, TASK.id, version=1)
    if record is None:
        raise SystemExit("the benchmark's cloud has lost its first base")
    return record.base


def make(folder: Path) -> Cloud:
    """A cloud whose manifest names base 1."""
    made, _ = cloud.create(folder, url="https://localhost:8443", hosts=["localhost"], offline=None, now=time.time())
    tasks.publish(made, TASK, now=time.time())
    parts = [person(10_000_000 + number, 30) for number in range(8)]
    columns = {
        "x": np.concatenate([x for x, _ in parts]),
        "y": np.asarray(TASK.labels)[np.concatenate([y for _, y in parts])],
        "user": np.repeat([f"person-{number}" for number in range(8)], 30 * CLASSES),
    }
    np.savez(folder / "people.npz", **columns)
    pool.ingest(made, folder / "people.npz", TASK.id, pool.Consent("packs", 4e9), now=time.time())
    train(made, seed=0, hold=False)
    return made


def train(made: Cloud, *, seed: int, hold: bool) -> None:
    """Train a base honestly, and publish it."""
    settings = pretrain.TrainSettings(seed=seed, epochs=20, rehearse=False)
    pretrain.train(made, TASK.id, settings, now=time.time(), on_progress=quiet)
    index.build(made, TASK.id, seed=0, now=time.time(), on_progress=quiet, hold=hold)


def smuggle(made: Cloud, onnx: bytes) -> None:
    """Publish another file as the next base, held back for a release: what a mistake in training or export leaves."""
    before = bases.newest(made, TASK.id)
    base = Base(before.base.version + 1, before.base.weights, made.blobs.put(onnx))
    name = secrets.token_hex(32)
    record = bases.BaseRecord(TASK.id, base, name, 0, 0, before.samples, before.contributors, ())
    row = {"task": TASK.id, "version": base.version, "made_from": name, "trained_at": time.time()}
    with made.database.writing() as connection:
        connection.execute(db.bases.insert().values({**row, "document": encode(record)}))
    index.build(made, TASK.id, seed=0, now=time.time(), on_progress=quiet, hold=True)


@dataclass
class Judged:
    """What boards measured: seconds that each gate took, and which checks failed how often."""

    seconds: list[float] = field(default_factory=list)
    failed: dict[str, int] = field(default_factory=dict)

    def add(self, verdict: gate.Verdict, seconds: float) -> None:
        self.seconds.append(seconds)
        for check in verdict.checks:
            if not check.passed:
                self.failed[check.name] = self.failed.get(check.name, 0) + 1


@dataclass(frozen=True)
class Simulated:
    """A board without a folder: its key, its samples and its state; the gate is the real one."""

    cloud: Cloud
    number: int
    key: SigningKey
    id: str

    @property
    def samples(self) -> Samples:
        return samples.make(*person(self.number, PER_CLASS))

    def read(self) -> Reading:
        free_mib = float(np.random.default_rng((self.number, 5)).choice([180.0, 900.0, 3000.0, 7000.0]))
        return Reading(0.0, time.time(), available_mib=free_mib, throttled=False, under_voltage=False)

    def ask(self) -> list[tuple[Order, int]]:
        """Its orders and their counters."""
        now = time.time()
        if not orders.etag(self.cloud, self.id, TASK.id, now=now):
            return []
        keys = self.cloud.trust().signing_keys
        given = orders.give(self.cloud, self.id, TASK.id, now=now)[0].orders
        opened = [open_sealed(raw.encode(), keys, type="release", task=TASK.id, now=now) for raw in given]
        return [(convert(Order, one.body, what="order"), one.version) for one in opened]

    def carry_out(self, asked: list[tuple[Order, int]], judged: Judged) -> None:
        """Judge, and tell."""
        for order, counter in asked:
            self._tell(order, counter, "reverted" if order.action == "revert" else self._judge(order, judged))

    def _judge(self, order: Order, judged: Judged) -> Verdict:
        if not isinstance(order.payload, BasePayload):
            raise SystemExit("the order brings no base")
        blobs, payload = self.cloud.blobs, order.payload
        with self.cloud.database.reading() as connection:
            old = first_base(connection).onnx.digest
        bench = gate.Bench(
            task=TASK,
            expected=golden.from_bytes(blobs.read(payload.golden.digest)),
            incumbent=blobs.path(old),
            samples=self.samples,
            limits=order.limits,
            read=self.read,
        )
        started = time.perf_counter()
        verdict = gate.judge(blobs.path(payload.base.onnx.digest), bench)
        judged.add(verdict, time.perf_counter() - started)
        return "committed" if verdict.state == "passed" else "failed"

    def _tell(self, order: Order, counter: int, verdict: Verdict) -> None:
        proof = {}
        if verdict == "committed" and isinstance(order.payload, BasePayload):
            proof = {"proof": proof_of(self.cloud.blobs.path(order.payload.base.onnx.digest), order.challenge)}
        told = Outcome(secrets.token_hex(16), self.id, order.release, counter, verdict, (), "0.1.0", **proof)
        now = time.time()
        raw = seal(self.key, Statement("outcome", TASK.id, 0, counter, now, now + 120, plain(told)))
        outcomes.keep(self.cloud, self.id, TASK.id, raw, now=now)


def simulate(made: Cloud, count: int) -> dict[str, Simulated]:
    """Enrol that many boards at once: their rows are written in one transaction, the rest of them is a number."""
    found = []
    for number in range(count):
        key = SigningKey.generate()
        found.append(Simulated(made, number, key, f"b{key.id}"))
    now = time.time()
    rows = [
        {"id": one.id, "name": f"board-{one.number}", "profile": "generic", "public_key": public_text(one.key.public),
         "enrolled_at": now, "edgectl": "0.1.0"}
        for one in found
    ]  # fmt: skip
    with made.database.writing() as connection:
        writes.insert_new(connection, db.boards, rows)
        writes.insert_new(
            connection, db.grants, [{"board": one.id, "task": TASK.id, "granted_at": now} for one in found]
        )
    return {one.id: one for one in found}


@dataclass(frozen=True)
class Real:
    """A board with a folder of its own that syncs over HTTPS."""

    home: Home
    number: int

    def enroll(self, made: Cloud, url: str) -> str:
        token = auth.make_enrolment_token(made, [TASK.id], now=time.time(), valid_for_s=3600)
        trust = made.trust()
        file = encode(EnrolmentFile(url, token, trust.authorities, trust.roots))
        known = enrolment.enroll(
            self.home, file, name=f"real-{self.number}", profile="generic", now=time.time()
        ).enrolment
        with Store.open(self.home.database) as store:
            store.add_samples(TASK, samples.make(*person(self.number, PER_CLASS)), now=time.time())
        return known.board

    def sync(self, *, before_the_gate: Callable[[], object] = lambda: None) -> sync.TaskOutcome:
        def read() -> Reading:
            before_the_gate()
            return Reading(0.0, time.time(), available_mib=900.0, throttled=False, under_voltage=False)

        known = enrolment.load(self.home)
        talk = HttpCloud(
            known.url,
            ca_bundle=self.home.ca_bundle,
            key=SigningKey.load(self.home.key),
            board=known.board,
            token_cache=self.home.access_token,
        )
        try:
            with Store.open(self.home.database) as store:
                rng = np.random.default_rng()
                options = sync.Options(read_state=read)
                return sync.sync(self.home, known, store, talk, options, clock=time.time, rng=rng).tasks[0]
        finally:
            talk.close()


def reals(folder: Path, made: Cloud, url: str, *, numbers: Sequence[int]) -> dict[str, Real]:
    """Enrol boards over HTTPS, and let them sync once."""
    found = {}
    for number in numbers:
        real = Real(Home(folder / f"board-{number}"), number)
        found[real.enroll(made, url)] = real
        real.sync()
    return found


@contextlib.contextmanager
def serving(data: Path) -> Iterator[str]:
    """The real service over TLS; its address."""
    log = data / "server.log"
    line = [sys.executable, "-m", "cloud_aug", "serve", "--bind", "127.0.0.1", "--port", "0", "--data", str(data)]
    with log.open("wb") as output:
        process = subprocess.Popen(line, stdout=output, stderr=output)
        try:
            yield _address(process, lambda: log.read_text())
        finally:
            process.terminate()
            process.wait(timeout=30)


def _address(process: subprocess.Popen[bytes], said: Callable[[], str]) -> str:
    for _ in range(1200):
        if found := re.search(r"serving https://\S+:(\d+)", said()):
            return f"https://localhost:{found[1]}"
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise SystemExit(f"the service did not become ready:\n{said()}")
