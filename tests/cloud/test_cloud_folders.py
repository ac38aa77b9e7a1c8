"""Folders of files at the cloud: a contributor's recordings go into the pool, and a task is drafted from images."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cloud_aug import pool
from cloud_aug.cloud import open_cloud
from cloud_aug.templates import TEMPLATES
from edgewire import samples
from edgewire.decoding import plain
from edgewire.errors import InvalidSamples
from tests.cloud import toys
from tests.cloud.toys import report

TEMPLATE = (sys.executable, "-m", "cloud_aug", "task", "template")
CONSENT = ("--consent", "packs", "--consent-until", "2099-12-31")


def recordings(folder: Path, *, files: int, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    for label in ("rest", "walk", "run"):
        (folder / label).mkdir(parents=True)
        for i in range(files):
            rows = rng.normal(size=(192, 3))
            np.savetxt(folder / label / f"{i}.csv", rows, delimiter=",", header="x,y axis,z", comments="", fmt="%.4f")
    return folder


def test_a_folder_is_one_contributors_and_a_file_of_it_one_recording(tmp_path: Path) -> None:
    data, task = tmp_path / "cloud", tmp_path / "sensor.json"
    report("init", "--host", "localhost", "--url", "https://localhost:8443", data=data)
    task.write_text(json.dumps(plain(TEMPLATES["sensor"]().task)))
    report("task", "publish", str(task), data=data)
    for seed, name in enumerate(("ann", "bob")):
        folder = recordings(tmp_path / name, files=2, seed=seed)
        first = report("pool", "ingest", str(folder), "--task", "sensor", *CONSENT, data=data)
        again = report("pool", "ingest", str(folder), "--task", "sensor", *CONSENT, data=data)
        assert (first["accepted"], first["contributors"], again["changed"]) == (12, 1, False)
    found = pool.load(open_cloud(data), TEMPLATES["sensor"]().task, now=time.time())
    assert found.contributors == ["file-ann", "file-bob"]
    assert set(found.samples.group[found.samples.user == "file-ann"]) == {
        f"ann/{label}/{i}.csv" for label in ("rest", "walk", "run") for i in range(2)
    }


def test_a_task_is_drafted_from_a_folder_of_images_and_publishes(tmp_path: Path) -> None:
    images = pytest.importorskip("PIL.Image")
    data, out = tmp_path / "cloud", tmp_path / "pets.json"
    for label in ("cat", "dog"):
        (tmp_path / "pets" / label).mkdir(parents=True)
        images.new("RGB", (48, 32)).save(tmp_path / "pets" / label / "a.png")
    report("init", "--host", "localhost", "--url", "https://localhost:8443", data=data)
    subprocess.run(
        [*TEMPLATE, "--from", str(tmp_path / "pets"), "--id", "pets", "--out", str(out)],
        env=toys.environment(),
        check=True,
    )
    assert report("task", "publish", str(out), data=data)["changed"]
    assert json.loads(out.read_text())["input"]["shape"] == [32, 48, 3]


def test_waves_travel_as_they_are() -> None:
    task = TEMPLATES["audio"]().task
    x = np.random.default_rng(0).integers(-32768, 32768, (3, *task.input.shape)).astype(np.int16)
    raw = samples.to_bytes(samples.make(x, np.array([0, 1, 0])), task.id)
    assert np.array_equal(samples.from_bytes(raw, task, what="pack", limit_bytes=1 << 20).x, x)
    with pytest.raises(InvalidSamples, match="int16"):
        samples.check(replace(samples.make(x, np.zeros(3)), x=x.astype(np.float32)), task, labelled=True)
