"""Recipe `delta`: draw samples from clusters of the pool in proportion to how much the board's samples resemble them.

Gong et al., "Delta: a cloud-assisted data enrichment framework for on-device continual learning" (MobiCom 2024): a
directory of centroids per class; the board's weight of a cluster is the mean of softmax(similarity / temperature) over
its samples; a cluster is drawn from in proportion to weight x dispersion, and inside a cluster a sample in proportion
to its distance to the centroid, so that the draw covers it.
"""

from __future__ import annotations

import numpy as np

from edgelearn.personalize.gathered import Gathered, gather_samples, train_on_rows
from edgelearn.personalize.setting import Personal, Setting

CLUSTERS = 20  # centroids per class
TEMPERATURE = 0.1
FETCHED = 25  # samples per class
ROUNDS = 10


def delta(setting: Setting) -> Personal:
    pool = gather_samples(setting.candidates)
    rng = np.random.default_rng((setting.seed, 13))
    mine, y = setting.local_outputs[1], setting.local.y
    # in an order that does not depend on what contributors are called: the same board gets the same of any cloud
    order = np.lexsort(pool.embedding[:, :2].T)
    rows = [_draw(mine[y == label], pool, order[pool.y[order] == label], rng) for label in np.unique(y)]
    return train_on_rows(setting, setting.base, pool, np.concatenate(rows))


def _draw(mine: np.ndarray, pool: Gathered, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows of one class, without repetition."""
    if len(rows) <= FETCHED:
        return rows
    unit = _unit(pool.embedding[rows])
    centroids, owner = cluster(unit, CLUSTERS, rng)
    away = np.sqrt(np.maximum(((unit - centroids[owner]) ** 2).sum(axis=1), 1e-12))
    weight = directory_weights(_unit(mine), centroids)
    within = np.bincount(owner, weights=away, minlength=len(centroids))
    dispersion = within / np.maximum(np.bincount(owner, minlength=len(centroids)), 1)
    share = (weight * dispersion)[owner] * away / within[owner]
    return rows[rng.choice(len(rows), FETCHED, replace=False, p=share / share.sum())]


def directory_weights(mine: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """w (clusters,), summing to one: the mean over my samples (n, dim) of softmax(cosine / TEMPERATURE); unit rows."""
    logits = mine @ centroids.T / TEMPERATURE
    likely = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray((likely / likely.sum(axis=1, keepdims=True)).mean(axis=0))


def cluster(x: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Lloyd's algorithm: centroids (at most count, dim) and the cluster of each row (n,). Empty clusters vanish."""
    centroids = x[rng.permutation(len(x))[:count]]
    for _ in range(ROUNDS):
        distance = (centroids**2).sum(axis=1) - 2 * x @ centroids.T
        _, owner = np.unique(distance.argmin(axis=1), return_inverse=True)
        sums = np.zeros((int(owner.max()) + 1, x.shape[1]))
        np.add.at(sums, owner, x)
        centroids = sums / np.bincount(owner)[:, None]
    return centroids, np.asarray(owner)


def _unit(x: np.ndarray) -> np.ndarray:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12), np.float64)
