"""Evidence from the board's own samples: every recipe runs whole (matching, gate, training) inside each fold.

Folds never split a recording: windows of one recording overlap, and a model that saw one half knows the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgelearn.metrics import scores_by_fold
from edgelearn.models.build import load, outputs
from edgelearn.personalize.recipes import RECIPES
from edgelearn.personalize.setting import Setting


@dataclass(frozen=True)
class Evidence:
    """What each recipe says of local samples that its training did not see. rows: int (m,), which samples; group: (m,)
    recordings; fold: (m,), rows of one fold met the same model; logits: recipe -> (m, classes); hits: recipe -> (m,)
    scores, ranked within the fold where the metric ranks."""

    rows: np.ndarray
    group: np.ndarray
    fold: np.ndarray
    logits: dict[str, np.ndarray]
    hits: dict[str, np.ndarray]

    def joined(self, part: Evidence) -> Evidence:
        """With evidence about more recipes on the same samples: the folds depend on samples and seed only."""
        return replace(self, logits={**self.logits, **part.logits}, hits={**self.hits, **part.hits})


def make_folds(y: np.ndarray, group: np.ndarray, *, folds: int, seed: int) -> list[np.ndarray]:
    """Test rows of each fold, or [] where the samples cannot tell.

    A recording is held out only if all of its classes are met outside the fold: a model that never met a class would be
    tested on it. Where less than half of the samples could be held out, there is no evidence, and [] says so.
    """
    rng = np.random.default_rng((seed, 11))
    recordings = {int(g): np.flatnonzero(group == g) for g in np.unique(group)}
    by_class: dict[int, list[int]] = {}
    for g, rows in recordings.items():
        by_class.setdefault(int(np.bincount(y[rows]).argmax()), []).append(g)
    count = min(folds, max((len(gs) for gs in by_class.values()), default=0))
    tested: list[list[int]] = [[] for _ in range(count)]
    start = 0
    for label in sorted(by_class):
        gs = [by_class[label][i] for i in rng.permutation(len(by_class[label]))]
        if len(gs) < 2:
            continue
        for i, g in enumerate(gs):
            tested[(start + i) % count].append(g)
        start += len(gs)
    found = [rows for gs in tested if len(rows := _met_elsewhere(y, [recordings[g] for g in gs]))]
    if len(found) < 2 or 2 * sum(map(len, found)) < len(y):
        return []
    return found


def _met_elsewhere(y: np.ndarray, held: Sequence[np.ndarray]) -> np.ndarray:
    """The rows of those held-out recordings that have no class which is then missing from what is left to train on."""
    left = np.setdiff1d(np.arange(len(y)), np.concatenate([*held, np.zeros(0, np.int64)]))
    kept = [rows for rows in held if np.isin(y[rows], y[left]).all()]
    return np.sort(np.concatenate([*kept, np.zeros(0, np.int64)]))


def gather(
    setting: Setting, recipes: Sequence[str], *, on_fold: Callable[[int, int], None] = lambda done, total: None
) -> Evidence | None:
    """Cross-validated scores of the recipes, or None where the samples are too few to tell. on_fold(done, total)."""
    folds = make_folds(setting.local.y, setting.local.group, folds=setting.settings.folds, seed=setting.seed)
    if not folds:
        return None
    said: dict[str, list[np.ndarray]] = {name: [] for name in recipes}
    everything = np.arange(len(setting.local))
    for number, test in enumerate(folds, start=1):
        inside = setting.only(np.setdiff1d(everything, test))
        held = setting.local.take(test)
        for name in recipes:
            said[name].append(outputs(load(setting.task, RECIPES[name](inside).weights).to(setting.device), held.x)[0])
        on_fold(number, len(folds))
    rows, fold = np.concatenate(folds), np.repeat(np.arange(len(folds)), [len(test) for test in folds])
    logits = {name: np.concatenate(parts) for name, parts in said.items()}
    metric, y = setting.task.metric, setting.local.y[rows]
    hits = {name: scores_by_fold(metric, found, y, fold) for name, found in logits.items()}
    return Evidence(rows, setting.local.group[rows], fold, logits, hits)
