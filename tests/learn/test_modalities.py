"""Models of images and sounds: built from a task, trained for a few steps, exported, and heard the same everywhere."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

from edgelearn.examples import make
from edgelearn.export import export_onnx, parity, patch_onnx
from edgelearn.fit import FitSettings, Source, fit
from edgelearn.models.audio import MELS, LogMel, dft_kernels, mel_filters
from edgelearn.models.build import build, fit_front, get_weights, outputs
from edgewire.tasks import LENET5_EMBEDDING, InputSchema, ModelSpec, Task, Windows

LABELS = ("a", "b", "c")
RATE = 8000
LENET5 = ModelSpec("lenet5", embedding=LENET5_EMBEDDING)
AUDIO = ModelSpec("audio", width=8, embedding=16)


def wave_task(dtype: str = "int16", shape: tuple[int, ...] = (RATE // 4,), rate_hz: float = RATE) -> Task:
    return Task("t", "T", InputSchema(shape, dtype, windows=Windows(rate_hz, 1000)), LABELS, AUDIO)  # type: ignore[arg-type]


TASKS = {
    "lenet5": Task("t", "T", InputSchema((28, 28), "uint8"), LABELS, LENET5),
    "lenet5-colour": Task("t", "T", InputSchema((13, 30, 3), "uint8"), LABELS, LENET5),
    "audio-int16": wave_task(),
    "audio-float32": wave_task("float32", (RATE // 4, 1)),
    "audio-22050": wave_task(shape=(2205,), rate_hz=22050.0),
}


def some_samples(task: Task, n: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Samples whose class is plain: a pitch, or where an image is bright."""
    rng, y = np.random.default_rng(0), np.arange(n) % 3
    if task.model.name == "lenet5":
        x = rng.integers(0, 50, (n, *task.input.shape))
        for i, label in enumerate(y):
            x[i, 4 * label : 4 * label + 4] += 150
        return x.astype(np.uint8), y
    time = np.arange(task.input.shape[0]) / RATE
    waves = 0.4 * np.sin(2 * np.pi * np.outer(300.0 * (y + 1), time)) + rng.normal(0, 0.02, (n, len(time)))
    waves = waves.reshape(n, *task.input.shape)
    return (waves * 32768).astype(np.int16) if task.input.dtype == "int16" else waves.astype(np.float32), y


@pytest.mark.parametrize("name", TASKS)
def test_a_model_learns_and_its_onnx_file_answers_like_torch(name: str) -> None:
    task = TASKS[name]
    assert task.problems() == []
    x, y = some_samples(task)
    model = build(task, seed=1)
    exported = export_onnx(task, get_weights(model))
    fit_front(model, x)
    losses = [step.loss for step in fit(model, Source(make(x, y)), FitSettings(30, learning_rate=3e-3), seed=0)]
    assert losses[-1] < losses[0] / 2
    patched = patch_onnx(exported, get_weights(model))
    found = onnxruntime.InferenceSession(patched).run(["logits", "embedding"], {"x": x})
    for expected, got in zip(outputs(model, x), found, strict=True):
        assert parity(expected, got) < 1e-4
    assert found[1].shape == (len(x), task.model.embedding)
    assert (found[0].argmax(axis=1) == y).all()


def test_lenet5_has_the_classic_sizes() -> None:
    sizes = {name: array.shape for name, array in get_weights(build(TASKS["lenet5"])).items() if "weight" in name}
    assert sizes == {
        "c1.weight": (6, 1, 5, 5),
        "c3.weight": (16, 6, 5, 5),
        "c5.weight": (120, 400),
        "f6.weight": (84, 120),
        "head.weight": (3, 84),
    }


def test_the_kernels_of_the_spectrum_are_the_discrete_fourier_transform() -> None:
    frame, wave = 200, np.random.default_rng(0).normal(0, 0.1, 2000)
    hann = np.hanning(frame + 1)[:-1]
    frames = np.lib.stride_tricks.sliding_window_view(wave, frame)[::80]
    power = np.abs(np.fft.rfft(frames * hann)) ** 2 / np.square(hann).sum()
    expected = np.log(power @ mel_filters(RATE, frame).T + 1e-6).T
    spectrum = LogMel(RATE, full_scale=1.0)
    found = spectrum(torch.from_numpy(wave.astype(np.float32)).unsqueeze(0)).numpy()[0]
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-3
    assert dft_kernels(frame).shape == (202, 200)


@pytest.mark.parametrize("rate_hz", [4000, 8000, 11025, 16000, 44100, 48000])
def test_every_mel_filter_hears_something_and_a_higher_pitch_than_the_one_before(rate_hz: int) -> None:
    frame = round(0.025 * rate_hz)
    filters = mel_filters(rate_hz, frame)
    assert filters.shape == (MELS, frame // 2 + 1)
    assert np.allclose(filters.sum(axis=1), 1.0)
    centres = filters @ np.arange(frame // 2 + 1)
    assert (np.diff(centres) >= 0).all()


def test_int16_and_float32_waves_of_the_same_sound_give_the_same_answer() -> None:
    whole, real = build(wave_task("int16"), seed=3), build(wave_task("float32"), seed=3)
    x, _ = some_samples(wave_task("int16"))
    assert np.allclose(outputs(whole, x)[0], outputs(real, (x / 32768).astype(np.float32))[0], atol=1e-5)


def test_the_fixed_kernels_are_no_weights() -> None:
    weights = get_weights(build(wave_task()))
    assert not [name for name in weights if name.startswith("spectrum")]
    assert weights["front.mean"].shape == (MELS, 1)


def test_silence_has_an_answer() -> None:
    task = wave_task()
    model = build(task)
    x = np.zeros((2, *task.input.shape), np.int16)
    fit_front(model, x)
    assert np.isfinite(outputs(model, x)[0]).all()
