"""Does a bad base reach a fleet? Releases of five bases to 10,000 boards, each with the real health gate on the real
file; 20 of them have folders of their own and sync over HTTPS."""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import sqlalchemy as sa

from benchmarks.figures import Figure, at_least, exactly, noted, run
from benchmarks.releases import models, world
from benchmarks.releases.world import Judged, Real, Simulated
from cloud_aug import bases, db
from cloud_aug.cloud import Cloud
from cloud_aug.releases import status, steering, waves
from cloud_aug.releases.plan import Selection, Wave
from cloud_aug.releases.status import ReleaseStatus
from edgewire.releases import Limits

BAD: dict[str, Callable[[bytes], bytes]] = {
    "not finite": models.not_finite,
    "slow": models.slow,
    "wrong labels": models.wrong,
    "too large": models.too_large,
}
LIMITS = Limits(memory_mib=64)
WAVES = (Wave(0.05, 0.0), Wave(0.25, 0.0), Wave(1.0, 0.0))


@dataclass(frozen=True)
class Scale:
    """boards: all of them; canaries: those of the first wave, of which `https` are real."""

    boards: int
    canaries: int
    https: int


FULL, QUICK = Scale(10_000, 100, 20), Scale(400, 30, 20)


@dataclass(frozen=True)
class Fleet:
    """Boards by id."""

    cloud: Cloud
    simulated: dict[str, Simulated]
    real: dict[str, Real]
    canaries: tuple[str, ...]

    def release(self, base: int, judged: Judged) -> ReleaseStatus:
        """Begin a release and let boards do what they are told until it ends. All canaries are at it at once."""
        draft = steering.Draft(base=base, selection=Selection(canaries=self.canaries), waves=WAVES, limits=LIMITS)
        made = steering.create(self.cloud, world.TASK.id, draft, now=time.time()).info
        steering.start(self.cloud, made.id, now=time.time())
        self._canaries(judged)
        while (found := status.find(self.cloud, made.id)).info.state == "running":
            for board in self._in_wave(made.id, found.info.wave):
                one = self.simulated[board]
                one.carry_out(one.ask(), judged)
            waves.advance_all(self.cloud, now=time.time())
        return found

    def _canaries(self, judged: Judged) -> None:
        """Every canary has its orders before the first tells how it went: otherwise that one would end it alone."""
        asked = {board: self.simulated[board].ask() for board in self.canaries if board in self.simulated}
        together = threading.Barrier(len(self.real), timeout=600)
        with ThreadPoolExecutor(len(self.real)) as pool:
            list(pool.map(partial(_sync_with_others, together), self.real.values()))
        for board, its in asked.items():
            self.simulated[board].carry_out(its, judged)

    def _in_wave(self, release: str, wave: int) -> list[str]:
        """Boards whose turn it is and who have not told yet."""
        column = db.release_boards.c
        query = sa.select(column.board).where(column.release == release, column.wave == wave)
        with self.cloud.database.reading() as connection:
            return list(connection.execute(query.where(column.state.in_(("waiting", "offered")))).scalars())


def _sync_with_others(together: threading.Barrier, real: Real) -> None:
    """Wait at the gate, where the board's state is read for the first time, until everybody is there."""
    first = threading.Event()

    def wait() -> None:
        if not first.is_set():
            first.set()
            together.wait()

    real.sync(before_the_gate=wait)


def measure(quick: bool) -> Sequence[Figure]:
    """Bad bases first, then a good one, and its way back."""
    return measured(QUICK if quick else FULL)


def measured(scale: Scale) -> list[Figure]:
    """The same at any scale."""
    with tempfile.TemporaryDirectory(prefix="edgectl-releases-") as name:
        folder = Path(name)
        cloud = world.make(folder / "cloud")
        with world.serving(folder / "cloud") as url:
            simulated = world.simulate(cloud, scale.boards - scale.https)
            numbers = range(scale.boards - scale.https, scale.boards)
            real = world.reals(folder, cloud, url, numbers=numbers)
            canaries = (*real, *list(simulated)[: scale.canaries - scale.https])
            fleet = Fleet(cloud, simulated, real, canaries)
            figures = [figure for name in BAD for figure in _bad(fleet, name)]
            figures += _good(fleet)
        cloud.database.close()
    return figures


def _bad(fleet: Fleet, name: str) -> list[Figure]:
    with fleet.cloud.database.reading() as connection:
        onnx = fleet.cloud.blobs.read(world.first_base(connection).onnx.digest)
    world.smuggle(fleet.cloud, BAD[name](onnx))
    judged = Judged()
    found = fleet.release(bases.newest(fleet.cloud, world.TASK.id).base.version, judged)
    found = status.find(fleet.cloud, found.info.id)  # with what the last canaries told
    beyond = sum(wave.counts.boards - wave.counts.waiting for wave in found.waves[1:])
    serving = sum(real.sync().base_version != 1 for real in fleet.real.values())
    why = ", ".join(f"{check} {count}" for check, count in sorted(judged.failed.items()))
    anchor = f"of {found.info.counts.boards} boards; simulated canaries' checks: {why}"
    return [
        exactly(f"{name}: canaries that refused it", found.waves[0].counts.failed, "boards", len(fleet.canaries),
                anchor=f"{len(fleet.canaries)} canaries, {len(fleet.real)} of them over HTTPS"),
        exactly(f"{name}: boards asked beyond the canaries", max(0, beyond), "boards", 0, anchor=anchor),
        exactly(f"{name}: boards that run it", found.info.counts.committed, "boards", 0, anchor=found.info.reason),
        exactly(f"{name}: HTTPS boards away from base 1", serving, "boards", 0, anchor=f"{len(fleet.real)} boards"),
    ]  # fmt: skip


def _good(fleet: Fleet) -> list[Figure]:
    world.train(fleet.cloud, seed=1, hold=True)
    judged, started = Judged(), time.perf_counter()
    version = bases.newest(fleet.cloud, world.TASK.id).base.version
    found = fleet.release(version, judged)
    took_s, counts = time.perf_counter() - started, found.info.counts
    steering.abort(fleet.cloud, found.info.id, now=time.time())
    back = sum(real.sync().base_version == 1 for real in fleet.real.values())
    refused = ", ".join(f"{check} {count}" for check, count in sorted(judged.failed.items())) or "none"
    gate_ms = 1e3 * statistics.median(judged.seconds)
    return [
        exactly("good: release ended as done", float(found.info.state == "done"), "", 1, anchor=found.info.reason),
        at_least("good: boards that told and run it", 100 * counts.committed / max(1, counts.told), "%", 97,
                 anchor=f"{counts.told} of {counts.boards} told; refused by: {refused}"),
        noted("good: real gates run by simulated boards", len(judged.seconds), "boards"),
        noted("good: one gate, median", gate_ms, "ms", anchor="two models loaded, 40 samples, 18 turns"),
        noted("good: the whole release", took_s, "s", anchor="one board after the other"),
        exactly("called back: HTTPS boards at base 1 after one sync", back, "boards", len(fleet.real),
                anchor=f"{len(fleet.real)} boards"),
    ]  # fmt: skip


if __name__ == "__main__":
    run(str(__doc__), measure)
