"""What the cloud's own samples, the pool's, say of weights, and what two models learn on. Only for algorithms that
ask."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np

from cloud_aug import bases, pool, tasks
from cloud_aug.cloud import Cloud
from cloud_aug.rounds.plan import Peer, Series
from edgelearn.federated.catalogue import no_classroom
from edgelearn.federated.contribution import Value
from edgelearn.federated.mutual import Classroom
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
    from edgelearn.device import use_threads  # only now: they import torch
    from edgelearn.learner import learner_of
    from edgelearn.metrics import log_losses

    use_threads(1)  # as for a classroom
    task = tasks.load(cloud, series.task)
    some = _spread(cloud, task)
    base = bases.arrays(cloud, series.base)

    def value(weights: Mapping[str, np.ndarray]) -> float:
        learner = learner_of(task, base, some.x, some.y)
        return -float(log_losses(learner.logits(weights), some.y).mean())

    return value


def classroom(cloud: Cloud, series: Series) -> Callable[[], Classroom]:
    """Both models of a series and samples of the pool, read when it is first called.

    It raises ValueError where there is no peer, or the pool has no samples."""

    @lru_cache(maxsize=1)
    def made() -> Classroom:
        return no_classroom() if series.peer is None else _classroom(cloud, series, series.peer)

    return lambda: made()


def _classroom(cloud: Cloud, series: Series, peer: Peer) -> Classroom:
    from edgelearn.device import use_threads  # only now: they import torch
    from edgelearn.learner import learner_of, weights_of

    use_threads(1)  # of this thread: who counts a round again, with other cores, must get the same bits
    task, other = tasks.load(cloud, series.task), tasks.load(cloud, peer.task)
    some = _spread(cloud, task)
    small = learner_of(task, bases.arrays(cloud, series.base), some.x, some.y)
    large = learner_of(other, bases.arrays(cloud, peer.base), some.x, some.y)
    return Classroom(small, large, some.y, weights_of(large.model))


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
