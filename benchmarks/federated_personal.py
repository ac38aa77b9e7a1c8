"""What do personal models add to a base that was learned by federated averaging? WISDM, every contributor a board.

The pool's users train the base together (FedAvg), their samples stay with them; other users then personalize it, as in
benchmarks/protocols.py. Recipes that need candidates fetch samples that contributors share by consent. Beside it, the
base that is trained on the same samples in one place. Input scaling is the pool's mean and deviation per feature, which
boards would have to agree on first.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from benchmarks.figures import Figure, answer, noted
from benchmarks.personalize.summary import bootstrap
from benchmarks.protocols import Fold, folds
from cloud_aug.simulation.plan import Plan
from cloud_aug.simulation.play import Simulation
from edgelearn.crowd import Crowd
from edgelearn.device import use_threads
from edgelearn.examples import make
from edgelearn.federated.algorithm import LocalSettings
from edgelearn.federated.splits import by_owner
from edgelearn.metrics import score
from edgelearn.models.build import Weights, build, fit_front, get_weights, load, outputs
from edgelearn.personalize.recipes import RECIPES
from edgelearn.personalize.rehearsal import set_stage
from edgelearn.personalize.setting import Setting, Settings
from edgelearn.pretrain import train_base

SHOTS = (1, 3, 10)
PLAYED = ("base", "local", "matched", "mpda_local")
PLAN = Plan(rounds=60, share=0.3, settings=LocalSettings(epochs=2, batch_size=16, learning_rate=0.05))
FOLDS = 3  # of six users each
Scores = dict[str, list[float]]  # by recipe, over boards


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.federated_personal", description=(__doc__ or ""))
    parser.add_argument("--folds", type=int, default=FOLDS, help="of six, with six boards each")
    parser.add_argument("--quick", action="store_true", help="one fold")
    parser.add_argument("--json", type=Path, metavar="OUT")
    arguments = parser.parse_args()
    use_threads(1)
    found: dict[str, dict[int, Scores]] = {}
    for fold in islice(folds("wisdm", 0), 1 if arguments.quick else arguments.folds):
        for kind, base in (("federated", _federated(fold)), ("central", _central(fold))):
            _play(fold, base, found.setdefault(kind, {shots: {} for shots in SHOTS}))
    answer((__doc__ or "").partition("\n\n")[0], list(_figures(found)), arguments.json)


def _federated(fold: Fold) -> Weights:
    model = build(fold.task, seed=0)
    fit_front(model, fold.x)
    parts = by_owner(fold.user, len(np.unique(fold.user)), np.random.default_rng(0))
    crowd = Crowd(model, fold.x, fold.y, parts, (fold.x, fold.y))
    with tempfile.TemporaryDirectory() as folder:
        simulation = Simulation(crowd, PLAN, Path(folder), world=fold.name)
        history = simulation.run()
    print(f"fold {fold.name}: {len(parts)} boards made a base of {100 * history[-1].score:.1f} % on their own samples")
    return {**get_weights(model), **simulation.server.weights}


def _central(fold: Fold) -> Weights:
    return train_base(fold.task, fold.x, fold.y, fold.user, seed=0, epochs=fold.epochs, group=fold.group)


def _play(fold: Fold, base: Weights, into: dict[int, Scores]) -> None:
    stage = set_stage(fold.task, base, fold.x, fold.y, fold.user)
    for board in fold.boards:
        for shots, scores in into.items():
            rows, test = board.local(shots), board.held_out(shots)
            local = make(board.x[rows], board.y[rows], board.group[rows])
            setting = Setting(
                fold.task, base, local, stage.candidates, stage.global_means, Settings.of(fold.task), seed=0
            )
            for name in PLAYED:
                logits = outputs(load(fold.task, RECIPES[name](setting).weights), board.x[test])[0]
                scores.setdefault(name, []).append(100 * score(fold.task.metric, logits, board.y[test]))


def _figures(found: dict[str, dict[int, Scores]]) -> Iterator[Figure]:
    """Accuracy of each recipe, and what it adds to the base as it came, paired by board."""
    for kind, by_shots in found.items():
        for shots, scores in by_shots.items():
            for name, values in scores.items():
                gain = np.subtract(values, scores["base"])
                low, high = bootstrap(gain)
                told = f"{gain.mean():+.1f} [{low:+.1f}, {high:+.1f}] points over it as it came, {len(values)} boards"
                anchor = f"{len(values)} boards" if name == "base" else told
                yield noted(f"{kind} base, {shots} shots: {name}", float(np.mean(values)), "%", anchor=anchor)


if __name__ == "__main__":
    main()
