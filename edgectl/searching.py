"""Ask the cloud for samples like ours: digests and scores come first, then the samples that are not here yet.

What is asked later differs little from what was asked before, and so does the answer: most of it is here already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgectl.cache import Cache
from edgectl.cloud import Cloud
from edgewire import samples as sample_columns
from edgewire import tensors
from edgewire.decoding import convert, plain
from edgewire.errors import CorruptFile, InvalidMessage, InvalidSamples, NotFound
from edgewire.files import digest
from edgewire.messages import FOUND_LIMIT_BYTES, MAX_FOUND, SAMPLES_LIMIT_BYTES, FoundMeta, SearchMeta, WantedMeta
from edgewire.samples import Samples
from edgewire.tasks import Task

RESULTS_WANTED = 600


@dataclass(frozen=True)
class Found:
    """name: digest of the file with the samples, which is in the cache; fetched_bytes: of both answers."""

    name: str
    fetched_bytes: int


def ask(cloud: Cloud, cache: Cache, task: Task, base: str, queries: tensors.Arrays, before: Sequence[str]) -> Found:
    """Search with queries made by this base. before: files of the last search, whose samples are not fetched again.

    Raises what the cloud raises, and InvalidMessage or InvalidSamples for answers that cannot be.
    """
    rows = len(next(iter(queries.values())))
    k = min(100, max(1, RESULTS_WANTED // (rows * len(task.labels))))
    raw = cloud.search(task.id, tensors.pack(queries, plain(SearchMeta(task.id, base, k))))
    wanted = _read(raw, task)[: sample_columns.most_at_once(task)]
    here = _kept(cache, task, before)
    lacking = [name for name in wanted if name not in here]
    answer = b""
    if lacking:
        digests = np.frombuffer(b"".join(lacking), np.uint8).reshape(-1, sample_columns.DIGEST_BYTES)
        answer = cloud.found(task.id, tensors.pack({"digests": digests}, plain(WantedMeta("wanted/1", task.id, base))))
        here |= _by_digest([_open(answer, task)], task)
    data = sample_columns.to_bytes(
        sample_columns.concatenate([here[name] for name in wanted if name in here], task.input), task.id
    )
    name = digest(data)
    cache.write(name, data)
    return Found(name, len(raw) + len(answer))


def _read(raw: bytes, task: Task) -> list[bytes]:
    """The digests of an answer to a search, best first."""
    what = "the answer to the search"
    arrays, meta = tensors.unpack(raw, what=what, limit_bytes=FOUND_LIMIT_BYTES)
    if convert(FoundMeta, meta, what=what).task != task.id:
        raise InvalidMessage(f"{what} is for another task")
    shape = (None, sample_columns.DIGEST_BYTES)
    digests = tensors.require(arrays, "digests", dtype="uint8", shape=shape, what=what)
    if len(digests) > MAX_FOUND:
        raise InvalidMessage(f"{what} has {len(digests)} digests, the limit is {MAX_FOUND}")
    return [row.tobytes() for row in digests]


def _kept(cache: Cache, task: Task, before: Sequence[str]) -> dict[bytes, Samples]:
    try:
        return _by_digest([_open(cache.read(name), task) for name in before], task)
    except (CorruptFile, NotFound, InvalidMessage, InvalidSamples):  # they are fetched again
        return {}


def _open(raw: bytes, task: Task) -> Samples:
    return sample_columns.from_bytes(raw, task, what="the samples found", limit_bytes=SAMPLES_LIMIT_BYTES)


def _by_digest(parts: Sequence[Samples], task: Task) -> dict[bytes, Samples]:
    """Each sample by itself. What was not asked for is among them, and never taken."""
    whole = sample_columns.concatenate(parts, task.input)
    return {name: whole.take(slice(i, i + 1)) for i, name in enumerate(sample_columns.raw_digests(whole))}
