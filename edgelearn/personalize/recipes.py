"""All recipes by name, in the order in which a tie is decided: the simpler first."""

from __future__ import annotations

from collections.abc import Callable

from edgelearn.personalize.augmented import augmented
from edgelearn.personalize.base import base
from edgelearn.personalize.bayes import bayes, bayes_deep
from edgelearn.personalize.blend import blend
from edgelearn.personalize.coda import coda
from edgelearn.personalize.delta import delta
from edgelearn.personalize.local import local
from edgelearn.personalize.matched import matched
from edgelearn.personalize.mpda import mpda, mpda_local
from edgelearn.personalize.nearest import nearest
from edgelearn.personalize.neighbours import neighbours
from edgelearn.personalize.random import random
from edgelearn.personalize.retrieved import retrieved
from edgelearn.personalize.setting import Personal, Setting
from edgewire.tasks import CLICK_MODELS, Task

Recipe = Callable[[Setting], Personal]


def _aligned(recipe: Recipe) -> Recipe:
    """Every recipe but `base` starts from the aligned base: turning it is part of personalization."""
    return lambda setting: recipe(setting.aligned)


def _fed(recipe: Recipe) -> Recipe:
    """A recipe that lives on candidates is `local` where there are none."""
    return _aligned(lambda setting: recipe(setting) if setting.candidates else local(setting))


RECIPES: dict[str, Recipe] = {
    "base": base,
    "local": _aligned(local),
    "augmented": _aligned(augmented),
    "random": _fed(random),
    "blend": _aligned(blend),
    "bayes": _fed(bayes),
    "bayes_deep": _fed(bayes_deep),
    "matched": _fed(matched),
    "retrieved": _fed(retrieved),
    "nearest": _fed(nearest),
    "coda": _fed(coda),
    "delta": _fed(delta),
    "mpda": _fed(mpda),
    "mpda_local": _fed(mpda_local),
    "neighbours": neighbours,
}

# what is rehearsed, and what `auto` chooses among: the others were never the best for any pool that was measured, or
# cost much more for the same (docs/decisions/0005); `random` is a control, never a choice
CHOICES = ("base", "local", "blend", "bayes", "matched")
CLICK_CHOICES = ("base", "local", "neighbours")
FOR_CLICKS = ("neighbours",)  # what needs items


def applicable(task: Task) -> tuple[str, ...]:
    """The recipes that a task can be trained with."""
    clicks = task.model.name in CLICK_MODELS
    return tuple(name for name in RECIPES if clicks or name not in FOR_CLICKS)


def choosable(task: Task) -> tuple[str, ...]:
    """What a rehearsal of the task plays, and `auto` may choose."""
    return CLICK_CHOICES if task.model.name in CLICK_MODELS else CHOICES


def choices(setting: Setting) -> tuple[str, ...]:
    """Those that make sense here: without candidates, the others would only repeat `local`; all but it train more than
    the head."""
    return choosable(setting.task) if setting.candidates and not setting.settings.head_only else ("base", "local")
