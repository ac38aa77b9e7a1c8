"""A small cloud whose task is about items: a table has a row for each, and boards touch few."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from cloud_aug import index, pool, pretrain, tasks
from edgewire.tasks import Privacy
from tests.cloud import toys
from tests.learn.test_click_models import clicks, task

TASK = replace(
    task("din"), id="toy", privacy=Privacy(modes=("directory",), min_cohort=2, rounds=True, rows=True)
)  # its tests' boards know the toy task by that name
TABLE, ITEMS = "items.vector.weight", 41


def columns(n: int, seed: int, *, people: int = 6) -> dict[str, np.ndarray]:
    """Of a data file."""
    x, y = clicks(n, seed)
    names = np.asarray([f"person-{i % people}" for i in range(n)])
    return {"x": x, "y": np.asarray(TASK.labels)[y], "user": names}


def published(folder: Path) -> Path:
    """A data folder with the task, a pool, a base model and a publication."""
    made = toys.empty(folder)
    tasks.publish(made, TASK, now=time.time())
    file = toys.data_file(folder / "clicks.npz", columns(240, 3))
    pool.ingest(made, file, TASK.id, pool.Consent("packs", toys.FAR), now=time.time())
    settings = pretrain.TrainSettings(epochs=1, rehearse=False, augment=False)
    pretrain.train(made, TASK.id, settings, now=time.time(), on_progress=toys.quiet)
    index.build(made, TASK.id, seed=0, now=time.time(), on_progress=toys.quiet)
    made.database.close()
    return folder
