"""Sound: a log-mel spectrogram computed inside the model, then three convolutions with group norm.

The spectrogram is part of the graph (a strided convolution with windowed DFT kernels, a mel matrix, a logarithm), so
that board, cloud and the exported ONNX file hear the same. Its kernels follow from the task and are no weights: they
are in the ONNX file, but in no weights file, checkpoint or update.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgelearn.models.front import Front
from edgewire.tasks import Task, Windows

FRAME_S, STEP_S = 0.025, 0.010
MELS = 40
LOWEST_HZ = 20.0
_QUIET = 1e-6  # added to the power before its logarithm: digital silence is not minus infinity


class Audio(nn.Module):
    def __init__(self, task: Task) -> None:
        super().__init__()
        width, embedding = task.model.width, task.model.embedding
        self.spectrum = LogMel(_rate(task), full_scale=32768.0 if task.input.dtype == "int16" else 1.0)
        self.front = Front((MELS, 1), missing=False)
        self.conv1 = nn.Conv2d(1, width, kernel_size=3, padding=1, stride=2)
        self.norm1 = nn.GroupNorm(4, width)
        self.conv2 = nn.Conv2d(width, 2 * width, kernel_size=3, padding=1, stride=2)
        self.norm2 = nn.GroupNorm(4, 2 * width)
        self.conv3 = nn.Conv2d(2 * width, 2 * width, kernel_size=3, padding=1, stride=2)
        self.norm3 = nn.GroupNorm(4, 2 * width)
        self.embedding = nn.Linear(4 * width * (MELS // 8), embedding)
        self.head = nn.Linear(embedding, len(task.labels))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.front(self.spectrum(x)).unsqueeze(1)  # (batch, 1, mels, frames)
        hidden = self.norm1(self.conv1(hidden)).relu()
        hidden = self.norm2(self.conv2(hidden)).relu()
        hidden = self.norm3(self.conv3(hidden)).relu()  # (batch, 2 width, mels / 8, frames / 8)
        pooled = torch.cat([hidden.mean(dim=3), hidden.amax(dim=3)], dim=1)  # (batch, 4 width, mels / 8)
        embedding = self.embedding(torch.flatten(pooled, 1)).relu()  # (batch, embedding)
        return self.head(embedding), embedding  # (batch, classes), (batch, embedding)


class LogMel(nn.Module):
    """Waves (batch, samples[, 1]) -> log-mel spectrograms (batch, MELS, frames), Hann windows of 25 ms each 10 ms.

    full_scale: the value that stands for the loudest possible sound.
    """

    kernels: Tensor
    mel: Tensor

    def __init__(self, rate_hz: int, *, full_scale: float) -> None:
        super().__init__()
        frame = round(FRAME_S * rate_hz)
        self.step = round(STEP_S * rate_hz)
        self.full_scale = full_scale
        kernels = torch.from_numpy(dft_kernels(frame).astype(np.float32))
        mel = torch.from_numpy(mel_filters(rate_hz, frame).astype(np.float32))
        self.register_buffer("kernels", kernels.unsqueeze(1), persistent=False)
        self.register_buffer("mel", mel, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        wave = torch.flatten(x, 1).to(torch.float32).unsqueeze(1) / self.full_scale  # (batch, 1, samples)
        parts = F.conv1d(wave, self.kernels, stride=self.step)  # (batch, 2 bins, frames)
        real, imaginary = parts.chunk(2, dim=1)
        power = real.square() + imaginary.square()  # (batch, bins, frames)
        return (torch.matmul(self.mel, power) + _QUIET).log()  # (batch, mels, frames)


def dft_kernels(frame: int) -> np.ndarray:
    """Real parts, then imaginary parts, of a discrete Fourier transform under a Hann window: (2 bins, frame)."""
    time = np.arange(frame)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * time / frame)
    angles = 2 * np.pi * np.outer(np.arange(frame // 2 + 1), time) / frame
    return np.asarray(np.concatenate([np.cos(angles), -np.sin(angles)]) * hann / np.sqrt(np.square(hann).sum()))


def mel_filters(rate_hz: int, frame: int) -> np.ndarray:
    """Triangles that are evenly spaced on the mel scale of O'Shaughnessy (2595 log10(1 + f / 700)): (MELS, bins).

    Each sums to one. One that is narrower than the distance of two bins takes the nearest bin.
    """
    edges = _hertz(np.linspace(_mels(LOWEST_HZ), _mels(rate_hz / 2), MELS + 2))
    bins = np.arange(frame // 2 + 1) * rate_hz / frame
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    filters = np.minimum(rising, falling).clip(0.0)
    narrow = filters.sum(axis=1) == 0
    filters[narrow, np.abs(bins - edges[1:-1, None]).argmin(axis=1)[narrow]] = 1.0
    return np.asarray(filters / filters.sum(axis=1, keepdims=True))


def _mels(hertz: float) -> float:
    return float(2595.0 * np.log10(1.0 + hertz / 700.0))


def _hertz(mels: np.ndarray) -> np.ndarray:
    return np.asarray(700.0 * (10.0 ** (mels / 2595.0) - 1.0))


def _rate(task: Task) -> int:
    if not isinstance(task.input.windows, Windows):
        raise ValueError("model 'audio' needs input.windows")
    return int(task.input.windows.rate_hz)
