"""The home of Ray: the steps of a build as Ray Data jobs, and simulated boards on workers.

For a build workers open the same cloud as whoever builds, from a data folder at the same path, so that nothing of a
sample and no secret passes through Ray: parts and results are JSON of names, numbers and digests. Ray runs whatever
those ask for who reach it, so a cluster is joined with its token only. Its telemetry is off, and what a step complains
of comes back as our own errors, not through its logs.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import platform
import re
import secrets
import signal
import socket
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from cloud_aug.bench import Bench, Job, P, R, Step
from cloud_aug.cloud import Cloud, open_cloud
from cloud_aug.simulation.boards import Answer, Asked, Boards
from edgelearn.federated.arrays import copied
from edgewire.decoding import decode, encode
from edgewire.errors import Conflict, EdgeError, Offline, UsageError, from_code, from_os_error
from edgewire.files import digest

PART_LIMIT_BYTES = 256 << 20  # of a part or a result as JSON; the largest names the pieces of a class
CONNECT_S = 5.0
ATTEMPTS, PAUSE_S = 4, 2.0
RETRIES = 3  # of what lost its worker: a part that kills whoever takes it must end the build, not the cluster
_SET = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_USAGE_STATS_ENABLED", "RAY_worker_niceness")
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_WHAT_COMPUTES = ("edgectl", "faiss-cpu", "numpy", "onnxruntime")  # other versions of these may give other bytes


@contextlib.contextmanager
def cluster(address: str) -> Iterator[None]:
    """Ray, for as long as the context lasts. address: HOST:PORT of a cluster that this machine belongs to; '' starts
    one here, which ends with the context. Raises UsageError without Ray or a token, Offline if nobody answers."""
    with _as_before():
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # Ray reads all of these when it is imported
        if address:
            _check(address)
        else:
            os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
            os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 is for machines that do something else too
        ray = _ray()
        try:
            _join(ray, address)
        except (ConnectionError, RuntimeError, OSError) as error:
            hint = "is this machine part of the cluster, with the same Ray and the same token? see docs/scaling.md"
            why = _first_line(error.__cause__ or error)
            raise Offline(f"no Ray cluster at {address or 'this machine'}: {why}", hint=hint) from None
        try:
            yield
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _as_before() -> Iterator[None]:
    """Leaves no trace of a cluster in the process: its token would be shown to the next one in place of that one's
    file, and Ray goes on handling SIGTERM when it has left."""
    handler, environment = signal.getsignal(signal.SIGTERM), {name: os.environ.get(name) for name in _SET}
    try:
        yield
    finally:
        for name, value in environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _join(ray: Any, address: str) -> None:
    """Again where nobody answers yet: a cluster takes connections some seconds before it answers them."""
    for attempt in range(ATTEMPTS):
        try:
            ray.init(address or "local", include_dashboard=None if address else False, **_QUIET)
            return
        except ConnectionError:
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(PAUSE_S)


_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}


def _check(address: str) -> None:
    """Before Ray tries for a minute."""
    found = re.fullmatch(r"([^\s:/]+):(\d{1,5})", address)
    if found is None:
        raise UsageError(f"'{address}' is no address of a Ray cluster", hint="write HOST:PORT, as 'ray start' printed")
    if os.environ.get("RAY_AUTH_MODE") != "token":
        hint = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH, on every machine; see docs/scaling.md"
        raise UsageError("a Ray cluster without a token runs anybody's code", hint=hint)
    try:
        socket.create_connection((found[1], int(found[2])), timeout=CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise Offline(
            f"nobody answers at {address}: {error}", hint="start the head first: 'ray start --head'"
        ) from None


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise UsageError("this needs Ray", hint="pip install 'edgectl[scale]', on every machine") from None
    return ray


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


@dataclass(frozen=True)
class Site:
    """What must be alike wherever steps are done. machine: '' where every machine sees the database; trust: digest of
    the cloud's newest trust statement; software: versions of what computes."""

    machine: str
    trust: str
    software: tuple[str, ...]


def site(cloud: Cloud) -> Site:
    """Of this process."""
    machine = "" if cloud.settings.database_url else _BOOT.read_text().strip()
    software = (platform.python_version(), *(f"{name} {_version(name)}" for name in _WHAT_COMPUTES))
    return Site(machine, digest(encode(cloud.trust())), software)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "from elsewhere"  # a source tree, or a package of another name


def check_alike(here: Site, there: Site, host: str) -> None:
    """Raises UsageError or Conflict if steps done on that host would not count here."""
    if here.machine != there.machine:
        hint = "give the cloud database_url and object_store first (docs/operations.md)"
        raise UsageError(f"a SQLite database is on one machine, and {host} is another", hint=hint)
    if here.trust != there.trust:
        raise Conflict(f"the data folder of {host} is another cloud's", hint="copy settings.toml and keys/ to it")
    if here.software != there.software:
        odd = ", ".join(sorted(set(there.software) ^ set(here.software)))
        raise Conflict(f"{host} has other versions: {odd}", hint="install the same on every machine")


@dataclass(frozen=True)
class Reply:
    """What a worker answers: a result as JSON, or the code, message and hint of an error."""

    result: bytes = b""
    refusal: tuple[str, str, str] | None = None


