"""Coarse matching: which contributors resemble the board, by class-conditional residual prototypes of the base
embedding: class means (Snell et al., "Prototypical networks for few-shot learning", 2017), less everybody's."""

from __future__ import annotations

from edgelearn.personalize.setting import Candidate, Setting
from edgelearn.retrieval.prototypes import class_means, residuals, similarity


def rank(setting: Setting) -> list[tuple[float, Candidate]]:
    """Candidates with their likeness in -1..1, most alike first; ties by name, so that the order is reproducible."""
    _, embedding = setting.local_outputs
    means, counts = class_means(embedding, setting.local.y, setting.n_classes)
    mine = residuals(means, counts, setting.global_means)
    scored = []
    for candidate in setting.candidates:
        their_means, their_counts = class_means(candidate.embedding, candidate.y, setting.n_classes)
        theirs = residuals(their_means, their_counts, setting.global_means)
        scored.append((similarity(mine, counts, theirs, their_counts), candidate))
    return sorted(scored, key=lambda pair: (-pair[0], pair[1].name))


def nearest(setting: Setting) -> list[Candidate]:
    """The `settings.matched` most alike candidates, most alike first."""
    return [candidate for _, candidate in rank(setting)[: setting.settings.matched]]
