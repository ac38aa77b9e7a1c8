"""Does retrieval hold up as the pool grows? Ingest against writing the same bytes, disk, index memory, recall, the cost
of a search, what a rebuild changes, what a board's sync costs: at each size, with made-up contributors."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks import board_sync, serving, synthetic
from benchmarks.figures import Figure, answer, at_least, at_most, noted
from cloud_aug import cloud, index, pool, pretrain, publications, roster, searchable, tasks
from cloud_aug.cloud import Cloud
from demo.shell import tell

CONSENT = pool.Consent("packs", 4e9)
SHARD = 100  # contributors per data file
BASE = 10  # contributors that the base is trained on
QUERIES, NEIGHBOURS, ROUNDS = 42, 100, 15
SIZES = (100_000, 1_000_000)
LIMIT_BYTES = 1 << 20  # of a sync beyond the packs
_STEPS: dict[str, Callable[[Cloud, Path, int], dict[str, float]]] = {}


def main() -> None:
    arguments = _arguments()
    sizes = (50_000,) if arguments.quick else tuple(int(float(text)) for text in arguments.samples.split(","))
    done = {size: _measure(arguments.work / f"pool-{size}", size) for size in sizes}
    if arguments.plot:
        _plot(done, arguments.plot)
    answer(__doc__ or "", [figure for size in sizes for figure in _figures(size, done[size])], arguments.json)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retrieval", description=__doc__)
    parser.add_argument("--samples", default=",".join(map(str, SIZES)), help="sizes of the pool, as 1e5,1e6,1e7")
    parser.add_argument("--work", type=Path, default=Path("/tmp/edge-retrieval"), help="folder to resume from")
    parser.add_argument("--quick", action="store_true", help="50,000 samples")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures there, too")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw growth there")
    return parser.parse_args()


def _measure(folder: Path, samples: int) -> dict[str, float]:
    """Every step that is not in the folder's record yet; the record so far survives an interruption."""
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "record.json"
    known: dict[str, dict[str, float]] = json.loads(record.read_text()) if record.exists() else {}
    if not known:
        shutil.rmtree(folder / "cloud", ignore_errors=True)
    made = cloud.create(
        folder / "cloud",
        url="https://127.0.0.1:8443",
        hosts=["127.0.0.1", "localhost"],
        offline=None,
        now=time.time(),
    )[0]
    tasks.publish(made, synthetic.task(), now=time.time())
    people = samples // synthetic.PER_CONTRIBUTOR
    for name, step in _STEPS.items():
        if name not in known:
            tell(f"{samples} samples: {name}")
            known[name] = step(made, folder, people)
            record.write_text(json.dumps(known, indent=1))
    made.database.close()
    return {name: value for figures in known.values() for name, value in figures.items()}


def _step(function: Callable[[Cloud, Path, int], dict[str, float]]) -> Callable[[Cloud, Path, int], dict[str, float]]:
    _STEPS[function.__name__.strip("_")] = function
    return function


@_step
def _base(made: Cloud, folder: Path, people: int) -> dict[str, float]:
    """A base from the first contributors, as if the pool had begun small."""
    file = folder / "first.npz"
    synthetic.write(file, range(BASE))
    pool.ingest(made, file, "myo", CONSENT, now=time.time())
    file.unlink()
    settings = pretrain.TrainSettings(epochs=2, rehearse=False)
    pretrain.train(made, "myo", settings, now=time.time(), on_progress=_quiet)
    return {}


