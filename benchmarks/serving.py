"""What does a request cost beside its work? Search against bare faiss, packs against nginx, overload, and a swap.

The server is pinned to one core, the client to the other (where there are two); both sides of a ratio are measured in
turn. An answer to a search holds digests and scores; token, rate, consents, fairness and the bytes of the answer are
part of it.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import ssl
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from benchmarks.figures import Figure, at_least, at_most, exactly, noted, ratio_in_turn, run
from benchmarks.running import memory_mib, worked_s
from cloud_aug import cloud, db, index, pool, pretrain, publications, searchable, tasks, writes
from cloud_aug.cloud import Cloud
from edgewire import tensors
from edgewire.decoding import plain
from edgewire.messages import SearchMeta
from edgewire.tasks import InputSchema, ModelSpec, Privacy, Task
from tests.cloud import nginx, toys

QUERIES, NEIGHBOURS = 42, 200  # of all classes together
DIM = 64
TASK = Task(
    "toy",
    "Myo-like windows",
    InputSchema((52, 8), "int8"),
    ("rest", "fist"),
    ModelSpec("cnn1d", width=16, embedding=DIM),
    privacy=Privacy(modes=("directory", "embedding"), min_cohort=2),
)
CORES = os.sched_getaffinity(0)
SERVER_CORE, CLIENT_CORE = 0, max(CORES)
WORKERS = (1, 2, 4)
CONNECTIONS = 8
PACK_BYTES = 4 << 20
LIMITS = {"requests_per_board_per_minute": 10_000_000, "requests_at_once": CONNECTIONS}


def measure(quick: bool) -> Sequence[Figure]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        data = Path(folder) / "cloud"
        made = prepare(data, samples=8_000 if quick else 50_000)
        with serving(data) as server:
            os.sched_setaffinity(0, {CLIENT_CORE})
            board = Caller(made, server)
            figures = [
                *search_figures(made, board, rounds=15 if quick else 60),
                *overload_figures(board, seconds=8 if quick else 600),
                *swap_figures(made, board, seconds=8 if quick else 30),
                *pack_figures(made, data, board, rounds=8 if quick else 40),
            ]
        return [*figures, *worker_figures(made, data, seconds=5 if quick else 30)]


def prepare(data: Path, *, samples: int) -> Cloud:
    """A cloud with a pool of 50 people and a publication; the base is trained for form only."""
    made = toys.empty(data)
    (data / "settings.toml").open("a").write("".join(f"{name} = {value}\n" for name, value in LIMITS.items()))
    made = cloud.open_cloud(data)
    tasks.publish(made, TASK, now=time.time())
    rng = np.random.default_rng(0)
    y, person = rng.integers(0, 2, samples), np.arange(samples) % 50
    style = rng.normal(0, 12, (50, 1, 8)) + rng.normal(0, 8, (50, 52, 1))
    x = np.clip(rng.normal(style[person] + 20 * y[:, None, None], 25), -127, 127).astype(np.int8)
    names = np.asarray([f"person-{i}" for i in range(50)])
    file = toys.data_file(data / "pool.npz", {"x": x, "y": np.asarray(TASK.labels)[y], "user": names[person]})
    pool.ingest(made, file, TASK.id, pool.Consent("packs", toys.FAR), now=time.time())
    settings = pretrain.TrainSettings(epochs=1, rehearse=False, augment=False)
    pretrain.train(made, TASK.id, settings, now=time.time(), on_progress=toys.quiet)
    index.build(made, TASK.id, seed=0, now=time.time(), on_progress=toys.quiet)
    return made


@contextlib.contextmanager
def serving(data: Path, *options: str) -> Iterator[toys.Server]:
    """The real server on its core."""
    with toys.serving(data, *options) as server:
        for thread in Path(f"/proc/{server.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {SERVER_CORE})
        yield server


@dataclass
class Caller:
    """A board with an access token, and as many connections as threads ask for."""

    made: Cloud
    server: toys.Server
    task: str = TASK.id
    key: toys.Board = field(default_factory=toys.Board)
    token: str = ""
    renew_at: float = 0.0
    renewing: threading.Lock = field(default_factory=threading.Lock)
    local: threading.local = field(default_factory=threading.local)

    def __post_init__(self) -> None:
        self.context = ssl.create_default_context(cadata="\n".join(self.made.trust().authorities))
        from tests.cloud.test_cloud_serve import connect

        self._connect = connect
        self.headers()

    def headers(self) -> dict[str, str]:
        """With the token; one thread renews it, and tries again while the server is too busy for that."""
        if time.monotonic() > self.renew_at and self.renewing.acquire(blocking=not self.token):
            try:
                self.renew_at = time.monotonic() + 5
                self._renew()
                self.renew_at = time.monotonic() + 300
            except AssertionError:
                if not self.token:
                    raise
            finally:
                self.renewing.release()
        return {"Authorization": self.token}

    def _renew(self) -> None:
        with self._connect(self.server.url, self.made.trust().authorities) as client:
            if not self.key.id:
                self.key.enroll(client, self.made, tasks_=(self.task,), now=time.time())
            self.token = self.key.headers(client, now=time.time())["Authorization"]

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, int]:
        """Status and size of an answer."""
        headers = self.headers()
        for attempt in range(2):
            connection = getattr(self.local, "connection", None)
            if connection is None:
                connection = http.client.HTTPSConnection(
                    "localhost", self.server.port, context=self.context, timeout=60
                )
                self.local.connection = connection
            try:
                connection.request(method, path, body, headers)
                answer = connection.getresponse()
                return answer.status, len(answer.read())
            except (http.client.HTTPException, ConnectionError):
                self.local.connection = None  # kept alive for too long
                if attempt:
                    raise
        raise AssertionError


def queries(made: Cloud, task_id: str = TASK.id) -> bytes:
    """QUERIES embeddings that ask for NEIGHBOURS samples each, over all classes together."""
    publication, classes = publications.require(made, task_id), len(tasks.load(made, task_id).labels)
    _, means = searchable.read(made, publication.search.digest)
    values = np.random.default_rng(1).normal(size=(QUERIES, means.shape[1])).astype(np.float32)
    meta = SearchMeta(task_id, publication.base.onnx.digest, -(-NEIGHBOURS // classes))
    return tensors.pack({"queries": values}, plain(meta))


@dataclass(frozen=True)
class Speed:
    """Of bare faiss against the same search through the service. ratio: of seconds; processor: of seconds that a
    processor worked for it, which neighbours on a shared machine change less."""

    ratio: float
    bare_s: float
    ours_s: float
    processor: float


def search_speed(made: Cloud, board: Caller, *, rounds: int) -> Speed:
    """Both in turn."""
    publication, body = publications.require(made, board.task), queries(made, board.task)
    bare = searchable.load(made, publication.search.digest).index
    arrays, meta = tensors.unpack(body, what="queries", limit_bytes=1 << 20)
    styles, bare_worked_s = bare.styles(arrays["queries"]), 0.0

    def ours() -> float:
        took, (status, size) = _timed(lambda: board.request("POST", f"/v1/tasks/{board.task}/search", body))
        assert (status, size > 10_000) == (200, True), (status, size)
        return took

    def faiss() -> float:
        nonlocal bare_worked_s
        os.sched_setaffinity(0, {SERVER_CORE})  # the same core for the same work
        started, worked_s = time.perf_counter(), time.thread_time()
        bare.search(styles, meta["k"])
        took, bare_worked_s = time.perf_counter() - started, bare_worked_s + time.thread_time() - worked_s
        os.sched_setaffinity(0, {CLIENT_CORE})
        return took

    for _ in range(3):
        ours(), faiss()
    bare_worked_s, before_s = 0.0, worked_s(board.server.pid)
    measured = ratio_in_turn(faiss, ours, rounds=rounds)
    return Speed(*measured, bare_worked_s / (worked_s(board.server.pid) - before_s))


def search_figures(made: Cloud, board: Caller, *, rounds: int) -> list[Figure]:
    speed = search_speed(made, board, rounds=rounds)
    shown = f"bare faiss {1000 * speed.bare_s:.1f} ms, over HTTPS {1000 * speed.ours_s:.1f} ms"
    asked = f"search, {QUERIES} x {NEIGHBOURS}: speed against bare faiss"
    samples = publications.require(made, TASK.id).samples
    return [
        noted("samples in the pool", samples, "samples"),
        at_least(asked, speed.ratio, "ratio", 0.7, anchor=shown),
        noted(f"{asked}, by processor time", speed.processor, "ratio", anchor="of the server's process"),
    ]


def overload_figures(board: Caller, *, seconds: float) -> list[Figure]:
    body = queries(board.made)
    path = f"/v1/tasks/{TASK.id}/search"
    capacity = _capacity(lambda: board.request("POST", path, body), seconds=min(30.0, seconds / 2))
    rate = 2.0 * capacity
    memory: list[float] = []
    times: list[tuple[float, int]] = []
    lock = threading.Lock()

    def keep_asking(number: int, threads: int) -> None:
        due = time.perf_counter() + number / rate
        end = time.perf_counter() + seconds
        while due < end:
            time.sleep(max(0.0, due - time.perf_counter()))
            took, (status, _) = _timed(lambda: board.request("POST", path, body))
            with lock:
                times.append((took, status))
            due = max(due + threads / rate, time.perf_counter() - 1.0)

    threads = 16 * CONNECTIONS

    def look() -> None:  # in the middle, when every thread and cache is there, and at the end
        for _ in range(2):
            time.sleep(seconds / 2)
            memory.append(memory_mib(board.server.pid, "RssAnon"))

    _all([look, *(lambda i=i: keep_asking(i, threads) for i in range(threads))])
    statuses = Counter(status for _, status in times)
    served = sorted(took for took, status in times if status == 200)
    odd = sum(count for status, count in statuses.items() if status not in (200, 429, 503))
    shown = f"{rate:.0f}/s for {seconds:.0f} s: {dict(statuses)}"
    limit, places = round(2.0 * CONNECTIONS / capacity, 3), f"2 x {CONNECTIONS} places at {capacity:.0f}/s"
    p99 = served[int(0.99 * (len(served) - 1))]
    grown, middle = memory[1] - memory[0], f"{memory[0]:.0f} MiB in the middle"
    return [
        at_most("overload x 2: p99 of served searches", p99, "s", limit, anchor=places),
        exactly("overload x 2: answers but 200, 429, 503", odd, "answers", 0, anchor=shown),
        at_most("overload x 2: growth of memory in the second half", grown, "MiB", 20, anchor=middle),
    ]


def _capacity(ask: Callable[[], tuple[int, int]], *, seconds: float) -> float:
    """Answers per second when as many ask as there are places."""
    answered: list[int] = []
    end = time.perf_counter() + seconds

    def keep_asking() -> None:
        while time.perf_counter() < end:
            answered.append(ask()[0])

    _all([keep_asking] * CONNECTIONS)
    return answered.count(200) / seconds


def swap_figures(made: Cloud, board: Caller, *, seconds: float) -> list[Figure]:
    """Publications that differ in their number replace each other: the index is read anew, as after a build."""
    body = queries(made)
    failed: list[int] = []

    def load(swaps: int) -> list[float]:
        times: list[float] = []
        stop = time.perf_counter() + seconds

        def ask() -> None:
            while time.perf_counter() < stop:
                took, (status, _) = _timed(lambda: board.request("POST", f"/v1/tasks/{TASK.id}/search", body))
                times.append(took)
                failed.extend([status] if status != 200 else [])

        def swap() -> None:
            for _ in range(swaps):
                time.sleep(seconds / (swaps + 1))
                current = publications.require(made, TASK.id)
                with made.database.writing() as connection:
                    following = replace(current, version=current.version + 1)
                    publications.record(connection, following, now=time.time())

        _all([ask, ask, swap])
        return sorted(times)

    calm, swapped = load(0), load(3)
    p99 = [times[int(0.99 * (len(times) - 1))] for times in (calm, swapped)]
    shown = f"p99 {1000 * p99[0]:.0f} ms without, {1000 * p99[1]:.0f} ms with three swaps"
    return [
        exactly("swap under load: failed requests", len(failed), "requests", 0, anchor=f"{len(swapped)} requests"),
        at_most("swap under load: p99", p99[1] / p99[0], "ratio", 2.0, anchor=shown),
    ]


def pack_figures(made: Cloud, data: Path, board: Caller, *, rounds: int) -> list[Figure]:
    if nginx.program() is None:
        return [noted("packs against nginx: skipped, nginx is not installed", 0, "")]
    pack = made.blobs.put(np.random.default_rng(2).bytes(PACK_BYTES))
    with made.database.writing() as connection:
        writes.insert_new(connection, db.published_blobs, [{"digest": pack.digest, "task": TASK.id}])
    locations = f"location / {{ alias {data}/blobs/; }}"
    with nginx.serving(data / "keys/tls.pem", locations, prefix=("taskset", "-c", str(SERVER_CORE))) as port:
        theirs = http.client.HTTPSConnection("localhost", port, context=board.context, timeout=60)

        def ours() -> float:
            took, (status, size) = _timed(lambda: board.request("GET", f"/v1/blobs/{pack.digest}"))
            assert (status, size) == (200, pack.size)
            return took

        def anchor() -> float:
            started = time.perf_counter()
            theirs.request("GET", f"/{pack.digest[:2]}/{pack.digest}")
            answer = theirs.getresponse()
            assert (answer.status, len(answer.read())) == (200, pack.size)
            return time.perf_counter() - started

        ours(), anchor()
        ratio, nginx_s, ours_s = ratio_in_turn(anchor, ours, rounds=rounds)
    size = pack.size / 2**20
    shown = f"nginx {size / nginx_s:.0f} MiB/s, ours {size / ours_s:.0f} MiB/s, a pack of {size:.1f} MiB"
    return [at_least("packs: speed against nginx with TLS", ratio, "ratio", 0.5, anchor=shown)]


def worker_figures(made: Cloud, data: Path, *, seconds: float) -> list[Figure]:
    """Here the workers may use every core, and share them with the client."""
    os.sched_setaffinity(0, CORES)
    body, found = queries(made), []
    for count in WORKERS:
        with toys.serving(data, "--workers", str(count)) as server:
            board = Caller(made, server)

            def ask(board: Caller = board) -> tuple[int, int]:
                return board.request("POST", f"/v1/tasks/{TASK.id}/search", body)

            _capacity(ask, seconds=seconds / 2)  # every worker reads the index at its first search
            name, shared = f"searches per second with {count} workers", f"{len(CORES)} cores, shared with the client"
            found.append(noted(name, _capacity(ask, seconds=seconds), "1/s", anchor=shared))
    return found


def _timed(action: Callable[[], tuple[int, int]]) -> tuple[float, tuple[int, int]]:
    started = time.perf_counter()
    found = action()
    return time.perf_counter() - started, found


def _all(actions: Sequence[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=action) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    run(str(__doc__).partition("\n")[0], measure)
