"""Our half of `transport_vs_flower`: the real service, and boards that play `edgectl round join` as users have it.

with played_place(folder, shares) as place:
    place.play(rounds=5)
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.relay import Relay, relaying
from benchmarks.transported import SETTINGS, TASK, Played, Shares, bytes_of, score, until, watched
from cloud_aug import bases, cloud, db, index, pool, pretrain, tasks
from cloud_aug.cloud import Cloud
from cloud_aug.rounds import results
from cloud_aug.rounds.status import SeriesStatus, status
from edgelearn.export import patch_onnx
from edgelearn.models.build import Weights
from edgewire import tensors
from edgewire.decoding import encode
from edgewire.messages import WEIGHTS_LIMIT_BYTES, Base
from tests.cloud import toys
from tests.journeys.conftest import Box

CONTRIBUTORS, POOLED = 4, 20  # who makes the base's form; its weights are put in place of what they teach
ROUND_LIMIT_S = 300.0
MAKERS = 2  # boards that are set up at the same time


@dataclass
class Place:
    """A served cloud, boards that have synced, and what counts the bytes between them."""

    shares: Shares
    made: Cloud
    server: toys.Server
    relay: Relay
    boards: list[Box]
    servers: contextlib.ExitStack
    kills: int = 0

    def play(
        self, *, rounds: int, compression: str = "none", down: str = "none", kill_every: int | None = None
    ) -> Played:
        """A series in which every board takes part in every round. kill_every: the server is killed once so many rounds
        more have been closed and the first update of the next has come, and another takes its place."""
        series = self._started(rounds, ["--compression", compression, "--down", down])
        self.kills = 0
        with self._playing(rounds), watched(lambda: [self.server.pid]) as seen:

            def over() -> bool:
                told = self._told(series)
                if kill_every and told.closed >= kill_every * (self.kills + 1) and told.history[-1].answered:
                    self._kill()
                return told.state != "running"

            until(over, limit_s=rounds * ROUND_LIMIT_S, what="a series")
        told = self._told(series)
        if (told.state, told.failed) != ("finished", 0):
            raise RuntimeError(f"the series is {told.state}: {told.reason}")
        ended = _moments(told)
        counted = sum(one.answered for one in told.history)
        made = self._weights(series)
        return Played(
            ended, *bytes_of(self.relay, ended), seen.worked_s(ended), seen.mib, score(made, self.shares), counted, made
        )

    def _kill(self) -> None:
        """By the signal that nobody can catch."""
        self.server.process.kill()
        self.server.process.wait(30)
        data = self.made.settings.data
        self.server = self.servers.enter_context(toys.serving(data))
        self.relay.target = self.server.port
        toys.set_url(data, f"https://localhost:{self.relay.port}")
        self.kills += 1

    def _started(self, rounds: int, way: list[str]) -> str:
        local = [
            "--epochs",
            SETTINGS.epochs,
            "--batch-size",
            SETTINGS.batch_size,
            "--learning-rate",
            SETTINGS.learning_rate,
        ]
        size = ["--cohort", len(self.boards), "--quorum", len(self.boards), "--rounds", rounds]
        plan = ["--task", TASK.id, *way, *local, *size, "--start"]
        return str(toys.report("round", "create", *map(str, plan), data=self.made.settings.data)["series"])

    @contextlib.contextmanager
    def _playing(self, rounds: int) -> Iterator[None]:
        """Every board asks for rounds until the block ends. Raises RuntimeError if one fails."""
        joins = [board.start("round", "join", "--for", str(int(rounds * ROUND_LIMIT_S))) for board in self.boards]
        try:
            yield
        finally:
            said = [_ended(process) for process in joins]
        if failed := [words for code, words in said if code not in (0, -signal.SIGTERM)]:
            raise RuntimeError(f"a board stopped playing: {failed[0]}")

    def _told(self, series: str) -> SeriesStatus:
        return status(self.made, series, now=time.time())

    def _weights(self, series: str) -> Weights:
        raw = results.fetch(self.made, series, "last").weights
        return tensors.unpack(raw, what="weights", limit_bytes=WEIGHTS_LIMIT_BYTES)[0]


def _ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code and its last words, once it has been asked to stop."""
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=120)[1]
    return process.returncode, said