@_step
def _ingest(made: Cloud, folder: Path, people: int) -> dict[str, float]:
    """In turn, shard by shard: the bytes alone, written and flushed as the pool does; and the pool."""
    anchor_s = ours_s = processor_s = 0.0
    payload = 0
    for start in range(BASE, people, SHARD):
        file = folder / "shard.npz"
        synthetic.write(file, range(start, min(start + SHARD, people)))
        values = np.load(file)["x"]
        payload += values.nbytes
        anchor_s += _timed(lambda values=values: _write_plain(folder / "plain", values))
        began = time.process_time()
        ours_s += _timed(lambda file=file: pool.ingest(made, file, "myo", CONSENT, now=time.time()))
        processor_s += time.process_time() - began
        file.unlink()
        (folder / "plain").unlink()
    with made.database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    total = people * synthetic.PER_CONTRIBUTOR * 416
    on_disk = sum(path.stat().st_size for path in made.settings.data.glob("cloud.sqlite3*"))
    seconds = {"ingest_s": ours_s, "plain_s": anchor_s, "ingest_processor_s": processor_s}
    return {**seconds, "ingested_bytes": payload, "disk_share": on_disk / total}


def _write_plain(path: Path, values: np.ndarray) -> None:
    with path.open("wb") as file:
        for start in range(0, len(values), pool.CHUNK_ROWS):
            file.write(values[start : start + pool.CHUNK_ROWS].tobytes())
            file.flush()
            os.fsync(file.fileno())


@_step
def _build(made: Cloud, folder: Path, people: int) -> dict[str, float]:
    seconds = _timed(lambda: index.build(made, "myo", seed=0, now=time.time(), on_progress=_quiet))
    publication = publications.require(made, "myo")
    document, _ = searchable.read(made, publication.search.digest)
    vectors = sum(one.vectors for one in document.classes)
    return {
        "build_s": seconds,
        "packs": len(publication.packs),
        "packs_bytes": sum(ref.size for ref in publication.packs),
        "index_bytes": sum(one.memory_bytes for one in document.classes),
        "roster_bytes": vectors * roster.ENTRY.itemsize,
        "budget_bytes": document.budget_bytes,
    }


@_step
def _search(made: Cloud, folder: Path, people: int) -> dict[str, float]:
    """A board's queries, the styles of a contributor who is not in the pool, in all classes."""
    from cloud_aug.encoder import Encoder

    publication = publications.require(made, "myo")
    held = searchable.load(made, publication.search.digest).index
    classes = searchable.read(made, publication.search.digest)[0].classes
    x, _ = synthetic.contributor(10_000_019, QUERIES)
    styles = held.styles(Encoder(made.blobs.read(publication.base.onnx.digest)).embed(x))
    ours = [_timed(lambda: held.search(styles, NEIGHBOURS)) for _ in range(ROUNDS)]
    exact = [_timed(lambda: held.search(styles, NEIGHBOURS, exhaustive=True)) for _ in range(3)]
    return {
        "recall": sum(one.recall * one.vectors for one in classes) / sum(one.vectors for one in classes),
        "lowest_recall": min(one.recall for one in classes),
        "probes": max(one.probes for one in classes),
        "search_ms": 1000 * statistics.median(ours),
        "exhaustive_ms": 1000 * statistics.median(exact),
    }


@_step
def _served(made: Cloud, folder: Path, people: int) -> dict[str, float]:
    """The same through the service, digests and scores, against bare faiss."""
    mine = os.sched_getaffinity(0)
    with serving.serving(made.settings.data) as server:
        os.sched_setaffinity(0, {serving.CLIENT_CORE})
        speed = serving.search_speed(made, serving.Caller(made, server, "myo"), rounds=ROUNDS)
        os.sched_setaffinity(0, mine)
    return {f"served_{name}": value for name, value in vars(speed).items()}


@_step
def _sync(made: Cloud, folder: Path, people: int) -> dict[str, float]:
    return board_sync.measure(made, folder / "board")


