"""Which recipe to ship: what the cloud's rehearsal found (the prior), corrected by what the board's own folds say.

Both are statements about one number per recipe, its gain in accuracy over the base model, so they are combined as two
normal distributions, weighted by how certain each is. With one sample per class there are no folds and the prior
decides alone; with neither, the base model stays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgelearn.personalize.gate import mean_and_error
from edgelearn.personalize.veto import Evidence

EVIDENCE_SHARE = 0.1


@dataclass(frozen=True)
class Figure:
    """What a rehearsal found. shots: samples per class; gain: mean difference in the task's metric to the base model
    over `boards` rehearsed boards; spread: standard deviation between boards of what it gained beyond the mean of all
    recipes on that board; harm: share of boards that lost."""

    recipe: str
    shots: int
    gain: float
    spread: float
    harm: float
    boards: int


@dataclass(frozen=True)
class Belief:
    """gain: accuracy over the base; error: standard deviation of that; basis: what it rests on."""

    recipe: str
    gain: float
    error: float
    basis: str

    def __str__(self) -> str:
        if self.recipe == "base":
            return "base: the reference"
        if not math.isfinite(self.gain):
            return f"{self.recipe}: {self.basis}"
        return f"{self.recipe}: {100 * self.gain:+.1f} ± {100 * self.error:.1f} points over base ({self.basis})"


@dataclass(frozen=True)
class Choice:
    """recipe: what to ship; reason: one line for people; beliefs: all that were compared, in the order asked for."""

    recipe: str
    reason: str
    beliefs: tuple[Belief, ...]


def shortlist(names: Sequence[str], prior: Sequence[Figure], *, shots: float, count: int = 2) -> tuple[str, ...]:
    """Which of these recipes are worth a board's time: `base`, `local`, and the `count` of the others that the
    rehearsal found best at that number of shots; all that `names` has first, where nothing was rehearsed.

    A board's own evidence corrects a rehearsal; it is too noisy to search through a dozen of recipes with.
    """
    others = [name for name in names if name not in ("base", "local")]
    gains = {name: found[0] for name in others if (found := _at_shots(name, prior, shots)) is not None}
    best = sorted(gains, key=lambda name: -gains[name]) if gains else others
    return tuple(name for name in names if name in ("base", "local", *best[:count]))


def choose(recipes: Sequence[str], prior: Sequence[Figure], evidence: Evidence | None, *, shots: float) -> Choice:
    """The recipe with the highest believed gain; a tie goes to the earlier (simpler) one. `recipes` must contain
    'base'."""
    beliefs = tuple(_believe(name, prior, evidence, shots) for name in recipes)
    best = max(beliefs, key=lambda belief: (belief.gain, -recipes.index(belief.recipe)))
    return Choice(best.recipe, _reason(best, prior, evidence, shots), beliefs)


def can_tell(recipes: Sequence[str], prior: Sequence[Figure], *, recordings: int, shots: float) -> bool:
    """Whether folds over so many recordings could correct the rehearsal: they count for at least EVIDENCE_SHARE of the
    belief about some recipe. Where the rehearsal knows a gain to half a point, thirty samples say nothing, and trying
    every recipe in every fold is wasted time and energy."""
    for name in recipes:
        if name == "base":
            continue
        known = _at_shots(name, prior, shots)
        if known is None:
            return True
        precise = known[1] ** 2 / (known[1] ** 2 + 1.0 / max(recordings, 1) ** 2)
        if precise >= EVIDENCE_SHARE:
            return True
    return False


def veto(wanted: str, fallbacks: Sequence[str], beliefs: Sequence[Belief]) -> tuple[str, str]:
    """Ship `wanted`, or the best fallback if that is believed to be better. Returns the recipe and the reason.

    A recipe about which nothing at all is known (no prior, no folds) is not shipped on faith: the base model stays.
    Whoever asks for the base itself gets it: a veto guards against harm, and the base is what harm is measured by.
    """
    if wanted == "base":
        return wanted, "it was asked for, and cannot harm"
    by_name = {belief.recipe: belief for belief in beliefs}
    best = max((by_name[name] for name in fallbacks), key=lambda belief: belief.gain)
    if by_name[wanted].gain >= best.gain and math.isfinite(by_name[wanted].gain):
        return wanted, "nothing speaks against it"
    return best.recipe, f"vetoed: {by_name[wanted]}; {best.recipe} is believed to be better"


def _believe(recipe: str, prior: Sequence[Figure], evidence: Evidence | None, shots: float) -> Belief:
    if recipe == "base":
        return Belief("base", 0.0, 0.0, "by definition")
    figure = _at_shots(recipe, prior, shots)
    seen = _seen(recipe, evidence)
    if figure and seen:
        gain, error = _combine(figure, seen)
        return Belief(recipe, gain, error, "rehearsal and own folds")
    if figure:
        return Belief(recipe, *figure, "rehearsal only")
    if seen:
        return Belief(recipe, *seen, "own folds only")
    return Belief(recipe, -math.inf, math.inf, "nothing known")


def _at_shots(recipe: str, prior: Sequence[Figure], shots: float) -> tuple[float, float] | None:
    """Gain and its uncertainty for one more board, interpolated between rehearsed shots on a logarithmic scale."""
    figures = sorted((f for f in prior if f.recipe == recipe and f.boards > 0), key=lambda f: f.shots)
    if not figures:
        return None
    scale = [math.log(f.shots) for f in figures]
    at = math.log(max(shots, 1.0))
    gain = float(np.interp(at, scale, _steadied(figures, prior)))
    # a new board differs like the rehearsed ones did, and their mean is uncertain itself
    errors = [max(f.spread, 0.01) * math.sqrt(1 + 1 / f.boards) for f in figures]
    return gain, float(np.interp(at, scale, errors))


def _steadied(figures: Sequence[Figure], prior: Sequence[Figure]) -> list[float]:
    """A recipe's gains, its lead over the mean of all recipes drawn halfway to its mean lead over all shots.

    A rehearsal of a dozen boards knows a lead to a point or two, and the best of several noisy ones is too often luck;
    a recipe that leads at 3 shots does not usually trail at 1.
    """
    means = {f.shots: float(np.mean([g.gain for g in prior if g.shots == f.shots])) for f in figures}
    leads = [f.gain - means[f.shots] for f in figures]
    return [means[f.shots] + (lead + float(np.mean(leads))) / 2 for f, lead in zip(figures, leads, strict=True)]


def _seen(recipe: str, evidence: Evidence | None) -> tuple[float, float] | None:
    if evidence is None or recipe not in evidence.hits:
        return None
    difference = evidence.hits[recipe] - evidence.hits["base"]
    gain, error, freedom = mean_and_error(difference, evidence.group)
    if freedom < 1:
        return None
    # n equal answers do not prove equality: keep the error of at least one changed answer
    observations = freedom + 1
    return gain, max(error, 1.0 / observations)


def _combine(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    """Precision-weighted mean of two normal beliefs (mean, standard deviation)."""
    weights = (1 / a[1] ** 2, 1 / b[1] ** 2)
    total = weights[0] + weights[1]
    return (a[0] * weights[0] + b[0] * weights[1]) / total, math.sqrt(1 / total)


def _reason(best: Belief, prior: Sequence[Figure], evidence: Evidence | None, shots: float) -> str:
    if evidence is None and not prior:
        return "too few samples for folds and no rehearsal published: the base model stays"
    if evidence is None:
        return f"the samples are too few to correct the rehearsal (about {shots:.0f} per class): it decides; {best}"
    return str(best)