def _moments(told: SeriesStatus) -> list[float]:
    """By the monotonic clock."""
    ahead = time.time() - time.monotonic()
    ended = [one.closed_at for one in told.history if one.closed_at is not None]
    return [moment - ahead for moment in (told.history[0].begun_at, *ended)]


@contextlib.contextmanager
def played_place(folder: Path, shares: Shares) -> Iterator[Place]:
    """Ends all that it started."""
    made = _cloud(folder / "cloud", shares)
    data = made.settings.data
    with contextlib.ExitStack() as servers, relaying() as relay:
        server = servers.enter_context(toys.serving(data))
        relay.target = server.port
        toys.set_url(data, f"https://localhost:{relay.port}")
        with ThreadPoolExecutor(MAKERS) as makers:
            numbers = range(len(shares.parts))
            boards = list(makers.map(lambda number: _board(folder, data, shares, number), numbers))
        yield Place(shares, made, server, relay, boards, servers)
    made.database.close()


def _cloud(data: Path, shares: Shares) -> Cloud:
    """With a task, and a base that starts where both sides start."""
    toys.empty(data)
    made = cloud.open_cloud(data)
    tasks.publish(made, TASK, now=time.time())
    rows = np.random.default_rng(0).permutation(len(shares.y))[: CONTRIBUTORS * POOLED]
    names = np.asarray([f"person-{i % CONTRIBUTORS}" for i in range(len(rows))])
    labels = np.asarray(TASK.labels)[shares.y[rows]]
    file = toys.data_file(data / "pool.npz", {"x": shares.x[rows], "y": labels, "user": names})
    pool.ingest(made, file, TASK.id, pool.Consent("packs", toys.FAR), now=time.time())
    settings = pretrain.TrainSettings(epochs=1, rehearse=False, augment=False)
    pretrain.train(made, TASK.id, settings, now=time.time(), on_progress=toys.quiet)
    _start_from(made, shares.weights)
    index.build(made, TASK.id, seed=0, now=time.time(), on_progress=toys.quiet)
    return made


def _start_from(made: Cloud, weights: Weights) -> None:
    """A newer base with these weights."""
    newest = bases.newest(made, TASK.id)
    blob = made.blobs.put(tensors.pack(weights, {"format": "weights/1", "task": TASK.id}))
    onnx = made.blobs.put(patch_onnx(made.blobs.read(newest.base.onnx.digest), weights))
    base = Base(newest.base.version + 1, blob, onnx)
    record = replace(newest, base=base, made_from=blob.digest)
    row = {"task": TASK.id, "version": base.version, "made_from": record.made_from, "trained_at": time.time()}
    with made.database.writing() as connection:
        connection.execute(db.bases.insert().values({**row, "document": encode(record)}))


def _board(folder: Path, data: Path, shares: Shares, number: int) -> Box:
    """Enrolled, with samples, and with its owner's consent. This machine counts as idle."""
    box = Box(folder / f"board-{number}")
    box.folder.mkdir()
    token, samples = box.folder / "enrol.json", box.folder / "samples.npz"
    token.write_text(toys.run("boards", "token", "--task", TASK.id, data=data).stdout)
    rows = shares.parts[number]
    np.savez(samples, x=shares.x[rows], y=np.asarray(TASK.labels)[shares.y[rows]])
    box.report("enroll", token, "--name", f"board-{number}")
    box.report("config", "set", "rounds", "true")
    box.report("config", "set", "agent_idle_percent", "100")
    box.report("sync", "--no-rounds")
    added = box.report("data", "add", samples)
    if added["added"] != len(rows):
        raise RuntimeError(json.dumps(added))
    return box
