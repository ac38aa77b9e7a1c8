"""kill -9 at many points: what is there is whole, and the next run goes on."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from cloud_aug import cloud, db, pool, publications
from tests.cloud import toys
from tests.cloud.backends import files_only

CONSENT = ("--consent", "packs", "--consent-until", "2099-12-31")


def kill_at(arguments: list[str], data: Path, *, line: str = "", delay_s: float = 0.0) -> int:
    """Start a command, kill it some time after a line of its talk appears; returns how it ended."""
    process = subprocess.Popen(
        toys.command(*arguments, data=data), stderr=subprocess.PIPE, text=True, env=toys.environment()
    )
    assert process.stderr is not None
    for text in process.stderr:
        if not line or text.startswith(line):
            break
    time.sleep(delay_s)
    os.kill(process.pid, signal.SIGKILL)
    process.stderr.close()
    return process.wait(30)


@pytest.fixture
def large(tmp_path) -> Path:
    """A file of 180,000 samples: three transactions."""
    columns = toys.people(20, 3000)
    assert len(np.unique(columns["x"], axis=0)) == len(columns["x"]) == 180_000
    return toys.data_file(tmp_path / "large.npz", columns)


def test_a_killed_ingest_leaves_whole_samples_and_the_next_run_adds_the_rest(tmp_path, large):
    from cloud_aug import tasks

    data = tmp_path / "cloud"
    tasks.publish(toys.empty(data), toys.TASK, now=time.time())
    arguments = ["pool", "ingest", str(large), "--task", "toy", *CONSENT]
    rng, seen = random.Random(0), 0
    for _ in range(4):
        kill_at(arguments, data, line="ingest", delay_s=rng.uniform(0, 0.3))
        made = cloud.open_cloud(data)
        loaded = pool.load(made, toys.TASK, now=time.time())
        assert len(loaded.samples) >= seen, "what was committed stays"
        assert len(loaded.samples) in (0, 65_536, 131_072, 180_000), "a piece is there whole, or not at all"
        assert np.isfinite(loaded.samples.x).all()
        seen = len(loaded.samples)
        made.database.close()
    done = toys.report(*arguments, data=data)
    assert done["accepted"] + done["duplicates"] == 180_000
    assert toys.report("pool", "stats", "--task", "toy", data=data)["usable"] == 180_000


STAGES = ("embed", "cohorts", "packs", "search index", "verify", "publish")


@pytest.mark.parametrize(
    ("backend", "stage"),
    [*(("files", stage) for stage in STAGES), ("services", "packs"), ("services", "publish")],
    indirect=["backend"],
)
def test_a_killed_build_leaves_the_old_publication_or_the_whole_new_one(data, tmp_path, stage):
    file = toys.data_file(tmp_path / "more.npz", toys.people(4, seed=3))
    made = cloud.open_cloud(data)
    pool.ingest(made, file, "toy", pool.Consent("packs", toys.FAR), now=time.time())
    before = publications.require(made, "toy")
    kill_at(["index", "build", "--task", "toy"], data, line=stage, delay_s=random.Random(stage).uniform(0, 0.01))
    now = publications.require(made, "toy")
    assert now == before or now.version == 2
    for digest in (now.directory.digest, now.search.digest, *[pack.ciphertext for pack in now.packs]):
        made.blobs.check(digest)
    again = toys.report("index", "build", "--task", "toy", data=data)
    assert again["publication"]["version"] == 2
    assert publications.require(made, "toy").samples == 180


def test_a_killed_init_is_finished_by_the_next(tmp_path):
    for number in range(4):
        data = tmp_path / str(number)
        process = subprocess.Popen(toys.command("init", data=data), env=toys.environment(), stdout=subprocess.DEVNULL)
        time.sleep(0.3 + 0.25 * number)
        process.kill()
        process.wait(30)
        toys.report("init", data=data)
        made = cloud.open_cloud(data)
        assert made.trust().version == 1
        made.database.close()


@files_only
def test_an_interrupted_command_ends_with_130(data, large):
    arguments = toys.command("pool", "ingest", str(large), "--task", "toy", *CONSENT, data=data)
    database = data / "cloud.sqlite3"
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as held:
        held.execute("BEGIN IMMEDIATE")  # so that it cannot end before it is interrupted
        process = subprocess.Popen(
            arguments, stderr=subprocess.PIPE, text=True, env=toys.environment(), preexec_fn=_heeding
        )
        while process.poll() is None and str(database) not in _opened(process.pid):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        held.execute("ROLLBACK")
    _, talk = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in talk


def _heeding():
    """What a shell starts in the background ignores Ctrl-C, tests and all that they start included."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _opened(pid: int) -> set[str]:
    """The files that a process has open."""
    found = set()
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(str(link.readlink()))
    return found


def test_a_killed_server_loses_no_contribution_that_it_answered(data):
    from edgewire.samples import to_bytes
    from tests.cloud.test_cloud_exchange import contribute, some
    from tests.cloud.test_cloud_serve import connect

    made = cloud.open_cloud(data)
    with toys.serving(data) as server, connect(server.url, made.trust().authorities) as client:
        board = toys.Board().enroll(client, made, now=time.time())
        headers = board.headers(client, now=time.time())
        assert contribute(client, headers, to_bytes(some(), "toy")).json()["accepted"] == 4
        os.kill(server.pid, signal.SIGKILL)
        server.process.wait(30)
    with made.database.reading() as connection:
        rows = connection.execute(db.batches.select().where(db.batches.c.contributor == board.id)).all()
    assert [row.rows for row in rows] == [4]
