"""WAV recordings -> windows of a task's rate and length (16 bit PCM, mono or stereo)."""

from __future__ import annotations

import math
import struct
import wave
from collections.abc import Sequence

import numpy as np

from edgewire.errors import InvalidSamples
from edgewire.readers.sources import Source
from edgewire.tasks import InputSchema, Task, Windows

WAVE_LIMIT_BYTES = 256 << 20
RATES_HZ = range(1000, 384_001)
_FULL_SCALE = 32768.0
_CONVERT = "convert it: ffmpeg -i IN -c:a pcm_s16le OUT.wav"
_UNREADABLE = (wave.Error, EOFError, OSError, ValueError, RuntimeError, struct.error, OverflowError, MemoryError)

_ZERO_CROSSINGS = 16  # of the resampler's kernel, on each side
_KAISER_BETA = 8.0
_ROLL_OFF = 0.95  # share of the narrower band that is kept: room for the kernel to fall to nothing
_CELLS = 1 << 20  # values at once


def read_waves(sources: Sequence[Source], task: Task, limit_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows (n, *shape) in the task's dtype, and the number of the source each came from (n,).

    A recording is cut every `hop` samples while a whole window is left; one shorter than a window is padded by silence.
    Raises InvalidSamples, which names the file.
    """
    windows = check_task(task)
    parts, rows, size = [], [], 0
    for number, source in enumerate(sources):
        part = _cut(_at_rate(source, int(windows.rate_hz)), task.input, windows.hop)
        size += part.size * np.dtype(task.input.dtype).itemsize
        if size > limit_bytes:
            raise InvalidSamples(f"the windows are more than {limit_bytes} bytes", hint="add it in smaller pieces")
        parts.append(_in_dtype(part, task.input.dtype))
        rows.append(np.full(len(part), number))
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return whole.reshape(-1, *task.input.shape), np.concatenate(rows)


def check_task(task: Task) -> Windows:
    """How the task cuts recordings. Raises InvalidSamples for one that does not take sound."""
    schema = task.input
    if not isinstance(schema.windows, Windows) or schema.shape[1:] not in ((), (1,)):
        raise InvalidSamples(f"task '{task.id}' takes samples of shape {list(schema.shape)}, no recordings of sound")
    if schema.dtype not in ("int16", "float32") or int(schema.windows.rate_hz) not in RATES_HZ:
        raise InvalidSamples(f"task '{task.id}' takes {schema.dtype} at {schema.windows.rate_hz} Hz, no sound")
    return schema.windows


def look(source: Source) -> tuple[int, int]:
    """Rate in Hz and number of frames, from the file's header."""
    with source.open(WAVE_LIMIT_BYTES) as file:
        try:
            with wave.open(file) as sound:
                return sound.getframerate(), sound.getnframes()
        except _UNREADABLE as error:
            raise _unreadable(source, error) from None


def _at_rate(source: Source, wanted_hz: int) -> np.ndarray:
    rate_hz, sound = _mono(source)
    return resample(sound, rate_hz, wanted_hz)


def _mono(source: Source) -> tuple[int, np.ndarray]:
    """Rate and float32 samples from -32768 to 32767, the mean of both channels."""
    with source.open(WAVE_LIMIT_BYTES) as file:
        size = file.seek(0, 2)
        file.seek(0)
        try:
            with wave.open(file) as sound:
                return sound.getframerate(), _samples(sound, size)
        except InvalidSamples as error:
            raise InvalidSamples(f"{source.name}: {error.message}", hint=error.hint) from None
        except _UNREADABLE as error:
            raise _unreadable(source, error) from None


def _unreadable(source: Source, error: BaseException) -> InvalidSamples:
    return InvalidSamples(f"{source.name} cannot be read as WAV: {str(error) or 'it is damaged'}", hint=_CONVERT)


def _samples(sound: wave.Wave_read, size: int) -> np.ndarray:
    channels, width, frames = sound.getnchannels(), sound.getsampwidth(), sound.getnframes()
    if width != 2 or channels not in (1, 2):
        raise InvalidSamples(f"it has {channels} channels of {8 * width} bit, expected 1 or 2 of 16", hint=_CONVERT)
    if sound.getframerate() not in RATES_HZ:
        raise InvalidSamples(f"its rate is {sound.getframerate()} Hz", hint=_CONVERT)
    if frames == 0:
        raise InvalidSamples("it holds no sound", hint="remove it")
    if frames * channels * width > size:  # before room is made for what it claims
        raise InvalidSamples("it is cut off: it holds less than its header says", hint=_CONVERT)
    mono = np.empty(frames, np.float32)
    for start in range(0, frames, _CELLS):  # in pieces: a board may have less memory than several copies take
        part = mono[start : start + _CELLS]
        values = np.frombuffer(sound.readframes(len(part)), "<i2")
        if len(values) != len(part) * channels:
            raise InvalidSamples("it is cut off: it holds less than its header says", hint=_CONVERT)
        values.reshape(-1, channels).mean(axis=1, dtype=np.float32, out=part)
    return mono


def _cut(sound: np.ndarray, schema: InputSchema, hop: int) -> np.ndarray:
    """A view (windows, samples)."""
    length = schema.shape[0]
    padded = np.pad(sound, (0, max(0, length - len(sound))))
    return np.lib.stride_tricks.sliding_window_view(padded, length)[::hop]


def _in_dtype(windows: np.ndarray, dtype: str) -> np.ndarray:
    made = np.empty(windows.shape, dtype)
    rows = max(1, _CELLS // windows.shape[1])
    for start in range(0, len(made), rows):
        some = windows[start : start + rows]
        # a resampled peak may rise above the loudest value
        made[start : start + rows] = some / _FULL_SCALE if dtype == "float32" else np.rint(some).clip(-32768, 32767)
    return made


def resample(sound: np.ndarray, rate_hz: int, wanted_hz: int) -> np.ndarray:
    """The same sound at another rate: float32 (n,) -> (ceil(n * wanted / rate),), what the lower rate cannot hold
    filtered away. Band-limited interpolation with a Kaiser-windowed sinc (J. O. Smith, "Digital audio resampling")."""
    common = math.gcd(rate_hz, wanted_hz)
    up, down = wanted_hz // common, rate_hz // common
    if up == down:
        return sound
    taps = _kernel(up, down)  # (up, 2 half)
    half = taps.shape[1] // 2
    out = np.empty(-(-len(sound) * up // down), np.float32)
    rows = max(1, _CELLS // taps.shape[1])
    for start in range(0, len(out), rows):
        position = np.arange(start, min(start + rows, len(out))) * down
        # tap k of an output lies at input sample position // up + k - half + 1
        nearest = position // up
        around = _silent_outside(sound, nearest[0] - half + 1, nearest[-1] + half + 1)
        cells = (nearest - nearest[0])[:, None] + np.arange(2 * half)
        out[start : start + rows] = np.einsum("ij,ij->i", around[cells], taps[position % up])
    return out


def _silent_outside(sound: np.ndarray, start: int, stop: int) -> np.ndarray:
    """sound[start:stop], zeros where there is none."""
    return np.pad(sound[max(0, start) : max(0, stop)], (max(0, -start), max(0, stop - max(start, len(sound)))))


def _kernel(up: int, down: int) -> np.ndarray:
    """For each phase p / up of an output between two inputs: its weights of the inputs around, summing to one."""
    band = _ROLL_OFF * min(1.0, up / down)
    half = math.ceil(_ZERO_CROSSINGS / band)
    distance = np.arange(1 - half, half + 1) - (np.arange(up) / up)[:, None]  # (up, 2 half), in input samples
    window = np.i0(_KAISER_BETA * np.sqrt((1.0 - np.square(distance / half)).clip(0.0)))
    taps = np.sinc(band * distance) * window
    return np.asarray(taps / taps.sum(axis=1, keepdims=True), np.float32)
