"""Writing packs, and reading them back as a board would."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cloud_aug import directory, keys, packs, pool
from cloud_aug.bench import Bench, Step
from cloud_aug.directory import Layout
from cloud_aug.packs import Secret
from edgewire.errors import Conflict, CorruptFile
from edgewire.messages import SAMPLES_LIMIT_BYTES, PackRef
from edgewire.samples import concatenate, from_bytes

PACKS_PER_PART = 8


@dataclass(frozen=True)
class PackOrder:
    """A pack to write. names: whose samples; withdrawn: how often they have withdrawn before, in all; capped: how many
    samples of each are published at most."""

    cohort: int
    names: tuple[str, ...]
    withdrawn: int
    capped: int


@dataclass(frozen=True)
class PackOrders:
    """A part: some packs. generation: of the task's secret, which is not in a part."""

    packs: tuple[PackOrder, ...]
    generation: int


@dataclass(frozen=True)
class Written:
    """A pack in the blob store, encrypted, and whose samples are in it."""

    ref: PackRef
    names: tuple[str, ...]


@dataclass(frozen=True)
class AllWritten:
    """The packs of a part, in order."""

    packs: tuple[Written, ...]


def orders(layout: Layout, capped: int, withdrawn: Mapping[str, int], secret: Secret) -> list[PackOrders]:
    """All packs of a layout, in order of cohort and number."""
    members: dict[tuple[int, int], list[str]] = {}
    for name, place in layout.places.items():
        members.setdefault((place.cohort, place.pack), []).append(name)
    made = [
        PackOrder(cohort, tuple(names), sum(withdrawn.get(name, 0) for name in names), capped)
        for (cohort, _), names in sorted(members.items())
    ]
    starts = range(0, len(made), PACKS_PER_PART)
    return [PackOrders(tuple(made[i : i + PACKS_PER_PART]), secret.generation) for i in starts]


def write(bench: Bench, part: PackOrders) -> AllWritten:
    """One pack after the other in memory. Raises Conflict if so many contributors withdrew meanwhile that a pack would
    have too few."""
    secret = packs.of_generation(bench.cloud, bench.task.id, part.generation)
    return AllWritten(tuple(_write(bench, order, secret) for order in part.packs))


WRITE = Step(write, PackOrders, AllWritten)


def _write(bench: Bench, order: PackOrder, secret: Secret) -> Written:
    """Of who has more than is published the first by digest, which is as good as by chance."""
    cloud, task = bench.cloud, bench.task
    each = pool.each(cloud, task, order.names, now=bench.job.now)
    parts = [held.take(np.arange(min(order.capped, len(held.ids)))) for _, held in each]
    if sum(len(part.ids) > 0 for part in parts) < task.privacy.min_cohort:
        raise Conflict("contributors withdrew while the index was built", hint="build it again")
    pack = directory.make_pack(
        concatenate([part.samples for part in parts], task.input),
        [name for part in parts for name in part.digests],
        cohort=order.cohort,
        withdrawn=order.withdrawn,
        task_id=task.id,
        secret=keys.pseudonym_secret(cloud.keys),
    )
    name, ciphertext = packs.store(cloud.blobs, secret, pack.data)
    ref = PackRef(name, len(pack.data), pack.cohort, pack.samples, pack.contributors, ciphertext)
    return Written(ref, pack.names)


@dataclass(frozen=True)
class PackRefs:
    """A part: some packs that were written. generation: as in PackOrders."""

    packs: tuple[PackRef, ...]
    generation: int


def refs(written: tuple[PackRef, ...], secret: Secret) -> list[PackRefs]:
    """All packs, in parts."""
    starts = range(0, len(written), PACKS_PER_PART)
    return [PackRefs(written[i : i + PACKS_PER_PART], secret.generation) for i in starts]


def verify(bench: Bench, part: PackRefs) -> int:
    """Read packs as a board would; returns how many. Raises CorruptFile, or what the board would."""
    secret = packs.of_generation(bench.cloud, bench.task.id, part.generation)
    for ref in part.packs:
        data = packs.opened(bench.cloud.blobs, secret, ref.digest, str(ref.ciphertext))
        samples = from_bytes(data, bench.task, what="pack", limit_bytes=SAMPLES_LIMIT_BYTES)
        if (len(samples), len(np.unique(samples.user))) != (ref.samples, ref.contributors):
            raise CorruptFile("a pack does not hold what the directory says")
    return len(part.packs)


VERIFY = Step(verify, PackRefs, int)
