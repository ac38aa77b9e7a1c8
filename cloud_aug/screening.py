"""Which contributions in quarantine look wrong: the base, trained on accepted samples, is asked about their labels.

A contributor passes whose samples the base agrees with at least half as far above chance as it does, in the median,
with the accepted contributors. That finds swapped labels, noise and samples of something else. It does not find
poison that is made to look helpful.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa

from cloud_aug import bases, batches, db, encoder, pool, tasks
from cloud_aug.cloud import Cloud
from edgewire.errors import NotFound, NotReady

TRUSTED_CONTRIBUTORS = 200


@dataclass(frozen=True)
class Screened:
    """agreement: share of the contributor's samples in quarantine whose label the base predicts."""

    contributor: str
    samples: int
    agreement: float
    passes: bool


@dataclass(frozen=True)
class Screening:
    """threshold: the agreement that passes; trusted: the median agreement with accepted contributors."""

    task: str
    threshold: float
    trusted: float
    screened: tuple[Screened, ...]


def screen(cloud: Cloud, task_id: str, *, apply: bool, now: float) -> Screening:
    """Judge everybody in quarantine. apply: accept who passes, reject who does not. Raises NotReady, NotFound."""
    task = tasks.load(cloud, task_id)
    base = bases.newest(cloud, task_id).base
    model = encoder.Encoder(cloud.blobs.read(base.onnx.digest))

    def agreement(held: batches.Held) -> float:
        return float((model.predict(held.samples.x) == held.samples.y).mean())

    names = sorted(pool.people(cloud, task_id, now=now))
    some = names[:: max(1, len(names) // TRUSTED_CONTRIBUTORS)]
    trusted = [agreement(held) for _, held in pool.each(cloud, task, some, now=now) if len(held.ids)]
    if not trusted:
        hint = "accept some contributors by hand"
        raise NotReady(f"task '{task_id}' has no accepted samples to compare with", hint=hint)
    median, chance = float(np.median(trusted)), 1 / len(task.labels)
    threshold = chance + max(0.0, median - chance) / 2
    found, seen = [], {}
    for name in _waiting(cloud, task_id):
        held = _quarantined(cloud, task.id, name)
        if len(held.ids) == 0:
            continue  # withdrew meanwhile, or was judged by somebody else
        share = agreement(held)
        found.append(Screened(name, len(held.ids), share, share >= threshold))
        seen[name] = int(batches.of_ids(held.ids).max())
    for one in found if apply else ():
        with contextlib.suppress(NotFound):  # withdrew meanwhile
            _judge(cloud, task_id, one, seen[one.contributor], now=now)
    return Screening(task_id, threshold, median, tuple(found))


def _judge(cloud: Cloud, task_id: str, one: Screened, seen: int, *, now: float) -> None:
    """What came while others were judged waits for the next time. seen: the last batch that was looked at."""
    if one.passes:
        pool.accept(cloud, task_id, one.contributor, up_to=seen, now=now)
    else:
        pool.reject(cloud, task_id, one.contributor, accepted_too=False, up_to=seen, now=now)


def _waiting(cloud: Cloud, task_id: str) -> list[str]:
    column = db.batches.c
    query = sa.select(column.contributor).where(column.task == task_id, column.status == "quarantine").distinct()
    with cloud.database.reading() as connection:
        return sorted(connection.execute(query).scalars())


def _quarantined(cloud: Cloud, task_id: str, contributor: str) -> batches.Held:
    column = db.batches.c
    mine = sa.and_(column.task == task_id, column.contributor == contributor, column.status == "quarantine")
    with cloud.database.reading() as connection:
        return batches.find(connection, tasks.get(connection, task_id).input, mine)
