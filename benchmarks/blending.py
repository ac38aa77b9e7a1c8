"""What should the recipe `blend` be made of? Contributors of the pool are held out in three parts, each with a base of
its own (never a board's rows), and play boards: accuracy of means of personal models' weights, against `local` as it
ships.

Parts of a mean: local training; local training on augmented samples; joint training with the most alike contributors;
the same on augmented samples; and the guessed class means added to the head, by their weight.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from benchmarks.tuning import DEFAULT, compare_ways
from edgelearn.models.build import Weights, load, outputs
from edgelearn.personalize.bayes import add_guess
from edgelearn.personalize.blend import mean_weights
from edgelearn.personalize.joint import train_jointly, tune
from edgelearn.personalize.match import nearest
from edgelearn.personalize.setting import Setting

BOARDS = {"wisdm": 30, "myo": 21, "mnist": 60}  # contributors held out; all three: about half an hour of one core
SHARES = (  # of local, augmented, joint, joint augmented
    (3, 1, 0, 0), (2, 2, 0, 0), (0, 4, 0, 0), (3, 0, 1, 0), (2, 0, 2, 0), (3, 0, 0, 1), (2, 1, 0, 1), (1, 2, 0, 1),
    (0, 3, 0, 1), (0, 2, 0, 2),
)  # fmt: skip
GUESSES = (0.0, 0.03, 0.1)


def main() -> None:
    compare_ways(__doc__ or "", BOARDS, parts=3, ways=blends)


def blends(setting: Setting, x: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Name and logits (n, classes) of each mean. x: (n, *shape), the samples to answer."""
    turned = setting.aligned
    changed = replace(turned, settings=replace(turned.settings, augment=turned.task.model.name != "mlp"))
    chosen = nearest(turned)
    parts = [
        tune(turned, turned.base),
        tune(changed, turned.base, augmented=True),
        train_jointly(turned, turned.base, chosen),
        train_jointly(changed, turned.base, chosen, augmented=True),
    ]

    def ask(weights: Weights) -> np.ndarray:
        return outputs(load(setting.task, weights), x)[0]

    yield DEFAULT, ask(parts[0])
    for shares in ((4, 0, 0, 0), *SHARES):
        if not changed.settings.augment and (shares[1] or shares[3]):
            continue
        mean = mean_weights([part for part, share in zip(parts, shares, strict=True) for _ in range(share)])
        name = "/".join(map(str, shares))
        for guess in GUESSES:
            if shares[0] < 4 or guess:
                yield f"{name}, guess {guess:g}", ask(add_guess(turned, mean, guess))


if __name__ == "__main__":
    main()
