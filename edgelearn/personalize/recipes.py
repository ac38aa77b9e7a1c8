"""All recipes by name, in the order in which a tie is decided: the simpler first."""

from __future__ import annotations

from collections.abc import Callable

from edgelearn.personalize.average import average
from edgelearn.personalize.base import base
from edgelearn.personalize.bayes import bayes, bayes_deep
from edgelearn.personalize.coda import coda
from edgelearn.personalize.delta import delta
from edgelearn.personalize.local import local
from edgelearn.personalize.matched import matched
from edgelearn.personalize.mpda import mpda, mpda_local
from edgelearn.personalize.nearest import nearest
from edgelearn.personalize.random import random
from edgelearn.personalize.retrieved import retrieved
from edgelearn.personalize.setting import Personal, Setting

Recipe = Callable[[Setting], Personal]


def _aligned(recipe: Recipe) -> Recipe:
    """Every recipe but `base` starts from the aligned base: turning it is part of personalization."""
    return lambda setting: recipe(setting.aligned)


RECIPES: dict[str, Recipe] = {
    "base": base,
    "local": _aligned(local),
    "random": _aligned(random),
    "bayes": _aligned(bayes),
    "bayes_deep": _aligned(bayes_deep),
    "matched": _aligned(matched),
    "retrieved": _aligned(retrieved),
    "nearest": _aligned(nearest),
    "coda": _aligned(coda),
    "delta": _aligned(delta),
    "mpda": _aligned(mpda),
    "mpda_local": _aligned(mpda_local),
    "average": _aligned(average),
}

# what is rehearsed, and what `auto` chooses among: the others were never the best for any pool that was measured, or
# cost much more for the same (docs/decisions/0005); `random` is a control, never a choice
CHOICES = ("base", "local", "bayes", "bayes_deep", "matched")


def choices(setting: Setting) -> tuple[str, ...]:
    """Those that make sense here: without candidates, the others would only repeat `local`."""
    return CHOICES if setting.candidates else ("base", "local")
