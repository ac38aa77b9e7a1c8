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
    samples = pool.load(cloud, task, now=time.time()).samples
    if len(samples) == 0:
        raise ValueError("the pool has no samples to judge by")
    some = samples.take(np.unique(np.linspace(0, len(samples) - 1, min(MOST_SAMPLES, len(samples))).astype(np.int64)))
    raw = cloud.blobs.read(series.base.weights.digest)
    base = tensors.unpack(raw, what="base weights", limit_bytes=WEIGHTS_LIMIT_BYTES)[0]

    def value(weights: Mapping[str, np.ndarray]) -> float:
        learner = learner_of(task, base, some.x, some.y)
        return -float(log_losses(learner.logits(weights), some.y).mean())

    return value
