"""Flower's ServerApp of `transport_vs_flower`, run by Flower's own Python. Like our service it needs no torch: it
averages, and hands out what it started from and what came of it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

FOLDER = Path(os.environ["FLOWER_FOLDER"])
SETTINGS = json.loads((FOLDER / "settings.json").read_text())

server = ServerApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    with np.load(FOLDER / "weights.npz") as data:
        initial = ArrayRecord({name: Array(array) for name, array in data.items()})
    ended: list[float] = []

    def mark(_: int, __: ArrayRecord) -> None:
        ended.append(time.monotonic())

    everybody = SETTINGS["boards"]
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=everybody, min_available_nodes=everybody)
    result = strategy.start(grid, initial, num_rounds=SETTINGS["rounds"], evaluate_fn=mark)
    np.savez(FOLDER / "result.npz", **{name: array.numpy() for name, array in result.arrays.items()})
    (FOLDER / "ended.tmp").write_text(json.dumps(ended))
    (FOLDER / "ended.tmp").rename(FOLDER / "ended.json")
