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

RECIPES: dict[str, Callable[[Setting], Personal]] = {
    "base": base,
    "local": local,
    "random": random,
    "bayes": bayes,
    "bayes_deep": bayes_deep,
    "matched": matched,
    "retrieved": retrieved,
    "nearest": nearest,
    "coda": coda,
    "delta": delta,
    "mpda": mpda,
    "mpda_local": mpda_local,
    "average": average,
}

# what `auto` chooses among; `random` is a control, never a choice
CHOICES = tuple(name for name in RECIPES if name != "random")


def usable(setting: Setting) -> tuple[str, ...]:
    """The choices that make sense here: without candidates, the others would only repeat `local`."""
    return CHOICES if setting.candidates else ("base", "local")
