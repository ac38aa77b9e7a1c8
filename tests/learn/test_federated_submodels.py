"""FedSubAvg: a table of which each board knows a few rows only."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgelearn import learner
from edgelearn.federated.algorithm import LocalSettings, Update
from edgelearn.federated.arrays import Arrays, EmptyRound
from edgelearn.federated.fedavg import FedAvg
from edgelearn.federated.fedsubavg import FedSubAvg, involvement
from edgelearn.learner import OtherRows, TorchLearner, part_learner, weights_of
from edgelearn.models.build import build, fit_items, get_weights, outputs
from edgelearn.submodel import submodel, touched
from tests.learn.test_click_models import ITEMS, clicks, task

WEIGHTS: Arrays = {"table": np.arange(8, dtype=np.float32).reshape(4, 2), "dense": np.float32([1.0])}
ALGORITHM = FedSubAvg(involved={"table": np.array([30.0, 10.0, 20.0, 0.0])}, total_samples=30)


class Lookup:
    """Pulls every row that its samples touch, and the dense weight, to 1. ids: of the submodel."""

    def __init__(self, ids: np.ndarray) -> None:
        self.ids = ids
        self.num_samples = len(ids)

    def gradient(self, weights, rows) -> Arrays:
        slope = np.zeros_like(weights["table"])
        touched = np.unique(self.ids[rows])
        slope[touched] = weights["table"][touched] - 1
        return {"table": slope, "dense": weights["dense"] - 1}


def moved(rows: dict[str, list[int]], value: float, samples: int) -> Update:
    ids = np.array(rows["table"])
    delta = {"table": np.full((len(ids), 2), value, np.float32), "dense": np.float32([value])}
    return Update("one", 0, samples, 1, delta, rows={"table": ids})


def test_a_board_is_sent_the_rows_it_asks_for_and_all_that_is_no_table():
    order = ALGORITHM.order(ALGORITHM.start(WEIGHTS), LocalSettings(), {"table": np.array([0, 2])})
    assert order.weights["table"].tolist() == [[0, 1], [4, 5]]
    assert order.weights["dense"].tolist() == [1]


def test_a_board_trains_and_sends_its_rows_only():
    ids = np.array([7, 2, 7]) % 4
    rows = np.unique(ids)
    order = ALGORITHM.order(ALGORITHM.start(WEIGHTS), LocalSettings(1, 0, 0.5), {"table": rows})
    learner = Lookup(np.searchsorted(rows, ids))
    sent, _ = ALGORITHM.client_step(order, learner, board="one", memory={}, rng=np.random.default_rng(0))
    assert sent.delta["table"].tolist() == [[-1.5, -2.0], [-2.5, -3.0]]  # half the way from 4, 5 and 6, 7 to 1
    assert sent.rows["table"].tolist() == [2, 3]


def test_each_row_is_corrected_by_how_many_samples_touch_it():
    """Boards of 10 and 20 samples. Row 0 all know; row 1 the first only: its mean 10/30 counts 30/10 times."""
    updates = [moved({"table": [0, 1]}, 1.0, 10), moved({"table": [0, 2]}, 4.0, 20)]
    server = ALGORITHM.server_update(ALGORITHM.start(WEIGHTS), updates)
    change = server.weights["table"] - WEIGHTS["table"]
    assert change[:, 0].tolist() == [3.0, 1.0, 4.0, 0.0]  # (10·1 + 20·4)/30; 3·10·1/30; 30/20·20·4/30
    assert server.weights["dense"].tolist() == [4.0]


def test_without_correction_it_is_plain_averaging_of_whole_tables():
    plain = FedSubAvg(involved=ALGORITHM.involved, total_samples=30, corrected=False)
    updates = [moved({"table": [0, 1]}, 1.0, 10), moved({"table": [0, 2]}, 4.0, 20)]
    whole = []
    for update in updates:
        table = np.zeros((4, 2), np.float32)
        table[update.rows["table"]] = update.delta["table"]
        whole.append(Update("one", 0, update.num_samples, 1, {"table": table, "dense": update.delta["dense"]}))
    found = plain.server_update(plain.start(WEIGHTS), updates).weights
    expected = FedAvg().server_update(FedAvg().start(WEIGHTS), whole).weights
    assert found["table"] == pytest.approx(expected["table"], abs=1e-6)


@pytest.mark.parametrize("ids", [[2, 0], [1, 1], [-1, 0], [0, 4], [[0]], [0.0]])
def test_rows_that_do_not_ascend_within_the_table_are_an_error(ids):
    with pytest.raises(ValueError, match="table"):
        ALGORITHM.order(ALGORITHM.start(WEIGHTS), LocalSettings(), {"table": np.array(ids)})


def test_a_table_that_is_not_asked_for_is_an_error_not_a_whole_download():
    with pytest.raises(ValueError, match="which rows"):
        ALGORITHM.order(ALGORITHM.start(WEIGHTS), LocalSettings())


def test_an_update_of_a_row_that_nobody_is_counted_to_touch_is_an_error():
    with pytest.raises(ValueError, match="nobody is counted"):
        ALGORITHM.server_update(ALGORITHM.start(WEIGHTS), [moved({"table": [3]}, 1.0, 10)])


def test_an_empty_round_is_an_error_here_too():
    with pytest.raises(EmptyRound):
        ALGORITHM.server_update(ALGORITHM.start(WEIGHTS), [])


def test_involvement_counts_samples_of_boards_not_of_rows():
    assert involvement([(np.array([0, 1]), 10), (np.array([1]), 20)], rows=3).tolist() == [10, 30, 0]


@pytest.mark.parametrize("name", ["din", "dssm", "wide_deep"])
def test_a_submodel_answers_and_learns_like_the_whole_model_for_the_samples_it_was_cut_for(name):
    x, y = clicks(12, seed=0)
    whole = build(task(name), seed=1)
    fit_items(whole, x, y, np.arange(12) % 3)
    rows = touched(whole, x)
    small = submodel(whole, rows)
    assert all(np.array_equal(a, b) for a, b in zip(outputs(whole, x), outputs(small, x), strict=True))
    everything, part = (TorchLearner(model, x, y) for model in (whole, small))
    slopes = everything.gradient(weights_of(whole), np.arange(12))
    for name, slope in part.gradient(weights_of(small), np.arange(12)).items():
        assert slope == pytest.approx(slopes[name][rows[name]] if name in rows else slopes[name], abs=1e-7)


@pytest.mark.parametrize("name", ["din", "dssm", "wide_deep"])
def test_click_models_decay_alike_whether_a_batch_goes_through_them_whole_or_in_pieces(name, monkeypatch):
    x, y = clicks(12, seed=0)
    model = build(task(name), seed=1)
    fit_items(model, x, y, np.arange(12) % 3)
    whole = TorchLearner(model, x, y).gradient(weights_of(model), np.arange(12))
    monkeypatch.setattr(learner, "PIECE_ROWS", 5)
    for part, slope in TorchLearner(model, x, y).gradient(weights_of(model), np.arange(12)).items():
        assert slope == pytest.approx(whole[part], abs=1e-7)


def test_a_submodel_holds_the_rows_its_samples_touch_and_what_goes_with_each():
    x = np.array([[7, 3, 0, 0, 0, 0, 0], [3, 9, 7, 0, 0, 0, 0]], np.int32)
    whole = build(task("din"))
    rows = touched(whole, x)
    assert {name: ids.tolist() for name, ids in rows.items()} == {"items.vector.weight": [0, 3, 7, 9]}
    small = submodel(whole, rows)
    assert [len(get_weights(small)[f"items.{part}"]) for part in ("vector.weight", "liking", "trust")] == [4, 4, 4]
    assert len(get_weights(whole)["items.liking"]) == ITEMS + 1


def test_a_model_without_tables_touches_none():
    assert touched(torch.nn.Linear(2, 2), np.zeros((3, 2), np.float32)) == {}


def test_a_board_with_other_rows_than_its_samples_touch_does_not_train() -> None:
    x, y = clicks(6, seed=0)
    model = build(task("din"), seed=0)
    rows, base = touched(model, x), get_weights(model)
    small = {name: array[rows[name]] if name in rows else array for name, array in weights_of(model).items()}
    made = part_learner(task("din"), base, small, rows, x, y)
    assert made.logits(small) == pytest.approx(outputs(model, x)[0], abs=1e-6)
    with pytest.raises(ValueError, match="other rows"):
        part_learner(task("din"), base, weights_of(model), rows, x, y)
    fewer = {name: ids[1:] for name, ids in rows.items()}
    with pytest.raises(OtherRows):
        part_learner(task("din"), base, small, fewer, x, y)