def _guarded(work: Callable[[], bytes]) -> Reply:
    """Errors as data: Ray would put their text, which may quote what they are about, into its logs."""
    try:
        return Reply(work())
    except EdgeError as error:
        return Reply(refusal=(error.code, error.message, error.hint))
    except OSError as error:
        known = from_os_error(error, f"working on {socket.gethostname()}")
        return Reply(refusal=(known.code, known.message, known.hint))
    except Exception as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__} in {Path(at.filename).name}, line {at.lineno}, on {socket.gethostname()}"
        return Reply(refusal=("failed", what, "do the same without --engine ray to see all of it"))


def _raised(refusal: tuple[str, str, str]) -> EdgeError:
    code, message, hint = refusal
    return from_code(code, message, hint=hint)


@dataclass(frozen=True)
class Errand:
    """A job as workers get it. data: the data folder."""

    data: str
    job: Job
    site: Site


def errand_of(bench: Bench) -> bytes:
    """For workers to do the same job with the same cloud."""
    return encode(Errand(str(bench.cloud.settings.data.resolve()), bench.job, site(bench.cloud)))


@functools.lru_cache(maxsize=1)
def _bench(errand: bytes) -> Bench:
    """The cloud opened on this machine, once in each worker."""
    here = decode(Errand, errand, what="errand")
    cloud = open_cloud(Path(here.data))
    check_alike(here.site, site(cloud), socket.gethostname())
    return Bench(cloud, here.job)


def do_part(row: dict[str, Any], step: Step[Any, Any], errand: bytes) -> dict[str, Any]:
    """One part, on a worker: `part` is JSON, and so is the `reply`."""

    def work() -> bytes:
        part = decode(step.part, bytes(row["part"]), what="part", limit_bytes=PART_LIMIT_BYTES)
        return encode(step.run(_bench(errand), part))

    return {"number": row["number"], "reply": encode(_guarded(work))}


class OnRay:
    """Steps of a build on the cluster that is connected. A part whose worker dies is done again, by another."""

    def each(self, bench: Bench, step: Step[P, R], parts: Sequence[P], on_done: Callable[[R], None]) -> list[R]:
        """See Engine. Each part is a block of a Ray dataset, so that results are all that comes back."""
        import ray.data
        from ray.exceptions import RayError

        errand = errand_of(bench)
        rows = [{"number": number, "part": encode(part)} for number, part in enumerate(parts)]
        if not rows:
            return []
        _hush()
        found: dict[int, R] = {}
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
        told = {"step": step, "errand": errand}
        try:
            for row in dataset.map(do_part, fn_kwargs=told, num_cpus=1, max_retries=RETRIES).iter_rows():
                found[int(row["number"])] = result_of(step, row["reply"])
                on_done(found[int(row["number"])])
        except RayError as error:
            raise _lost(error) from None
        return [found[number] for number in range(len(rows))]


def result_of(step: Step[P, R], raw: bytes) -> R:
    """What a reply says. Raises what the step raised."""
    reply = decode(Reply, bytes(raw), what="reply", limit_bytes=2 * PART_LIMIT_BYTES)
    if reply.refusal is not None:
        raise _raised(reply.refusal)
    return decode(step.result, reply.result, what="result", limit_bytes=PART_LIMIT_BYTES)


def _hush() -> None:
    """Progress is ours to show."""
    from ray.data import DataContext

    # max_retries is such an argument: without it a deadly part is tried for ever. pyproject.toml keeps Ray below 2.64
    warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
    context = DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def _lost(error: Exception) -> EdgeError:
    return Offline(
        f"Ray gave up: {type(error).__name__}", hint="see 'ray status' and Ray's logs, then do the same again"
    )


class BoardsOnRay:
    """Simulated boards on the cluster's workers. A turn whose worker dies is taken again."""

    def __init__(self) -> None:
        self._held: tuple[Boards, Any] | None = None

    def turns(self, boards: Boards, asked: Iterable[Asked]) -> Iterator[tuple[str, Answer]]:
        """See Players. Twice as many are under way as there are processors, so memory does not grow with the round."""
        import ray
        from ray.exceptions import RayError

        if self._held is None or self._held[0] is not boards:
            self._held = (boards, ray.put(boards))
        turn = ray.remote(_turn).options(num_cpus=1, max_retries=RETRIES)
        at_once = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
        waiting: deque[tuple[str, Any]] = deque()
        try:
            for one in asked:
                waiting.append((one.board, turn.remote(self._held[1], one)))
                if len(waiting) >= at_once:
                    yield _arrived(*waiting.popleft())
            while waiting:
                yield _arrived(*waiting.popleft())
        except RayError as error:
            raise _lost(error) from None

    def logits(self, boards: Boards, weights: Mapping[str, np.ndarray]) -> np.ndarray:
        """See Players. Counted here."""
        return boards.crowd.logits(weights)


def _turn(boards: Boards, asked: Asked) -> tuple[Answer | None, Reply]:
    """One board's turn, on a worker."""
    from edgelearn.device import use_threads

    use_threads(1)  # sums depend on how many there are
    # what Ray hands out cannot be written to, and torch wants that it could
    asked = replace(asked, order=replace(asked.order, weights=copied(asked.order.weights)), memory=copied(asked.memory))
    answers: list[Answer] = []

    def work() -> bytes:
        answers.append(boards.turn(asked))
        return b""

    reply = _guarded(work)
    return answers[0] if answers else None, reply


def _arrived(board: str, reference: Any) -> tuple[str, Answer]:
    answer, reply = _ray().get(reference)
    if answer is None:
        raise _raised(reply.refusal or ("failed", "a board did not answer", ""))
    return board, answer
