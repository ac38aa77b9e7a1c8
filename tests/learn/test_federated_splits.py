"""How samples are dealt to simulated boards, and what a board of torch makes of its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgelearn.crowd import Crowd
from edgelearn.federated import splits
from edgelearn.federated.algorithm import LocalSettings
from edgelearn.federated.local import local_sgd
from edgelearn.federated.splits import Part
from edgelearn.learner import PIECE_ROWS, TorchLearner, bind, trained, weights_of

Y = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 60))
OWNER = np.arange(600) // 7


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


SPLITS = {
    "iid": lambda r: splits.iid(600, 20, r),
    "shards": lambda r: splits.shards(Y, 20, r),
    "dirichlet": lambda r: splits.dirichlet(Y, 20, r, alpha=0.1),
    "user": lambda r: splits.by_owner(OWNER, 20, r),
    "quantity": lambda r: splits.quantity(600, 20, r, spread=2.0),
    "feature": lambda r: splits.feature(600, 20, r, strength=0.3, scale=50.0),
    "concept": lambda r: splits.concept(600, 20, r, classes=10),
}


@pytest.mark.parametrize("name", SPLITS)
def test_every_sample_is_dealt_once_and_nobody_goes_without(name: str):
    parts = SPLITS[name](rng())
    assert sorted(np.concatenate([part.rows for part in parts]).tolist()) == list(range(600))
    assert len(parts) == 20
    assert min(len(part.rows) for part in parts) >= 1


@pytest.mark.parametrize("name", SPLITS)
def test_the_same_seed_deals_the_same_and_another_does_not(name: str):
    def dealt(seed: int) -> list[tuple[list[int], float, bool]]:
        return [(part.rows.tolist(), part.gain, part.relabel is None) for part in SPLITS[name](rng(seed))]

    assert dealt(1) == dealt(1)
    assert dealt(1) != dealt(2)


def test_sixty_thousand_samples_of_a_hundred_boards_are_two_shards_of_300_each():
    parts = splits.shards(np.repeat(np.arange(10), 6000), 100, rng())
    assert {len(part.rows) for part in parts} == {600}
    assert all(len(np.unique(part.rows // 300)) == 2 for part in parts)


def test_sorted_shards_leave_a_board_with_few_labels():
    assert max(len(np.unique(Y[part.rows])) for part in SPLITS["shards"](rng())) <= 4


def test_a_small_alpha_makes_boards_of_few_labels_and_a_large_one_of_all():
    def labels(alpha: float) -> float:
        return float(np.mean([len(np.unique(Y[p.rows])) for p in splits.dirichlet(Y, 10, rng(), alpha=alpha)]))

    assert labels(0.05) < 4
    assert labels(100.0) > 9


def test_nobodys_samples_lie_on_two_boards():
    owners = [set(OWNER[part.rows].tolist()) for part in SPLITS["user"](rng())]
    assert sum(map(len, owners)) == len(set(OWNER.tolist()))


def test_quantity_skew_leaves_labels_alone_and_sizes_far_apart():
    sizes = [len(part.rows) for part in SPLITS["quantity"](rng())]
    assert max(sizes) > 20 * min(sizes)


def test_feature_skew_changes_values_within_their_dtype_and_no_labels():
    x = np.full((600, 2), 200, np.uint8)
    seen = [part.samples(x, Y) for part in SPLITS["feature"](rng())]
    assert len({int(values[0, 0]) for values, _ in seen}) > 10
    assert all(values.dtype == np.uint8 for values, _ in seen)
    assert Part(np.array([0]), gain=2.0).samples(x, Y)[0].tolist() == [[255, 255]]


def test_concept_shift_swaps_labels_in_pairs_on_half_of_the_boards():
    parts = splits.concept(600, 20, rng(), classes=5)
    swapped = [part.relabel.tolist() for part in parts if part.relabel is not None]
    assert swapped == [[1, 0, 3, 2, 4]] * 10
    shifted = next(part for part in parts if part.relabel is not None)
    assert shifted.samples(Y, Y % 5)[1].tolist() == (np.array([1, 0, 3, 2, 4])[Y[shifted.rows] % 5]).tolist()


def test_more_boards_than_samples_or_users_are_an_error():
    with pytest.raises(ValueError, match="fewer boards"):
        splits.iid(5, 6, rng())
    with pytest.raises(ValueError, match="3 users cannot be 4 boards"):
        splits.by_owner(np.array([1, 1, 2, 3]), 4, rng())


class Linear(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(2, 2)
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.head(x * self.scale), x


X = np.random.default_rng(3).normal(size=(12, 2)).astype(np.float32)
LABELS = (X[:, 0] > 0).astype(np.int64)


def test_gradients_are_torchs_own_and_buffers_are_not_trained():
    model = Linear()
    weights = weights_of(model)
    assert sorted(weights) == ["head.bias", "head.weight"]
    found = TorchLearner(model, X, LABELS).gradient(weights, np.arange(5))
    torch.nn.functional.cross_entropy(model(torch.from_numpy(X[:5]))[0], torch.from_numpy(LABELS[:5])).backward()
    assert np.allclose(found["head.weight"], model.head.weight.grad.numpy())


def test_a_batch_of_all_samples_goes_through_the_model_in_pieces_to_the_same_gradient():
    model, seen = Linear(), list[int]()
    weights = weights_of(model)
    x = rng(4).normal(size=(2 * PIECE_ROWS + 100, 2)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64)
    model.register_forward_pre_hook(lambda _, asked: seen.append(len(asked[0])))
    found = TorchLearner(model, x, y).gradient(weights, np.arange(len(x)))
    assert seen == [PIECE_ROWS, PIECE_ROWS, 100]
    torch.nn.functional.cross_entropy(model(torch.from_numpy(x))[0], torch.from_numpy(y)).backward()
    assert np.allclose(found["head.weight"], model.head.weight.grad.numpy(), atol=1e-6)
    assert np.allclose(found["head.bias"], model.head.bias.grad.numpy(), atol=1e-6)


def test_boards_may_share_a_model_and_leave_the_global_weights_alone():
    model = Linear()
    start = weights_of(model)
    before = start["head.weight"].copy()
    one, other = TorchLearner(model, X[:6], LABELS[:6]), TorchLearner(model, X[6:], LABELS[6:])
    first, _ = local_sgd(one, start, LocalSettings(2, 2, 0.5), rng())
    local_sgd(other, start, LocalSettings(2, 2, 0.5), rng())
    again, _ = local_sgd(one, start, LocalSettings(2, 2, 0.5), rng())
    assert first["head.weight"].tobytes() == again["head.weight"].tobytes()
    assert start["head.weight"].tobytes() == before.tobytes()


def test_a_crowd_scores_weights_and_values_them_by_what_the_server_has():
    model = Linear()
    perfect = {"head.weight": np.float32([[-9, 0], [9, 0]]), "head.bias": np.zeros(2, np.float32)}
    crowd = Crowd(model, X, LABELS, splits.iid(12, 3, rng()), (X, LABELS), trusted=(X, LABELS))
    assert crowd.score(crowd.logits(perfect)) == 1.0
    assert crowd.value(perfect) > crowd.value({name: -array for name, array in perfect.items()})
    assert crowd.learner("board-1").num_samples == crowd.samples("board-1") == 4
    with pytest.raises(ValueError, match="no samples of its own"):
        Crowd(model, X, LABELS, splits.iid(12, 3, rng()), (X, LABELS)).value(perfect)


@pytest.mark.parametrize("of", [1, 2, 3])
def test_parts_of_a_crowds_test_are_the_bits_of_the_whole(of):
    test = np.random.default_rng(1).normal(size=(1300, 2)).astype(np.float32)
    crowd = Crowd(Linear(), X, LABELS, splits.iid(12, 3, rng()), (test, np.zeros(1300, np.int64)))
    assert crowd.test_batches == 3
    parts = [crowd.logits(crowd.weights(), part, of) for part in range(of)]
    whole = crowd.logits(crowd.weights())
    assert whole.shape == (1300, 2)
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_bound_parameters_share_the_memory_of_arrays():
    model, weights = Linear(), {"head.bias": np.zeros(2, np.float32)}
    bind({"head.bias": trained(model)["head.bias"]}, weights)
    weights["head.bias"][0] = 7
    assert model.head.bias.tolist() == [7, 0]
