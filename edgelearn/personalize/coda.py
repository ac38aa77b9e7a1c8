"""Recipe `coda`: a classifier trained on the board, local against outside, keeps the samples it takes for local.

CoDA, Gu et al., "On-device learning with cloud-coordinated data augmentation for extreme model personalization in
recommender systems" (arXiv 2201.10382): the cloud matches coarsely, then a small classifier on the board filters the
matched samples one by one. Here it is a logistic regression on the base's standardised embedding, minus the label's
own mean, so that it tells whose a sample is, not which class; the more local-looking half of the matched samples is
kept.
"""

from __future__ import annotations

import numpy as np

from edgelearn.personalize.gathered import gather_samples, train_on_rows
from edgelearn.personalize.match import nearest
from edgelearn.personalize.setting import Personal, Setting

KEPT_SHARE = 0.5
RIDGE = 1.0
ROUNDS = 8


def coda(setting: Setting) -> Personal:
    pool = gather_samples(nearest(setting))
    means = setting.global_means
    mine = setting.local_outputs[1] - means[setting.local.y]
    theirs = pool.embedding - means[pool.y]
    scores = likeness(mine, theirs)
    known = np.isin(pool.y, setting.local.y)  # of other classes nothing local was seen: they are neither kept nor cut
    cut = np.quantile(scores[known], 1 - KEPT_SHARE) if known.any() else -np.inf
    return train_on_rows(setting, setting.base, pool, np.flatnonzero(~known | (scores >= cut)))


def likeness(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """How local each outside sample looks (m,), log-odds. mine: (n, dim); theirs: (m, dim).

    Logistic regression with a ridge, both sides of the same total weight, by Newton's method.
    """
    both = np.concatenate([mine, theirs]).astype(np.float64)
    scaled = (both - both.mean(axis=0)) / (both.std(axis=0) + 1e-6)
    x = np.concatenate([scaled, np.ones((len(both), 1))], axis=1)
    local = np.concatenate([np.ones(len(mine)), np.zeros(len(theirs))])
    weight = np.where(local == 1, 0.5 / len(mine), 0.5 / len(theirs)) * 2 * len(mine)
    ridge = np.full(x.shape[1], RIDGE)
    ridge[-1] = 1e-6
    beta = np.zeros(x.shape[1])
    for _ in range(ROUNDS):
        p = 1 / (1 + np.exp(-np.clip(x @ beta, -30, 30)))
        gradient = x.T @ (weight * (p - local)) + ridge * beta
        curvature = (x * (weight * p * (1 - p))[:, None]).T @ x + np.diag(ridge)
        beta -= np.linalg.solve(curvature, gradient)
    return np.asarray((x @ beta)[len(mine) :])
