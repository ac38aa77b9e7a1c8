"""The recipes that a board may be asked for. Spelt out here, because edgelearn's registry imports torch; a test
compares the two."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgewire.tasks import Task

RECIPES = (
    "auto", "base", "local", "augmented", "random", "blend", "bayes", "bayes_deep", "matched", "retrieved", "nearest",
    "coda", "delta", "mpda", "mpda_local", "neighbours",
)  # fmt: skip
_FOR_CLICKS = ("neighbours",)


def suits(recipe: str, task: Task) -> bool:
    """Whether this edgectl knows the recipe, and the task can be trained with it."""
    from edgewire.tasks import CLICK_MODELS

    return recipe in RECIPES and (task.model.name in CLICK_MODELS or recipe not in _FOR_CLICKS)
