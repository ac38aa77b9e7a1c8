"""Click models: what they learn, what a board trains of them, and that boards and torch agree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from edgelearn.examples import make
from edgelearn.export import export_onnx, parity, patch_onnx
from edgelearn.fit import FitSettings, Source, fit
from edgelearn.metrics import score
from edgelearn.models.build import build, fit_items, get_weights, load, outputs, personal_parameters
from edgelearn.models.items import Table
from edgelearn.pretrain import train_base
from edgewire import samples as columns
from edgewire.errors import InvalidSamples
from edgewire.readers import read
from edgewire.tasks import InputSchema, ModelName, ModelSpec, Task

ITEMS, LENGTH = 40, 6
MODELS: tuple[ModelName, ...] = ("din", "dssm", "wide_deep")


def task(name: ModelName = "din") -> Task:
    schema = InputSchema((1 + LENGTH,), "int32", items=ITEMS)
    return Task("clicks", "Clicks", schema, ("no", "yes"), ModelSpec(name, 16, 8), "auc")


def clicks(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Everybody likes what is of the same half of the items as what they liked before. x (n, 1 + LENGTH), y (n,)."""
    rng = np.random.default_rng(seed)
    taste = rng.integers(0, 2, n)
    history = 1 + rng.integers(0, ITEMS // 2, (n, LENGTH)) + taste[:, None] * (ITEMS // 2)
    history[np.arange(LENGTH) >= rng.integers(1, LENGTH + 1, n)[:, None]] = 0
    candidate = 1 + rng.integers(0, ITEMS, n)
    likes = ((candidate > ITEMS // 2) == taste) ^ (rng.random(n) < 0.1)
    return np.column_stack([candidate, history]).astype(np.int32), likes.astype(np.int64)


@pytest.mark.parametrize("name", MODELS)
def test_onnx_answers_like_torch_after_weights_were_patched_in(name: ModelName) -> None:
    patched = patch_onnx(export_onnx(task(name), get_weights(build(task(name), seed=1))), _trained(name, 5))
    x, _ = clicks(7, 0)
    found = onnxruntime.InferenceSession(patched).run(["logits", "embedding"], {"x": x})
    for expected, got in zip(outputs(load(task(name), _trained(name, 5)), x), found, strict=True):
        assert parity(expected, got) < 1e-5


def _trained(name: ModelName, steps: int) -> dict[str, np.ndarray]:
    model = build(task(name), seed=3)
    settings = FitSettings(steps, batch_size=64, learning_rate=1e-2)
    for _ in fit(model, Source(make(*clicks(3000, 1))), settings, seed=0):
        pass
    return get_weights(model)


@pytest.mark.parametrize("name", MODELS)
def test_a_taste_that_only_the_history_tells_is_learned(name: ModelName) -> None:
    x, y = clicks(400, 2)
    logits, embedding = outputs(load(task(name), _trained(name, 300)), x)
    assert embedding.shape == (400, 8)
    assert score("auc", logits, y) > 0.8
    blind = x.copy()
    blind[:, 1:] = 0
    assert score("auc", outputs(load(task(name), _trained(name, 300)), blind)[0], y) < 0.6


@pytest.mark.parametrize("name", MODELS)
def test_where_a_history_is_empty_does_not_matter(name: ModelName) -> None:
    weights = _trained(name, 5)
    x, _ = clicks(5, 3)
    x[:, 3:] = 0
    gap = x.copy()
    gap[:, [2, 4]] = gap[:, [4, 2]]
    assert np.allclose(outputs(load(task(name), weights), x)[0], outputs(load(task(name), weights), gap)[0], atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_a_board_trains_the_head_only_and_resumes_to_the_same_bits(name: ModelName) -> None:
    base = _trained(name, 5)
    source, settings = Source(make(*clicks(30, 4))), FitSettings(steps=6, batch_size=8)
    model = load(task(name), base)
    state = {step.number: step.state() for step in fit(model, source, settings, seed=0)}[3]
    found = get_weights(model)
    changed = {name for name, array in found.items() if not np.array_equal(array, base[name])}
    assert changed == personal_parameters(model).keys() == {"head.weight", "head.bias"}
    assert {key for key in state if key.startswith("mean.")} == {"mean.head.weight", "mean.head.bias"}
    again = load(task(name), base)
    for _ in fit(again, source, settings, seed=0, state=state):
        pass
    assert all(np.array_equal(found[key], array) for key, array in get_weights(again).items())


def test_a_row_of_a_table_decays_when_it_is_touched_and_only_then() -> None:
    table = Table(3, 2, spread=1.0, decay=0.5)
    rows = table(torch.tensor([1, 1, 2]))
    (rows.sum() * 0).backward()
    # the gradient of decay / 2 * mean over the batch of |row|^2, where row 1 is there twice
    expected = torch.stack([torch.zeros(2), table.weight[1] * 0.5 * 2 / 3, table.weight[2] * 0.5 / 3])
    assert torch.allclose(table.weight.grad, expected)
    table.eval()
    assert torch.equal(table(torch.tensor([1])), table.weight[1:2])


def test_liking_counts_against_the_contributors_own_rate_and_is_shrunk() -> None:
    model = build(task())
    candidate, y = np.asarray([1, 2, 1, 2, 1]), np.asarray([1, 0, 1, 1, 0])
    fit_items(model, candidate[:, None], y, np.asarray([7, 7, 9, 9, 9]))
    weights = get_weights(model)
    # rates: (1 + 5 * 0.6) / 7 = 4/7 and (2 + 3) / 8 = 5/8; item 1 has three labels: (1 - 4/7) + (1 - 5/8) + (0 - 5/8)
    assert weights["items.liking"][1, 0] == pytest.approx(4 * ((3 / 7) + (3 / 8) - (5 / 8)) / 13, rel=1e-5)
    assert weights["items.liking"][2, 0] == pytest.approx(4 * ((-4 / 7) + (3 / 8)) / 12, rel=1e-5)
    assert weights["items.trust"][[0, 1, 2, 3], 0] == pytest.approx([0, 3 / 103, 2 / 102, 0])


def test_what_training_explained_already_is_not_said_of_the_item_again() -> None:
    model = build(task("dssm"))
    x = np.asarray([[1, 0], [1, 0], [2, 0]], np.int32)
    liking = model.get_submodule("items").get_buffer("liking")
    with torch.no_grad():
        model.get_submodule("head").weight.zero_()
        liking[1], liking[2] = 30.0, 30.0  # both are certain to be liked
    fit_items(model, x, np.asarray([1, 1, 0]), np.asarray([0, 0, 1]), trained=True)
    assert liking[1, 0] == pytest.approx(30.0)
    # the news is -1, of which its contributor, with one sample, explains a sixth
    assert liking[2, 0] == pytest.approx(30.0 - 4 * (5 / 6) / 11, rel=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_what_everybody_likes_is_known_after_one_pass(name: ModelName) -> None:
    x, y = clicks(2000, 7)
    y = (x[:, 0] % 2).astype(np.int64)
    weights = train_base(task(name), x, y, np.arange(2000) % 20, seed=0, epochs=1)
    assert score("auc", outputs(load(task(name), weights), x)[0], y) > 0.95


def test_an_npz_of_ids_is_read_and_an_id_outside_the_vocabulary_is_named(tmp_path: Path) -> None:
    x, y = clicks(6, 5)
    np.savez(tmp_path / "a.npz", x=x.astype(np.int64), y=np.asarray(["no", "yes"])[y])
    found = read(tmp_path / "a.npz", task())
    assert found.x.dtype == np.int32
    assert np.array_equal(found.x, x)
    assert found.y.tolist() == y.tolist()
    data = columns.to_bytes(found, "clicks")
    assert np.array_equal(columns.from_bytes(data, task(), what="pack", limit_bytes=1 << 20).x, x)


@pytest.mark.parametrize(
    ("place", "item", "says"),
    [
        ((4, 0), ITEMS + 1, "row 4 has the candidate item 41, the task knows 1 to 40"),
        ((2, 0), 0, "row 2 has the candidate item 0"),
        ((3, 2), -1, "row 3 has the history item -1"),
        ((3, LENGTH), 1 << 30, "row 3 has the history item 1073741824"),
    ],
)
def test_an_item_that_the_task_does_not_know_is_refused(place: tuple[int, int], item: int, says: str) -> None:
    x, y = clicks(6, 6)
    x[place] = item
    with pytest.raises(InvalidSamples, match=says):
        columns.check(columns.make(x, y), task(), labelled=True)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"input": InputSchema((7,), "int32")}, "input.items"),
        ({"input": InputSchema((7,), "float32", items=9)}, "int32"),
        ({"model": ModelSpec("mlp")}, "no other: 'mlp'"),
        ({"input": InputSchema((1,), "int32", items=9)}, "history"),
        ({"input": InputSchema((2, 2), "int32", items=9)}, "cannot take samples of shape"),
        ({"labels": ("a", "b", "c")}, "two labels"),
    ],
)
def test_a_click_task_that_cannot_be_is_a_problem(change: dict, problem: str) -> None:
    assert task().problems() == []
    assert any(problem in found for found in replace(task(), **change).problems())
