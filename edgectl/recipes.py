"""The recipes that a board may be asked for. Spelt out here, because edgelearn's registry imports torch; a test
compares the two."""

from __future__ import annotations

RECIPES = (
    "auto", "base", "local", "augmented", "random", "blend", "bayes", "bayes_deep", "matched", "retrieved", "nearest",
    "coda", "delta", "mpda", "mpda_local", "neighbours",
)  # fmt: skip
