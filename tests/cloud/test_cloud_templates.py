"""Templates: each is a task that publishes as it is printed, and whose model learns and exports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from cloud_aug import tasks
from cloud_aug.templates import TEMPLATES
from edgelearn.export import export_onnx, parity
from edgelearn.models.build import load, outputs
from edgelearn.pretrain import train_base
from edgewire.tasks import Task
from tests.cloud import toys
from tests.cloud.toys import report


def template(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cloud_aug", "task", "template", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=toys.environment(), check=False)


def printed(*arguments: str) -> tuple[str, str]:
    done = template(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_is_printed_as_a_whole_task_with_notes_beside_it(name: str) -> None:
    text, notes = printed(name)
    task = tasks.read(text.encode())
    assert task == TEMPLATES[name]().task
    assert (task.id, task.problems()) == (name, [])
    assert all(note.split(":")[0] in notes for note in TEMPLATES[name]().notes)
    assert {"id", "title", "input", "labels", "model", "metric", "privacy"} == set(json.loads(text))


def made_up(task: Task, n: int = 16) -> np.ndarray:
    rng = np.random.default_rng(0)
    if isinstance(task.input.items, int):
        return rng.integers(1, task.input.items, (n, *task.input.shape)).astype(task.input.dtype)
    return rng.integers(0, 255, (n, *task.input.shape)).astype(task.input.dtype)


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_model_of_a_template_trains_exports_and_answers_the_same(name: str) -> None:
    task = TEMPLATES[name]().task
    x, y = made_up(task), np.arange(16) % len(task.labels)
    if task.input.missing:
        x[0, 0] = np.nan
    weights = train_base(task, x, y, np.arange(16) % 2, seed=0, epochs=2)
    session = onnxruntime.InferenceSession(export_onnx(task, weights))
    found = session.run(["logits", "embedding"], {"x": x})
    for expected, got in zip(outputs(load(task, weights), x), found, strict=True):
        assert parity(expected, got) < 1e-3


def test_without_a_name_templates_are_listed() -> None:
    listed, _ = printed()
    assert [line.split()[0] for line in listed.splitlines()[1:]] == list(TEMPLATES)


def test_a_template_under_an_id_of_ones_own_publishes_from_a_file(tmp_path: Path) -> None:
    data, file = tmp_path / "cloud", tmp_path / "words.json"
    report("init", "--host", "localhost", "--url", "https://localhost:8443", data=data)
    printed("audio", "--id", "words", "--title", "Words", "--out", str(file))
    assert report("task", "publish", str(file), data=data)["changed"]
    assert tasks.load(toys.cloud.open_cloud(data), "words").title == "Words"


@pytest.mark.parametrize(
    ("arguments", "exit_code", "says"),
    [
        (["nothing"], 1, "sensor"),
        (["audio", "--id", "../x"], 2, "id"),
        (["--from", "somewhere"], 2, "--id"),
        (["audio", "--from", "somewhere", "--id", "x"], 2, "--from"),
        (["--from", "somewhere", "--id", "x"], 1, "no file"),
    ],
)
def test_a_mistake_is_named(arguments: list[str], exit_code: int, says: str) -> None:
    done = template(*arguments)
    assert (done.returncode, says in done.stderr) == (exit_code, True), done.stderr
    assert "Traceback" not in done.stderr
