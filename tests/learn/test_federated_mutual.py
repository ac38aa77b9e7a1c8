"""A small and a large model that learn from each other: steps by hand, torch's own numbers, and what each gains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edgelearn.federated.algorithm import Update
from edgelearn.federated.example import Opinion
from edgelearn.federated.fedavg import FedAvg
from edgelearn.federated.mutual import Classroom, FedMutual, large_of
from edgelearn.learner import TorchLearner, weights_of
from edgelearn.models.build import build
from tests.cloud import toys

RNG = np.random.default_rng


def one_sample() -> Classroom:
    """Of class 0; the large model takes it for that with 3 of 4."""
    return Classroom(Opinion(), Opinion(), np.array([0]), {"w": np.log(np.float32([3, 1]))})


def mutual(room: Classroom, **options: float) -> FedMutual:
    return FedMutual(classroom=lambda: room, rng=RNG, **options)


def nothing(name: str = "w", size: int = 2) -> Update:
    return Update("one", 0, 1, 1, {name: np.zeros(size, np.float32)})


def test_the_large_model_hears_what_the_small_one_thinks_after_its_own_step():
    algorithm = mutual(one_sample(), lesson_rate=1.0)
    after = algorithm.server_update(algorithm.start({"w": np.zeros(2, np.float32)}), [nothing()])
    small = 1 / (1 + np.exp(-1.5))  # of logits 0.75 and -0.75
    moved = 2 * ((1 + small) / 2 - 0.75)
    assert large_of(after)["w"] == pytest.approx([np.log(3) + moved, -moved], abs=1e-6)
    assert after.round == 1


@pytest.mark.parametrize(("trust", "moved"), [(0.0, 0.5), (2.0, 1.0)])
def test_trust_says_how_much_an_opinion_counts_beside_a_label(trust, moved):
    algorithm = mutual(one_sample(), lesson_rate=1.0, trust=trust)
    after = algorithm.server_update(algorithm.start({"w": np.zeros(2, np.float32)}), [nothing()])
    assert after.weights["w"] == pytest.approx([moved, -moved])


def test_without_lessons_it_is_fedavg():
    algorithm = mutual(one_sample(), passes=0, server_rate=0.5)
    start, update = algorithm.start({"w": np.zeros(2, np.float32)}), replace(nothing(), delta={"w": np.float32([2, 4])})
    after = algorithm.server_update(start, [update])
    assert after.weights["w"].tolist() == FedAvg(server_rate=0.5).server_update(start, [update]).weights["w"].tolist()
    assert large_of(after)["w"].tolist() == large_of(start)["w"].tolist()


@pytest.mark.parametrize(
    ("option", "why"), [({"batch_size": 0}, "at least one sample"), ({"trust": -1.0}, "from 0 up")]
)
def test_what_no_lesson_can_be_made_of_is_refused(option, why):
    with pytest.raises(ValueError, match=why):
        mutual(one_sample(), **option)


def test_a_step_of_a_torch_model_is_that_of_the_papers_loss():
    data = toys.people(count=2)
    x, y = data["x"], np.searchsorted(sorted(set(data["y"].tolist())), data["y"]).astype(np.int64)
    models = [build(replace(toys.TASK, model=replace(toys.TASK.model, width=width)), seed=width) for width in (8, 16)]
    expected = [model.state_dict() for model in models]
    own, other = (model(torch.from_numpy(x))[0] for model in models)
    loss = F.cross_entropy(own, torch.from_numpy(y))
    loss = loss + F.kl_div(F.log_softmax(own, 1), F.softmax(other.detach(), 1), reduction="batchmean")
    slopes = torch.autograd.grad(loss, list(models[0].parameters()))
    expected = {
        name: (before - 0.1 * slope).detach().numpy()
        for (name, before), slope in zip(models[0].named_parameters(), slopes, strict=True)
    }
    start, large = (weights_of(model) for model in models)
    room = Classroom(*(TorchLearner(model, x, y) for model in models), y, large)
    algorithm = mutual(room, batch_size=len(y), lesson_rate=0.1)
    update = Update("one", 0, 1, 1, {name: np.zeros_like(array) for name, array in start.items()})
    after = algorithm.server_update(algorithm.start(start), [update])
    for name, array in expected.items():
        assert after.weights[name] == pytest.approx(array, abs=1e-6)
    assert any((large_of(after)[name] != array).any() for name, array in large.items())
