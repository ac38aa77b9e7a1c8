"""Where the parts of a build are done: what every step works with, and who does the steps.

A build is a few steps, each a pure function of a part: some contributors, some packs, the index of a class. What a step
makes for a later one goes into the build's work store, so that parts hold digests and never samples. One process does
the parts in turn (`Here`), a Ray cluster does them side by side (`on_ray`): the same
steps, so the same bytes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from cloud_aug.blobs import BlobStore
from cloud_aug.cloud import Cloud
from cloud_aug.encoder import Encoder
from edgewire import tensors
from edgewire.messages import Digest
from edgewire.tasks import Task
from edgewire.tensors import Arrays

WORK_LIMIT_BYTES = 4 << 30  # of one blob in the work store: a part is bounded by its rows and a contributor's quota

P = TypeVar("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Job:
    """What decides what a step makes of a part. No secret is in it: keys and addresses are in the data folder.

    onnx: digest of the base's ONNX file; now: as of when samples count as usable, seconds since 1970."""

    task: Task
    onnx: Digest
    now: float


class Bench:
    """A job and the cloud that it is for, opened."""

    def __init__(self, cloud: Cloud, job: Job) -> None:
        self.cloud, self.job, self.task = cloud, job, job.task
        self.work: BlobStore = cloud.work(f"index-{job.task.id}")

    @functools.cached_property
    def encoder(self) -> Encoder:
        return Encoder(self.cloud.blobs.read(self.job.onnx))

    def keep(self, arrays: Arrays) -> str:
        """Put arrays into the work store; returns their digest."""
        return self.work.put(tensors.pack(arrays)).digest

    def kept(self, digest: str) -> Arrays:
        """Raises NotFound, CorruptFile."""
        return tensors.unpack(self.work.read(digest), what="work of a build", limit_bytes=WORK_LIMIT_BYTES)[0]


@dataclass(frozen=True)
class Step(Generic[P, R]):
    """run: a function of a module, which workers import; part, result: what it takes and gives, as JSON between them.
    The same part gives the same result, so that one that was lost with its worker is done again."""

    run: Callable[[Bench, P], R]
    part: type[P]
    result: type[R]


class Engine(Protocol):
    """Who does the steps."""

    def each(self, bench: Bench, step: Step[P, R], parts: Sequence[P], on_done: Callable[[R], None]) -> list[R]:
        """Do a step for every part; returns results in the order of parts. on_done: told each as it comes, in any
        order. Raises what the step raises, or RetryLater if workers cannot be had."""
        ...


class Here:
    """In this process, one part after the other."""

    def each(self, bench: Bench, step: Step[P, R], parts: Sequence[P], on_done: Callable[[R], None]) -> list[R]:
        """See Engine."""
        results = []
        for part in parts:
            results.append(step.run(bench, part))
            on_done(results[-1])
        return results


def counted(
    on_progress: Callable[[int, int], None], total: int, size: Callable[[Any], int] = lambda _: 1
) -> Callable[[Any], None]:
    """Progress from results as they come. size: how much of the total a result is."""
    done = 0

    def one_more(result: Any) -> None:
        nonlocal done
        done += size(result)
        on_progress(min(done, total), total)

    return one_more
