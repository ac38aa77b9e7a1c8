"""Images, sound and sensor recordings on a board, by the commands that a user would type."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import numpy as np
import pytest

from edgectl.cache import Cache
from edgelearn.export import export_onnx
from edgelearn.pretrain import train_base
from edgewire import readers
from edgewire.files import digest, write_atomic
from edgewire.tasks import LENET5_EMBEDDING, InputSchema, ModelSpec, Task, Windows
from tests.board.conftest import Board

RATE = 4000
LABELS = ("low", "high")


def image_file(path: Path, label: str, rng: np.random.Generator) -> None:
    images = pytest.importorskip("PIL.Image")
    pixels = rng.integers(0, 60, (40, 40)).astype(np.uint8)
    pixels[30:] += 150 if label == "low" else 0
    pixels[:10] += 150 if label == "high" else 0
    images.fromarray(pixels).save(path.with_suffix(".png"))


def wave_file(path: Path, label: str, rng: np.random.Generator) -> None:
    time = np.arange(RATE) / RATE
    sound = 8000 * np.sin(2 * np.pi * (300 if label == "low" else 1200) * time) + rng.normal(0, 300, RATE)
    with wave.open(str(path.with_suffix(".wav")), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(sound.astype("<i2").tobytes())


def series_file(path: Path, label: str, rng: np.random.Generator) -> None:
    steps = np.arange(64)
    moves = np.sin(steps * (0.2 if label == "low" else 1.5)) + rng.normal(0, 0.1, 64)
    path.with_suffix(".csv").write_text("a,b\n" + "".join(f"{v:.4f},{-v:.4f}\n" for v in moves))


LENET5 = ModelSpec("lenet5", embedding=LENET5_EMBEDDING)
AUDIO = InputSchema((2000,), "int16", windows=Windows(RATE, 1000))
SENSOR = InputSchema((16, 2), windows=Windows(50.0, 16))
KINDS = {
    "image": (Task("image", "T", InputSchema((16, 16), "uint8"), LABELS, ModelSpec("cnn2d", 8, 8)), image_file, 1),
    "lenet5": (Task("lenet5", "T", InputSchema((28, 28), "uint8"), LABELS, LENET5), image_file, 1),
    "audio": (Task("audio", "T", AUDIO, LABELS, ModelSpec("audio", 8, 8)), wave_file, 3),
    "sensor": (Task("sensor", "T", SENSOR, LABELS, ModelSpec("cnn1d", 8, 8)), series_file, 4),
}


def folder_of(path: Path, make, *, seed: int, files: int = 4) -> Path:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    for label in LABELS:
        (path / label).mkdir(parents=True)
        for i in range(files):
            make(path / label / str(i), label, rng)
    return path


def provide(board: Board, task: Task, folder: Path) -> None:
    """Enrol the board, and bring it a base model that learned from a folder like its own."""
    samples = readers.read(folder, task)
    weights = train_base(task, samples.x, samples.y, np.zeros(len(samples)), seed=0, epochs=40)
    onnx = export_onnx(task, weights)
    board.enroll(task.id)
    board.server.publish(task, weights=b"weights", onnx=onnx, directory=b"directory")
    board.home.task(task.id).mkdir(parents=True)
    board.home.manifest(task.id).write_bytes(board.server.sealed_manifest(task.id))
    blob = Cache(board.home, task.id).path(digest(onnx))
    blob.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(blob, onnx)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_is_added_and_new_files_are_labelled(kind: str, newcomer: Board, tmp_path: Path) -> None:
    task, make, windows = KINDS[kind]
    provide(newcomer, task, folder_of(tmp_path / "pool", make, seed=0, files=8))
    own = folder_of(tmp_path / "own", make, seed=1)
    added = newcomer.edgectl("data", "add", str(own), "--json")
    assert added.returncode == 0, added.stderr
    assert json.loads(added.stdout)["added"] == 8 * windows
    again = newcomer.edgectl("data", "add", str(own), "--json")
    assert (json.loads(again.stdout)["changed"], json.loads(again.stdout)["total"]) == (False, 8 * windows)

    whole = json.loads(newcomer.edgectl("infer", str(own), "--json").stdout)["predictions"]
    right = [row["group"].split("/")[1] == row["label"] for row in whole]
    assert (len(right), sum(right)) == (8 * windows, 8 * windows)
    lines = newcomer.edgectl("infer", str(own)).stdout.decode().splitlines()
    assert [line.split("\t")[:2] for line in lines] == [[row["group"], row["label"]] for row in whole]

    scored = json.loads(newcomer.edgectl("eval", str(own), "--json").stdout)["models"]
    assert [row["accuracy"] for row in scored] == [1.0, 1.0]
    file = sorted((own / "low").iterdir())[0]
    one = json.loads(newcomer.edgectl("infer", str(file), "--json").stdout)["predictions"]
    assert [row["label"] for row in one] == ["low"] * windows
    piped = json.loads(newcomer.edgectl("infer", "-", "--json", stdin=file.read_bytes()).stdout)["predictions"]
    assert [row["probability"] for row in piped] == [row["probability"] for row in one]


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_file_among_good_ones_is_named_and_nothing_is_added(
    kind: str, newcomer: Board, tmp_path: Path
) -> None:
    task, make, _ = KINDS[kind]
    own = folder_of(tmp_path / "own", make, seed=1, files=1)
    newcomer.enroll(task.id)
    newcomer.receive(task)
    broken = next((own / "high").iterdir())
    broken.write_bytes(broken.read_bytes()[:20])
    done = newcomer.edgectl("data", "add", str(own))
    assert done.returncode == 2
    assert f"own/high/{broken.name}".encode() in done.stderr
    assert b"Traceback" not in done.stderr
    assert json.loads(newcomer.edgectl("data", "list", "--json").stdout)["samples"] == []


def test_a_name_that_is_no_text_or_steers_a_terminal_is_made_plain(newcomer: Board, tmp_path: Path) -> None:
    task, make, _ = KINDS["sensor"]
    own = folder_of(tmp_path / "own", make, seed=1, files=1)
    newcomer.enroll(task.id)
    newcomer.receive(task)
    file = next((own / "low").iterdir())
    file.rename(own / "low" / "a\n\x1b[31m\udcff.csv")
    assert newcomer.edgectl("data", "add", str(own)).returncode == 0
    listed = json.loads(newcomer.edgectl("data", "list", "--json").stdout)["samples"]
    assert {"own/low/a\ufffd\ufffd[31m\ufffd.csv"} == {row["group"] for row in listed if row["label"] == "low"}


def test_windows_of_one_recording_are_never_split_between_folds(tmp_path: Path) -> None:
    task, make, windows = KINDS["audio"]
    samples = readers.read(folder_of(tmp_path / "own", make, seed=1), task)
    assert len(set(samples.group)) == 8
    assert all((samples.group == group).sum() == windows for group in samples.group)
