"""FedSubAvg in the simulation: boards that hold the rows of their own samples learn what boards with all rows learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cloud_aug.simulation.plan import Plan
from cloud_aug.simulation.play import Simulation
from cloud_aug.simulation.processes import Processes
from edgelearn.crowd import Crowd
from edgelearn.federated.algorithm import LocalSettings
from edgelearn.federated.splits import Part
from edgelearn.models.build import build
from tests.learn.test_click_models import clicks, task

PLAN = Plan(rounds=2, share=0.5, settings=LocalSettings(epochs=1, batch_size=4, learning_rate=0.1))
TABLE = "items.vector.weight"


def crowd() -> Crowd:
    """Ten boards of six samples: a board touches some 25 of 41 rows."""
    x, y = clicks(80, seed=0)
    parts = [Part(np.arange(6 * board, 6 * board + 6)) for board in range(10)]
    return Crowd(build(task("din"), seed=0), x, y, parts, (x[60:], y[60:]), metric="auc")


def played(folder: Path, algorithm: str, **options: float) -> Simulation:
    plan = Plan(**{**vars(PLAN), "algorithm": algorithm, "options": tuple(options.items())})
    simulation = Simulation(crowd(), plan, folder, world="clicks")
    simulation.run()
    return simulation


def test_without_the_correction_submodels_end_with_the_weights_of_whole_models(tmp_path):
    whole = played(tmp_path / "whole", "fedavg")
    cut = played(tmp_path / "cut", "fedsubavg", corrected=0)
    for name, array in whole.server.weights.items():
        assert cut.server.weights[name] == pytest.approx(array, abs=1e-6)


def test_a_board_pays_for_its_own_rows_both_ways(tmp_path):
    whole, cut = played(tmp_path / "whole", "fedavg").history[0], played(tmp_path / "cut", "fedsubavg").history[0]
    rows = np.mean([41 - len(crowd().rows(board)[TABLE]) for board in crowd().boards])
    assert rows > 8
    assert whole.bytes_down - cut.bytes_down > 5 * 8 * 4 * 8
    assert whole.bytes_up > cut.bytes_up


def test_rows_that_nobody_touches_stay_as_they_were(tmp_path):
    made = crowd()
    simulation = played(tmp_path, "fedsubavg")
    untouched = np.flatnonzero(made.involved()[TABLE] == 0)
    moved = simulation.server.weights[TABLE] != made.weights()[TABLE]
    assert not moved[untouched].any()
    assert moved.any()


def test_boards_with_rows_of_their_own_play_on_several_processes_with_a_small_test(tmp_path):
    plan = Plan(**{**vars(PLAN), "algorithm": "fedsubavg"})
    with Processes(2) as players:
        there = Simulation(crowd(), plan, tmp_path / "there", world="clicks", players=players)
        there.run()
    here = played(tmp_path / "here", "fedsubavg")
    assert there.history == here.history
