"""How much of an index build divides over workers, what passes between them, and what Ray costs where one machine would
do: the same pool built by one process and by Ray with a worker per processor, which has to find nothing to change."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import synthetic
from benchmarks.figures import Figure, exactly, noted, run
from cloud_aug import cloud, index, on_ray, pool, pretrain, tasks
from cloud_aug.bench import Bench, Engine, Here, P, R, Step
from cloud_aug.cloud import Cloud
from edgewire.decoding import encode

CONSENT = pool.Consent("packs", 4e9)


@dataclass
class Metered:
    """An engine, watched: seconds in each step, bytes of parts and results, the most that lay in the work store."""

    engine: Engine
    seconds: dict[str, float] = field(default_factory=dict)
    passed_bytes: int = 0
    kept_bytes: int = 0

    def each(self, bench: Bench, step: Step[P, R], parts: Sequence[P], on_done: Callable[[R], None]) -> list[R]:
        began = time.perf_counter()
        results = self.engine.each(bench, step, parts, on_done)
        name = step.run.__name__
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
        self.passed_bytes += sum(len(encode(one)) for one in (*parts, *results))
        self.kept_bytes = max(self.kept_bytes, sum(blob.size for blob in bench.work.stored()))
        return results


def measure(quick: bool) -> list[Figure]:
    samples = 10_000 if quick else 100_000
    with tempfile.TemporaryDirectory(prefix="edge-ray-build-") as folder:
        made = _pool(Path(folder), samples // synthetic.PER_CONTRIBUTOR)
        plain, ray = Metered(Here()), Metered(on_ray.OnRay())
        alone_s, _ = _built(made, plain)
        began = time.perf_counter()
        with on_ray.cluster(""):
            start_s = time.perf_counter() - began
            ray_s, changed = _built(made, ray)
        return [*_divided(plain, alone_s, samples), *_on_ray(start_s, ray_s, changed, alone_s)]


def _pool(folder: Path, people: int) -> Cloud:
    hosts = ["127.0.0.1", "localhost"]
    made = cloud.create(folder / "cloud", url="https://127.0.0.1:8443", hosts=hosts, offline=None, now=time.time())[0]
    tasks.publish(made, synthetic.task(), now=time.time())
    synthetic.write(folder / "people.npz", range(people))
    pool.ingest(made, folder / "people.npz", "myo", CONSENT, now=time.time())
    settings = pretrain.TrainSettings(epochs=1, rehearse=False)
    pretrain.train(made, "myo", settings, now=time.time(), on_progress=_quiet)
    return made


def _built(made: Cloud, engine: Metered) -> tuple[float, bool]:
    began = time.perf_counter()
    built = index.build(made, "myo", seed=0, now=time.time(), on_progress=_quiet, engine=engine)
    return time.perf_counter() - began, built.changed


def _divided(plain: Metered, alone_s: float, samples: int) -> list[Figure]:
    stepped_s = sum(plain.seconds.values())
    return [
        noted(f"build of {samples} samples in one process", alone_s, "s"),
        *(noted(f"of it in '{name}'", 100 * s / alone_s, "%") for name, s in plain.seconds.items()),
        noted("of it in no step, so in one process always", 100 * (alone_s - stepped_s) / alone_s, "%"),
        noted("parts and results per sample", plain.passed_bytes / samples, "bytes"),
        noted("work store per sample", plain.kept_bytes / samples, "bytes"),
    ]


def _on_ray(start_s: float, ray_s: float, changed: bool, alone_s: float) -> list[Figure]:
    return [
        noted("starting Ray on this machine", start_s, "s"),
        noted("the same build on it, with its first workers", ray_s, "s", anchor=f"one process {alone_s:.1f} s"),
        exactly("publications with other digests", int(changed), "", 0, anchor="one process"),
    ]


def _quiet(_stage: str, _done: int, _total: int) -> None: ...


if __name__ == "__main__":
    run(__doc__ or "", measure)
