"""MPDA's gate: try each candidate domain, keep it only if the board's own samples say that it helps.

Yan et al., "On-Device Learning for Model Personalization with Large-Scale Cloud-Coordinated Domain Adaption" (KDD
2022), algorithm 1: w = one pass over the candidate from w*; if w fits the local data better than w*, then w* = w.
Here "better" is a paired test of the log-losses with a margin for the number of candidates, because the best of
twenty useless candidates looks good by chance on nearly every board. The allowed error `gate_alpha` is spent over the
candidates in order of their likeness, the i-th getting a share proportional to 1/i, and what a kept candidate had is
passed on to the next (Wiens, "A fixed sequence Bonferroni procedure for testing multiple endpoints", 2003): the
probability that any useless one is kept stays below alpha.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgelearn.fit import FitSettings, Source
from edgelearn.metrics import log_losses
from edgelearn.models.build import Weights, get_weights, load, outputs
from edgelearn.personalize.setting import Candidate, Setting


@dataclass(frozen=True)
class Verdict:
    """One candidate's trial. improvement: mean fall of the local log-loss; margin: what it had to exceed."""

    name: str
    improvement: float
    margin: float
    kept: bool

    def __str__(self) -> str:
        sign = "kept" if self.kept else "refused"
        return f"{sign} {self.name}: local log-loss fell by {self.improvement:+.4f}, needed {self.margin:.4f}"


@dataclass(frozen=True)
class Gated:
    """weights: w* after all trials; kept: the accepted candidates in order."""

    weights: Weights
    kept: tuple[Candidate, ...]
    verdicts: tuple[Verdict, ...]


def gate(setting: Setting, start: Weights, candidates: Sequence[Candidate]) -> Gated:
    """Greedy selection from `start` on the local samples. Those are new to the base; a model that was trained on them
    fits them already, so that from there only what helps beyond memory is kept."""
    best = start
    losses = _local_losses(setting, best)
    kept: list[Candidate] = []
    verdicts = []
    carried = 0.0
    shares = alpha_shares(len(candidates), setting.settings.gate_alpha)
    for number, (candidate, share) in enumerate(zip(candidates, shares, strict=True)):
        adapted = _adapt(setting, best, candidate, setting.seed + number)
        adapted_losses = _local_losses(setting, adapted)
        verdict = _judge(setting, candidate.name, losses - adapted_losses, alpha=share + carried)
        verdicts.append(verdict)
        carried = share + carried if verdict.kept else 0.0
        if verdict.kept:
            best, losses = adapted, adapted_losses
            kept.append(candidate)
    return Gated(best, tuple(kept), tuple(verdicts))


def _adapt(setting: Setting, start: Weights, candidate: Candidate, seed: int) -> Weights:
    """`settings.gate_epochs` passes over one candidate domain."""
    chosen = setting.settings
    batch_size = 32
    steps = chosen.gate_epochs * math.ceil(len(candidate.y) / batch_size)
    settings = FitSettings(
        steps, batch_size=batch_size, learning_rate=chosen.gate_lr, cosine=False, micro_batch=chosen.joint.micro_batch
    )
    model = load(setting.task, start).to(setting.device)
    setting.train(model, Source(candidate.examples()), settings, seed=seed)
    return get_weights(model)


def _local_losses(setting: Setting, weights: Weights) -> np.ndarray:
    """Bounded a little above the loss of a blind guess: one hopeless sample must not outvote all others."""
    logits, _ = outputs(load(setting.task, weights).to(setting.device), setting.local.x)
    return np.asarray(np.minimum(log_losses(logits, setting.local.y), math.log(setting.n_classes) + 1.0))


def _judge(setting: Setting, name: str, falls: np.ndarray, *, alpha: float) -> Verdict:
    """falls: (n,) decrease of each local sample's log-loss; alpha: allowed probability of keeping it if it is
    useless."""
    improvement, error, freedom = mean_and_error(falls, setting.local.group)
    margin = student_quantile(1.0 - alpha, freedom) * error if freedom >= 1 else math.inf
    return Verdict(name, improvement, margin, kept=bool(improvement > margin and freedom >= 1))


def mean_and_error(values: np.ndarray, group: np.ndarray) -> tuple[float, float, int]:
    """Mean, its standard error and degrees of freedom, where samples of one recording count as one observation.

    A mean over overlapping windows of one recording knows far less than their number suggests.
    """
    codes = np.unique(group, return_inverse=True)[1].reshape(-1)
    means = np.bincount(codes, weights=values) / np.bincount(codes)
    if len(means) < 2:
        return float(values.mean()), math.inf, 0
    # a zero spread among few observations is luck, not certainty
    error = float(means.std(ddof=1)) / math.sqrt(len(means))
    return float(means.mean()), max(error, 1e-6), len(means) - 1


def alpha_shares(candidates: int, alpha: float) -> list[float]:
    """How much of alpha each candidate may use, proportional to 1, 1/2, 1/3, ...; together alpha."""
    weights = [1.0 / i for i in range(1, candidates + 1)]
    return [alpha * weight / sum(weights) for weight in weights]


def student_quantile(p: float, freedom: int) -> float:
    """Quantile of Student's t for p > 0.5, by bisection on the exact series for the distribution function."""
    low, high = 0.0, 1.0
    while _student_cdf(high, freedom) < p:
        high *= 2.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_cdf(middle, freedom) < p else (low, middle)
    return (low + high) / 2


def _student_cdf(t: float, freedom: int) -> float:
    """P(T <= t), t >= 0 (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    theta = math.atan(t / math.sqrt(freedom))
    terms = list(_cosine_terms(theta, freedom))
    if freedom % 2:
        inside = 2 / math.pi * (theta + math.sin(theta) * sum(terms))
    else:
        inside = math.sin(theta) * sum(terms)
    return 0.5 + inside / 2


def _cosine_terms(theta: float, freedom: int) -> Iterator[float]:
    """The odd series cos + 2/3 cos^3 + ..., or the even one 1 + 1/2 cos^2 + ...; nothing for one degree of freedom."""
    power = freedom % 2
    term = math.cos(theta) ** power
    while power <= freedom - 2:
        yield term
        power += 2
        term *= (power - 1) / power * math.cos(theta) ** 2
