"""How good weights are on samples that the cloud itself has: the pool's. Only for algorithms that ask."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from cloud_aug import pool, tasks
from cloud_aug.cloud import Cloud
from cloud_aug.rounds.plan import Series
from edgelearn.federated.contribution import Value
from edgewire.samples import Samples, concatenate
from edgewire.tasks import Task

MOST_SAMPLES = 2000


def judge(cloud: Cloud, series: Series) -> Value:
    """A function from weights to minus the mean log-loss; samples and model are read when it is first called.

    It raises ValueError where the pool has no samples."""

    @lru_cache(maxsize=1)
    def made() -> Value:
        return _judge(cloud, series)

    return lambda weights: made()(weights)


def _judge(cloud: Cloud, series: Series) -> Value:
    from edgelearn.learner import learner_of  # only now: it imports torch
    from edgelearn.metrics import log_losses
    from edgewire import tensors
    from edgewire.messages import WEIGHTS_LIMIT_BYTES

    task = tasks.load(cloud, series.task)
    some = _spread(cloud, task)
    raw = cloud.blobs.read(series.base.weights.digest)
    base = tensors.unpack(raw, what="base weights", limit_bytes=WEIGHTS_LIMIT_BYTES)[0]

    def value(weights: Mapping[str, np.ndarray]) -> float:
        learner = learner_of(task, base, some.x, some.y)
        return -float(log_losses(learner.logits(weights), some.y).mean())

    return value


def _spread(cloud: Cloud, task: Task) -> Samples:
    """Samples of the whole pool, evenly spaced. One contributor's are in memory at a time. Raises ValueError."""
    now = time.time()
    people = pool.people(cloud, task.id, now=now)
    total, start, some = sum(people.values()), 0, list[Samples]()
    wanted = np.unique(np.linspace(0, max(0, total - 1), min(MOST_SAMPLES, total)).astype(np.int64))
    for _, held in pool.each(cloud, task, people, now=now):
        end = start + len(held.samples)
        some.append(held.samples.take(wanted[(wanted >= start) & (wanted < end)] - start))
        start = end
    if start == 0:
        raise ValueError("the pool has no samples to judge by")
    return concatenate(some, task.input)
