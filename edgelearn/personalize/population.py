"""What contributors know about a board it has never met: how much one person's class means differ from everybody's.

A board's class means are unknown and seen through a few samples. Contributors' class means say how such means vary
between people, and together over classes: whoever moves one class this way moves another that way. The best linear
guess of the board's means follows in closed form (Henderson, "Best linear unbiased estimation and prediction under a
selection model", Biometrics 1975; with an estimated prior: empirical Bayes, Efron and Morris 1973). Classes that the
board has no samples of are guessed too. The guess is turned into a linear layer (Gaussian classes of equal
covariance), so that it costs nothing at inference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgelearn.retrieval.prototypes import class_means

OWN_VARIANCE = 1.0  # variance of a person's class mean that no contributor's explains, in within-class variances
MIN_SAMPLES = 3  # a contributor's class mean of fewer says little about the contributor


@dataclass(frozen=True)
class Population:
    """In coordinates in which samples of one class of one person have covariance one: `embedding @ whiten`.

    whiten: (dim, dim); means: (classes, dim), everybody's; deviations: (contributors, classes, dim), zeros where a
    contributor has too few samples of a class.
    """

    whiten: np.ndarray
    means: np.ndarray
    deviations: np.ndarray

    def guess(self, embedding: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The board's class means (classes, dim), from its samples: embedding (n, dim); y (n,). Everybody's for none.

        With deviations R (contributors, classes x dim), the prior of the board's is N(0, R'R / contributors + v) and
        its observed class means add noise 1 / samples; Woodbury's identity keeps the system as small as the number of
        contributors.
        """
        classes, dim = self.means.shape
        found, counts = class_means(embedding @ self.whiten, y, classes)
        seen = np.repeat(counts > 0, dim)
        if not seen.any():
            return self.means
        moved = (found - self.means).ravel()[seen].astype(np.float64)
        people = self.deviations.reshape(len(self.deviations), -1) / np.sqrt(max(len(self.deviations), 1))
        noise = OWN_VARIANCE + np.repeat(1.0 / np.maximum(counts, 1), dim)[seen]
        known = people[:, seen]
        system = np.eye(len(people)) + (known / noise) @ known.T
        weight = moved / noise - known.T @ np.linalg.solve(system, known @ (moved / noise)) / noise
        deviation = people.T @ (known @ weight)
        deviation[seen] += OWN_VARIANCE * weight
        return np.asarray(self.means + deviation.reshape(classes, dim))

    def head(self, means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Linear layer (classes, dim), (classes,) whose softmax is the posterior of Gaussian classes with these means
        (Fisher's discriminant), on embeddings that are not whitened; its rows are centred."""
        weight = means @ self.whiten.T
        bias = -0.5 * (means**2).sum(axis=1)
        return (weight - weight.mean(axis=0)).astype(np.float32), (bias - bias.mean()).astype(np.float32)


def survey(people: Sequence[tuple[np.ndarray, np.ndarray]], n_classes: int) -> Population | None:
    """The population that these contributors stand for: of each, embedding (n, dim) and y (n,). None where nobody has
    several samples of a class."""
    dim = people[0][0].shape[1] if people else 0
    scatter, freedom = np.zeros((dim, dim)), 0
    sums, counts, found = np.zeros((n_classes, dim)), np.zeros(n_classes), []
    for embedding, y in people:
        means, count = class_means(embedding, y, n_classes)
        residual = embedding.astype(np.float64) - means[y]
        scatter += residual.T @ residual
        freedom += len(y) - int((count > 0).sum())
        sums += means * count[:, None]
        counts += count
        found.append((means, count))
    if freedom < 1 or not scatter.any():
        return None
    whiten = _whitening(scatter / freedom)
    means = sums / np.maximum(counts, 1)[:, None]
    deviations = [np.where((count >= MIN_SAMPLES)[:, None], mean - means, 0.0) @ whiten for mean, count in found]
    return Population(whiten, means @ whiten, np.stack(deviations))


def _whitening(covariance: np.ndarray) -> np.ndarray:
    """W with (x @ W) of covariance one; directions in which nothing varies (a dead unit) are not blown up."""
    dim = len(covariance)
    values, vectors = np.linalg.eigh(covariance + np.eye(dim) * 1e-3 * np.trace(covariance) / dim)
    return np.asarray(vectors / np.sqrt(values))