@_step
def _grow(made: Cloud, folder: Path, people: int) -> dict[str, float]:
    """One percent more samples, of new contributors; which packs does the next build change?"""
    before = {ref.digest for ref in publications.require(made, "myo").packs}
    file = folder / "grown.npz"
    synthetic.write(file, range(people, people + max(1, people // 100)))
    pool.ingest(made, file, "myo", CONSENT, now=time.time())
    file.unlink()
    seconds = _timed(lambda: index.build(made, "myo", seed=0, now=time.time(), on_progress=_quiet))
    publication = publications.require(made, "myo")
    fresh = [ref for ref in publication.packs if ref.digest not in before]
    changed_bytes = sum(ref.size for ref in fresh) / sum(ref.size for ref in publication.packs)
    return {"rebuild_s": seconds, "changed_packs": len(fresh) / len(publication.packs), "changed_bytes": changed_bytes}


def _timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _quiet(_stage: str, _done: int, _total: int) -> None:
    """Nobody watches."""


def _figures(samples: int, seen: dict[str, float]) -> Sequence[Figure]:
    n, mib = f"{samples:g} samples: ", float(1 << 20)
    memory, budget = seen["index_bytes"] / mib, seen["budget_bytes"] / mib
    asked = f"search of {QUERIES} queries, {NEIGHBOURS} of each class"
    changed, changed_bytes = 100 * seen["changed_packs"], 100 * seen["changed_bytes"]
    speed = seen["ingested_bytes"] / mib
    recall = f"exact search; the worst class {seen['lowest_recall']:.3f}, up to {seen['probes']:.0f} lists"
    payload = f"payload {samples * 416 / mib:.0f} MiB"
    served = f"bare faiss {1000 * seen['served_bare_s']:.1f} ms, over HTTPS {1000 * seen['served_ours_s']:.1f} ms"
    processor_us = 1e6 * seen["ingest_processor_s"] * 416 / seen["ingested_bytes"]
    return [
        at_least(
            n + "ingest against writing the bytes with fsync",
            seen["plain_s"] / seen["ingest_s"],
            "x",
            0.5,
            anchor=f"{speed / seen['plain_s']:.0f} MiB/s; ours {speed / seen['ingest_s']:.0f} MiB/s",
        ),
        noted(n + "ingest: processor time per sample", processor_us, "µs"),
        at_most(n + "pool on disk", seen["disk_share"], "x payload", 1.3, anchor=payload),
        noted(n + "packs on disk", seen["packs_bytes"] / mib, "MiB", anchor=payload),
        at_most(n + "index in memory", memory, "MiB", budget, anchor="limits.index_mib"),
        noted(n + "roster beside the index, mapped", seen["roster_bytes"] / mib, "MiB"),
        at_least(n + "recall@100 on held-out queries", seen["recall"], "", 0.95, anchor=recall),
        noted(n + "build", seen["build_s"], "s"),
        noted(n + asked, seen["search_ms"], "ms", anchor=f"into every list {seen['exhaustive_ms']:.0f} ms"),
        at_least(
            n + "search over HTTPS, 42 x 200: speed against bare faiss", seen["served_ratio"], "x", 0.7, anchor=served
        ),
        noted(n + "the same by processor time", seen["served_processor"], "x", anchor="of the server's process"),
        noted(n + "packs changed by 1 % more samples", changed, "%", anchor=f"{seen['packs']:.0f} packs"),
        noted(n + "bytes of packs changed by 1 % more samples", changed_bytes, "%"),
        at_most(n + "first sync beyond its packs", seen["beyond_bytes"], "bytes", LIMIT_BYTES, anchor="with the base"),
        at_most(
            n + "first sync: requests beyond its packs", seen["beyond_requests"], "", 3, anchor="token, manifest, keys"
        ),
        at_most(n + "later sync: requests beyond its packs", seen["later_requests"], "", 3, anchor="same base"),
        at_most(n + "later sync beyond its packs", seen["later_bytes"], "bytes", LIMIT_BYTES, anchor="same base"),
    ]


def _plot(done: dict[int, dict[str, float]], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    sizes = sorted(done)
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    axes.loglog(sizes, [done[size]["search_ms"] for size in sizes], "o-", label="search, as served")
    axes.loglog(sizes, [done[size]["exhaustive_ms"] for size in sizes], "s--", label="search of every vector")
    axes.set(xlabel="samples in the pool", ylabel=f"ms for {QUERIES} queries")
    axes.legend()
    figure.savefig(file, dpi=100)


if __name__ == "__main__":
    main()
