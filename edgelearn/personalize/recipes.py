"""All recipes by name, in the order in which a tie is decided: the simpler first."""

from __future__ import annotations

from collections.abc import Callable

from edgelearn.personalize.base import base
from edgelearn.personalize.local import local
from edgelearn.personalize.matched import matched
from edgelearn.personalize.mpda import mpda
from edgelearn.personalize.random import random
from edgelearn.personalize.setting import Personal, Setting

RECIPES: dict[str, Callable[[Setting], Personal]] = {
    "base": base,
    "local": local,
    "random": random,
    "matched": matched,
    "mpda": mpda,
}

# what `auto` chooses among; `random` is a control, never a choice
CHOICES = ("base", "local", "matched", "mpda")


def usable(setting: Setting) -> tuple[str, ...]:
    """The choices that make sense here: without candidates, `matched` and `mpda` would only repeat `local`."""
    return CHOICES if setting.candidates else ("base", "local")
