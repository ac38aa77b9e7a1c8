"""Recordings: WAV files and sensors' time series, cut into windows."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgewire.errors import InvalidSamples
from edgewire.readers import draft_task, read
from edgewire.readers.waves import resample
from edgewire.tasks import InputSchema, ModelSpec, Task, Windows

RATE = 4000
WORDS = Task(
    "words", "Words", InputSchema((400,), "int16", windows=Windows(RATE, 200)), ("no", "yes"), ModelSpec("audio")
)
MOVES = Task("moves", "Moves", InputSchema((4, 2), windows=Windows(10.0, 2)), ("rest", "walk"), ModelSpec("cnn1d"))


def wav(path: Path, samples: np.ndarray, *, rate: int = RATE, channels: int = 1, width: int = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(samples.astype(f"<i{width}" if width > 1 else "u1").tobytes())
    return path


def heard(path: Path, task: Task = WORDS) -> np.ndarray:
    return read(path, task, labelled=False).x


def test_a_folder_of_recordings_per_label_gives_windows_and_each_file_is_a_recording(tmp_path: Path) -> None:
    wav(tmp_path / "words" / "no" / "a.wav", np.arange(1000))
    wav(tmp_path / "words" / "yes" / "a.wav", np.arange(400))
    samples = read(tmp_path / "words", WORDS)
    assert samples.y.tolist() == [0, 0, 0, 0, 1]
    assert samples.x[:, 0].tolist() == [0, 200, 400, 600, 0]
    assert samples.group.tolist() == ["words/no/a.wav"] * 4 + ["words/yes/a.wav"]


@pytest.mark.parametrize(("rate", "channels"), [(RATE, 1), (2 * RATE, 2)])
def test_a_long_recording_takes_little_more_memory_than_its_sound_and_its_windows(
    tmp_path: Path, rate: int, channels: int
) -> None:
    file = wav(tmp_path / "a.wav", np.zeros(600 * rate * channels), rate=rate, channels=channels)
    tracemalloc.start()
    windows = heard(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 600 * rate + windows.nbytes + (30 << 20)  # the last: pieces of a fixed size


def test_a_recording_shorter_than_a_window_ends_in_silence(tmp_path: Path) -> None:
    (window,) = heard(wav(tmp_path / "a.wav", np.full(150, 7)))
    assert window.tolist() == [7] * 150 + [0] * 250


def test_stereo_becomes_mono_and_float_tasks_get_values_up_to_one(tmp_path: Path) -> None:
    both = np.stack([np.full(400, 100), np.full(400, 300)], axis=1)
    file = wav(tmp_path / "a.wav", both, channels=2)
    assert (heard(file) == 200).all()
    real = replace(WORDS, input=replace(WORDS.input, shape=(400, 1), dtype="float32"))
    found = heard(file, real)
    assert (found.shape, found.dtype) == ((1, 400, 1), np.float32)
    assert (found == np.float32(200 / 32768)).all()


def test_sound_from_standard_input_is_told_apart_by_its_first_bytes(tmp_path: Path) -> None:
    content = wav(tmp_path / "a.wav", np.arange(400)).read_bytes()
    assert len(read(None, WORDS, stdin=io.BytesIO(content), labelled=False)) == 1
    with pytest.raises(InvalidSamples, match="sub-folder per label"):
        read(None, WORDS, stdin=io.BytesIO(content))


@pytest.mark.parametrize(("rate", "wanted"), [(44100, 16000), (48000, 16000), (8000, 16000), (16000, 4000)])
def test_a_tone_stays_the_same_tone_at_another_rate(rate: int, wanted: int) -> None:
    def tone(hz: float, at: int) -> np.ndarray:
        return np.sin(2 * np.pi * hz * np.arange(at) / at).astype(np.float32)

    found = resample(tone(440.0, rate), rate, wanted)
    assert len(found) == wanted
    middle = slice(wanted // 10, -wanted // 10)  # the ends fade into silence
    assert np.abs(found - tone(440.0, wanted))[middle].max() < 1e-3


def test_what_the_lower_rate_cannot_hold_is_filtered_away() -> None:
    too_high = np.sin(2 * np.pi * 3000.0 * np.arange(16000) / 16000).astype(np.float32)
    assert np.abs(resample(too_high, 16000, 4000))[400:-400].max() < 1e-3


def test_resampling_agrees_with_scipy() -> None:
    signal = pytest.importorskip("scipy.signal")
    rng = np.random.default_rng(0)
    slow = np.convolve(rng.normal(size=4410), np.hanning(40), "same").astype(np.float32)
    ours, theirs = resample(slow, 4410, 1600), signal.resample_poly(slow, 160, 441)
    assert len(ours) == len(theirs)
    assert np.corrcoef(ours[100:-100], theirs[100:-100])[0, 1] > 0.999


def test_a_recording_at_another_rate_is_cut_in_the_tasks_time(tmp_path: Path) -> None:
    file = wav(tmp_path / "a.wav", np.full(8820, 1000), rate=44100)  # 0.2 s
    found = heard(file)
    assert found.shape == (3, 400)
    assert np.abs(found[1] - 1000).max() <= 1


def header(size: int, *, data: int, rate: int = RATE, channels: int = 1, bits: int = 16, code: int = 1) -> bytes:
    block = channels * bits // 8
    form = struct.pack("<HHIIHH", code, channels, rate, (rate * block) & 0xFFFFFFFF, block, bits)
    return b"RIFF" + struct.pack("<I", size) + b"WAVEfmt \x10\0\0\0" + form + b"data" + struct.pack("<I", data)


HOSTILE = {
    "claims more than it holds": header(36 + 800, data=800) + b"\0" * 100,
    "claims four gigabytes": header(0xFFFFFFFF, data=0xFFFFFFF0) + b"\0" * 100,
    "no sound": header(36, data=0),
    "no channels": header(236, data=200, channels=0) + b"\0" * 200,
    "rate of zero": header(236, data=200, rate=0) + b"\0" * 200,
    "rate beyond measure": header(236, data=200, rate=2**31) + b"\0" * 200,
    "24 bit": header(336, data=300, bits=24) + b"\0" * 300,
    "8 bit": header(236, data=200, bits=8) + b"\0" * 200,
    "6 channels": header(36 + 1200, data=1200, channels=6) + b"\0" * 1200,
    "float": header(236, data=200, code=3, bits=32) + b"\0" * 200,
    "half a header": header(236, data=200)[:30],
    "nothing but its name": b"RIFF\0\0\0\0WAVE",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_wrong_recording_is_refused_by_name_before_room_is_made(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "words" / "no" / "a.wav"
    wav(file, np.zeros(400))
    read(tmp_path / "words", WORDS)
    file.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(InvalidSamples, match=r"words/no/a\.wav"):
        read(tmp_path / "words", WORDS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_a_spoilt_recording_is_read_or_refused_but_never_a_surprise(tmp_path: Path) -> None:
    whole, rng, refused = wav(tmp_path / "a.wav", np.arange(600)).read_bytes(), random.Random(0), 0
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            damaged[rng.randrange(12, 44)] = rng.randrange(256)
        try:
            found = read(None, WORDS, stdin=io.BytesIO(damaged), labelled=False)
            assert found.x.shape[1:] == (400,)
        except InvalidSamples:
            refused += 1
    assert 50 < refused < 400


def test_windows_beyond_the_limit_are_refused(tmp_path: Path) -> None:
    dense = replace(WORDS, input=replace(WORDS.input, windows=Windows(RATE, 1)))
    with pytest.raises(InvalidSamples, match="windows are more than"):
        read(wav(tmp_path / "a.wav", np.zeros(40_000)), dense, labelled=False, limit_bytes=1 << 20)


def test_a_task_that_takes_no_sound_says_so(tmp_path: Path) -> None:
    file = wav(tmp_path / "a.wav", np.zeros(400))
    for schema in (InputSchema((400,), "int16"), InputSchema((400, 2), "int16", windows=Windows(RATE, 1))):
        with pytest.raises(InvalidSamples, match="no recordings of sound"):
            heard(file, replace(WORDS, input=schema))


def test_a_task_is_drafted_from_a_folder_of_recordings(tmp_path: Path) -> None:
    for label in ("no", "yes"):
        wav(tmp_path / "words" / label / "a.wav", np.zeros(44100 * 2), rate=44100)
    task = draft_task(tmp_path / "words", task_id="t", title="T")
    assert task.input == InputSchema((16000,), "int16", windows=Windows(16000.0, 8000))
    assert (task.labels, task.model.name) == (("no", "yes"), "audio")
    assert len(read(tmp_path / "words", task)) == 6


def series(steps: int, *, group: str = "one", label: str = "walk", first: int = 0) -> str:
    return "".join(f"{first + i},{-i},{group},{label}\n" for i in range(steps))


HEAD = "a,b,group,y\n"


def cut(text: str, task: Task = MOVES, **options: object):  # type: ignore[no-untyped-def]
    return read(None, task, stdin=io.BytesIO(text.encode()), **options)  # type: ignore[arg-type]


def test_a_row_per_step_becomes_windows_that_never_cross_a_recording_or_a_label() -> None:
    text = HEAD + series(7) + series(4, group="two", first=100) + series(5, group="two", label="rest", first=200)
    samples = cut(text)
    assert samples.x[:, 0, 0].tolist() == [0, 2, 100, 200]
    assert samples.group.tolist() == ["one", "one", "two", "two"]
    assert samples.y.tolist() == [1, 1, 1, 0]
    assert samples.x[1].tolist() == [[2, -2], [3, -3], [4, -4], [5, -5]]


def test_a_recording_that_gives_no_window_is_named() -> None:
    with pytest.raises(InvalidSamples, match="recording 'two' has no stretch of 4 steps"):
        cut(HEAD + series(4) + series(3, group="two"))


def test_a_row_that_holds_a_whole_window_flat_is_still_a_sample() -> None:
    text = "y," + ",".join(f"f{i}" for i in range(8)) + "\nwalk,0,1,2,3,4,5,6,7\n"
    assert cut(text).x.tolist() == [[[0, 1], [2, 3], [4, 5], [6, 7]]]


def test_without_windows_in_the_task_a_row_is_never_a_step() -> None:
    with pytest.raises(InvalidSamples, match="shape"):
        cut(HEAD + series(8), replace(MOVES, input=InputSchema((4, 2))))


def test_values_are_scaled_as_the_task_says() -> None:
    scaled = replace(MOVES, input=replace(MOVES.input, windows=Windows(10.0, 2, scale=0.5)))
    assert cut(HEAD + series(4), scaled).x[0, :, 0].tolist() == [0, 0.5, 1, 1.5]
    small = replace(MOVES, input=replace(MOVES.input, dtype="int8", windows=Windows(10.0, 2, scale=20.0)))
    assert cut(HEAD + series(4), small).x[0, :, 0].tolist() == [0, 20, 40, 60]
    with pytest.raises(InvalidSamples, match="int8 cannot hold"):
        cut(HEAD + series(9), small)


def timed(times: np.ndarray, *, label: str = "walk") -> str:
    return "a,b,time,y\n" + "".join(f"{t - times[0]},0,{t},{label}\n" for t in times.tolist())


def test_times_bring_a_recording_to_the_tasks_rate_and_windows_keep_theirs() -> None:
    samples = cut(timed(1e9 + np.arange(41) / 20))  # 2 s at 20 Hz: 21 steps at 10 Hz
    assert len(samples) == 9
    assert samples.x[1, :, 0] == pytest.approx([0.2, 0.3, 0.4, 0.5], abs=1e-5)
    assert samples.time[:2] == pytest.approx([1e9, 1e9 + 0.2])
    assert set(samples.group) == {"-"}


def test_windows_do_not_cross_a_gap_in_time() -> None:
    times = np.concatenate([np.arange(5), 1000 + np.arange(4)]) / 10
    assert cut(timed(times)).x[:, 0, 0] == pytest.approx([0, 100])


def test_a_long_series_takes_little_more_memory_than_its_steps_and_its_windows(tmp_path: Path) -> None:
    task = replace(MOVES, input=InputSchema((400, 2), windows=Windows(10.0, 20)))
    np.savez(tmp_path / "a.npz", x=np.zeros((100_000, 2)), y=np.full(100_000, "rest"))
    tracemalloc.start()
    windows = read(tmp_path / "a.npz", task).x
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * windows.nbytes + 100_000 * 100


def test_a_gap_of_a_thousand_years_makes_no_row() -> None:
    tracemalloc.start()
    cut(timed(np.concatenate([np.arange(4) / 10, 3e10 + np.arange(4) / 10])))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b,time,y\n" + "1,2,5,walk\n" * 6, "time does not rise after row 0"),
        ("a,b,time,y\n" + "1,2,,walk\n" * 6, "has no time"),
        ("a,b,time,y\n" + "1,2,noon,walk\n" * 6, "seconds since 1970"),
        (HEAD, "no rows"),
        (HEAD + "1,,one,walk\n" * 6, "not finite"),
    ],
)
def test_a_series_that_cannot_be_is_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidSamples, match=says):
        cut(text)


def test_windows_of_a_series_beyond_the_limit_are_refused() -> None:
    dense = replace(MOVES, input=replace(MOVES.input, windows=Windows(10.0, 1)))
    with pytest.raises(InvalidSamples, match="windows are more than"):
        cut(HEAD + series(2000), dense, limit_bytes=100_000)


def test_a_folder_of_series_per_label(tmp_path: Path) -> None:
    for label, name in (("rest", "a"), ("walk", "a"), ("walk", "b")):
        (tmp_path / "moves" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "moves" / label / f"{name}.csv").write_text("a,b\n" + "1,2\n" * 6)
    samples = read(tmp_path / "moves", MOVES)
    assert samples.y.tolist() == [0, 0, 1, 1, 1, 1]
    assert samples.group.tolist()[::2] == ["moves/rest/a.csv", "moves/walk/a.csv", "moves/walk/b.csv"]
    assert len(read(tmp_path / "moves", MOVES, labelled=False)) == 6
    (tmp_path / "moves" / "walk" / "b.csv").write_text("a,b,y\n" + "1,2,rest\n" * 6)
    with pytest.raises(InvalidSamples, match=r"b\.csv: column 'y'"):
        read(tmp_path / "moves", MOVES)
    (tmp_path / "moves" / "walk" / "b.csv").write_text("a\n" + "1\n" * 6)
    with pytest.raises(InvalidSamples, match="row per step"):
        read(tmp_path / "moves", MOVES)
    with pytest.raises(InvalidSamples, match="window's length"):
        draft_task(tmp_path / "moves", task_id="t", title="T")
