import numpy as np
import onnxruntime
import pytest
import torch

from edgelearn.examples import join, make
from edgelearn.export import export_onnx, parity, patch_onnx
from edgelearn.fit import FitSettings, Source, fit
from edgelearn.metrics import accuracy, log_losses
from edgelearn.models.build import build, fit_front, get_weights, load, outputs, set_weights
from edgewire.tasks import InputSchema, ModelSpec, Task
from tests.learn import world

TASKS = {
    "mlp": Task("t", "T", InputSchema((6,), "float32", True), ("a", "b", "c"), ModelSpec("mlp", 8, 8)),
    "cnn1d": Task("t", "T", InputSchema((20, 3), "int8"), ("a", "b", "c"), ModelSpec("cnn1d", 8, 8)),
    "cnn2d": Task("t", "T", InputSchema((8, 8), "uint8"), ("a", "b", "c"), ModelSpec("cnn2d", 8, 8)),
    "cnn2d-colour": Task("t", "T", InputSchema((16, 16, 3), "uint8"), ("a", "b", "c"), ModelSpec("cnn2d", 8, 8)),
}


def some_samples(task, n=9, seed=0):
    return np.random.default_rng(seed).integers(0, 100, (n, *task.input.shape)).astype(task.input.dtype)


@pytest.mark.parametrize("name", TASKS)
def test_onnx_answers_like_torch_after_weights_were_patched_in(name):
    task = TASKS[name]
    exported = export_onnx(task, get_weights(build(task, seed=1)))
    other = build(task, seed=2)
    x = some_samples(task)
    fit_front(other, x)
    patched = patch_onnx(exported, get_weights(other))
    if task.input.missing:
        x[0, 0] = np.nan
    found = onnxruntime.InferenceSession(patched).run(["logits", "embedding"], {"x": x})
    for expected, got in zip(outputs(other, x), found, strict=True):
        assert parity(expected, got) < 1e-5


def test_a_weight_without_its_initializer_is_refused():
    task = TASKS["mlp"]
    weights = get_weights(build(task))
    exported = export_onnx(task, weights)
    with pytest.raises(ValueError, match="no initializer"):
        patch_onnx(exported, {**weights, "extra": np.zeros(3, np.float32)})
    with pytest.raises(ValueError, match="no initializer"):
        patch_onnx(exported, {**weights, "head.bias": np.zeros(99, np.float32)})


@pytest.mark.parametrize("spoil", ["missing", "shape", "nan"])
def test_weights_that_do_not_fit_are_refused(spoil):
    model = build(world.TASK)
    weights = get_weights(model)
    if spoil == "missing":
        del weights["head.bias"]
    elif spoil == "shape":
        weights["head.bias"] = np.zeros(99, np.float32)
    else:
        weights["head.bias"][0] = np.nan
    with pytest.raises(ValueError, match="weight"):
        set_weights(model, weights)


def add_noise(x, generator):
    return x + torch.randn(x.shape, generator=generator)


@pytest.mark.parametrize("augment", [None, add_noise])
def test_a_run_resumed_from_its_state_ends_with_the_same_bits(augment):
    source = Source(make(*world.samples(world.style(1, 1.0), 5, 1)), augment=augment)
    settings = FitSettings(steps=12, batch_size=8)
    whole = load(world.TASK, world.base())
    assert len(list(fit(whole, source, settings, seed=3))) == 12
    first = load(world.TASK, world.base())
    state = next(step.state() for step in fit(first, source, settings, seed=3) if step.number == 5)
    second = load(world.TASK, world.base())
    assert [step.number for step in fit(second, source, settings, seed=3, state=state)] == list(range(6, 13))
    expected, found = get_weights(whole), get_weights(second)
    assert all(np.array_equal(expected[name], found[name]) for name in expected)


def test_every_step_augments_by_the_seed_and_its_own_number():
    drawn = []

    def note(x, generator):
        drawn.append(torch.rand(1, generator=generator).item())
        return x

    source = Source(make(*world.samples(world.style(1, 1.0), 5, 1)), augment=note)
    for seed in (3, 3, 4):
        assert len(list(fit(build(world.TASK), source, FitSettings(steps=3, batch_size=8), seed=seed))) == 3
    assert drawn[:3] == drawn[3:6]
    assert len(set(drawn)) == 6


def test_local_samples_keep_their_share_of_every_batch():
    from edgelearn.fit import _Run

    local, outside = make(*world.samples(world.style(1, 1.0), 2, 1)), make(*world.samples(world.style(2, 1.0), 50, 2))
    run = _Run(build(world.TASK), Source(local, outside), FitSettings(steps=1, batch_size=20, local_mass=0.7), 0)
    for number in range(1, 6):
        assert int((run._draw(number) < len(local)).sum()) == 14


def test_training_on_nothing_is_an_error_not_a_quiet_zero():
    empty = make(np.zeros((0, world.FEATURES), np.float32), np.zeros(0, np.int64))
    with pytest.raises(ValueError, match="nothing to train on"):
        next(fit(build(world.TASK), Source(empty), FitSettings(steps=1), seed=0))
    with pytest.raises(ValueError, match="no samples"):
        accuracy(np.zeros((0, 4)), np.zeros(0, np.int64))


def test_the_front_scales_by_the_pool_and_reads_missing_values_as_the_mean():
    task = TASKS["mlp"]
    model = build(task)
    x = np.array([[0, 2, 4, 6, 8, 5], [2, 4, 6, 8, np.nan, 5]], np.float32)
    fit_front(model, x)
    weights = get_weights(model)
    assert weights["front.mean"].tolist() == [1, 3, 5, 7, 8, 5]
    assert weights["front.std"].tolist() == [1, 1, 1, 1, 1, 1]  # one without spread: nothing to divide by
    with_gap, with_mean = x[1:].copy(), x[1:].copy()
    with_mean[0, 4] = 8
    assert np.array_equal(outputs(model, with_gap)[0], outputs(model, with_mean)[0])


def test_log_loss_of_a_blind_guess_is_the_logarithm_of_the_number_of_classes():
    assert log_losses(np.zeros((2, 4)), np.array([0, 3])) == pytest.approx([np.log(4)] * 2)


def test_joined_examples_keep_recordings_of_different_parts_apart():
    one = make(np.zeros((2, 1), np.float32), np.zeros(2, np.int64), np.array([0, 0]))
    assert join([one, one]).group.tolist() == [0, 0, 1, 1]
