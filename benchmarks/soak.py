"""Does a server that is killed again and again lose what it acknowledged, or bring back what was deleted?

Boards upload samples and now and then withdraw them all, while `kill -9` hits the server at random. Every upload that
was answered must be in the pool at the end, and nothing that was withdrawn; also after a restore of a backup made on
the way, as far as withdrawals go. `python -m benchmarks.soak --seconds 1800` is the long form; tests run the short one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import secrets
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

from cloud_aug import backups, cloud, db
from cloud_aug.cloud import Cloud, Stores
from edgewire.samples import make, sample_digests, to_bytes
from tests.cloud import toys
from tests.cloud.test_cloud_serve import connect

ROWS = 4
WITHDRAW_ONCE_IN = 12
LIVES_S = (0.3, 3.0)  # of a server, after it first answered


@dataclass
class Outcome:
    """lost: acknowledged, and not in the pool; revived: withdrawn, and in the pool; after: a restore."""

    kills: int = 0
    uploads: int = 0
    withdrawals: int = 0
    lost: int = 0
    revived: int = 0
    revived_after_restore: int = 0

    @property
    def clean(self) -> bool:
        return self.lost == self.revived == self.revived_after_restore == 0


@dataclass
class Place:
    """Where the server is now; boards wait while there is none."""

    url: str = ""
    up: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)


class Member:
    """A board that keeps uploading. kept, gone: digests that were acknowledged, and of these the withdrawn."""

    def __init__(self, made: Cloud, place: Place, seed: int) -> None:
        self._place, self._rng = place, np.random.default_rng(seed)
        self._authorities = made.trust().authorities
        self._made, self.board = made, toys.Board()
        self._headers: dict[str, str] = {}
        self.kept: set[bytes] = set()
        self.gone: set[bytes] = set()
        self.uploads = self.withdrawals = 0

    def run(self) -> None:
        while not self._place.over.is_set():
            if self._rng.integers(WITHDRAW_ONCE_IN) == 0:
                self._withdraw()
            else:
                self._upload()

    def _upload(self) -> None:
        samples = make(self._rng.normal(size=(ROWS, 2)).astype(np.float32), np.arange(ROWS) % 3)
        upload, after = secrets.token_hex(16), self.withdrawals
        address = f"/v1/tasks/toy/contributions/{upload}?consent=packs&until={toys.FAR}&after={after}"
        body = to_bytes(samples, "toy")
        if self._until_answered("PUT", address, body) is not None:
            self.kept |= {bytes.fromhex(name) for name in sample_digests(samples)}
            self.uploads += 1

    def _withdraw(self) -> None:
        answer = self._until_answered("DELETE", "/v1/tasks/toy/contributors/me", b"")
        if answer is not None:
            self.gone |= self.kept
            self.kept, self.withdrawals = set(), int(answer["number"])

    def _until_answered(self, method: str, address: str, body: bytes) -> dict[str, Any] | None:
        """Try until the answer comes, as a board does; None: the soak is over, and nobody knows."""
        while not self._place.over.is_set():
            self._place.up.wait(1.0)
            with contextlib.suppress(httpx2.HTTPError), connect(self._place.url, self._authorities) as client:
                if not self.board.id:
                    self.board.enroll(client, self._made, now=time.time())
                if not self._headers:
                    self._headers = self.board.headers(client, now=time.time())
                answer = client.request(method, address, content=body, headers=self._headers)
                if answer.status_code == 200:
                    found: dict[str, Any] = answer.json()
                    return found
                if answer.status_code == 401:
                    self._headers = {}
                elif answer.status_code not in (429, 503):
                    raise AssertionError(f"{method}: {answer.status_code} {answer.text}")
            time.sleep(0.05)
        return None


def soak(
    folder: Path,
    *,
    seconds: float = 0.0,
    kills: int = 0,
    boards: int = 3,
    workers: int = 1,
    seed: int = 0,
    stores: Stores | None = None,
) -> Outcome:
    """Play it through for so long, and for so many kills at least. Raises what a board would not expect to be
    answered."""
    made = toys.filled(folder / "cloud", stores)
    data, place, rng = made.settings.data, Place(), random.Random(seed)
    members = [Member(made, place, seed + i) for i in range(boards)]
    failures: list[BaseException] = []

    def play(member: Member) -> None:
        try:
            member.run()
        except BaseException as error:
            failures.append(error)
            place.over.set()

    threads = [threading.Thread(target=play, args=(member,)) for member in members]
    for thread in threads:
        thread.start()
    outcome, end = Outcome(), time.monotonic() + seconds
    while (outcome.kills < kills or time.monotonic() < end) and not failures:
        if outcome.kills == 1:
            backups.back_up(made, folder / "backup", with_blobs=True, now=time.time(), on_progress=toys.quiet)
        _live_and_die(data, place, rng, workers)
        outcome.kills += 1
    place.over.set()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    outcome.uploads = sum(member.uploads for member in members)
    outcome.withdrawals = sum(member.withdrawals for member in members)
    _judge(made, members, outcome)
    if (folder / "backup").exists():
        backups.restore(data, folder / "backup", now=time.time(), on_progress=toys.quiet)
        outcome.revived_after_restore = sum(len(member.gone & _stored(made, member)) for member in members)
    made.database.close()
    return outcome


def _live_and_die(data: Path, place: Place, rng: random.Random, workers: int) -> None:
    with toys.serving(data, "--workers", str(workers)) as server:
        place.url = server.url
        place.up.set()
        place.over.wait(rng.uniform(*LIVES_S))
        place.up.clear()
        os.kill(server.pid, signal.SIGKILL)
        server.process.wait(30)


def _judge(made: Cloud, members: list[Member], outcome: Outcome) -> None:
    cloud.open_cloud(made.settings.data).database.close()  # as the next start would: the journal is applied
    for member in members:
        there = _stored(made, member)
        outcome.lost += len(member.kept - there)
        outcome.revived += len(member.gone & there)


def _stored(made: Cloud, member: Member) -> set[bytes]:
    """The digests of a board's samples in the pool."""
    query = db.batches.select().where(db.batches.c.contributor == member.board.id)
    with made.database.reading() as connection:
        raw = b"".join(bytes(row.digests) for row in connection.execute(query))
    return {raw[start : start + 32] for start in range(0, len(raw), 32)}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--boards", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        outcome = soak(Path(folder), **vars(chosen))
    print(json.dumps(vars(outcome)))
    return 0 if outcome.clean else 1


if __name__ == "__main__":
    sys.exit(main())
