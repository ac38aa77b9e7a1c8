"""Flower's half of `federated_vs_flower`: run by Flower's own Python, which knows nothing of this project. Its boards
play in `transport_vs_flower`, too.

FedAvg as Flower's documentation shows it: a ClientApp that trains with torch, a ServerApp with its FedAvg strategy, its
simulation with one CPU per client. What to play lies in $FLOWER_FOLDER; what came of it goes there.
"""

from __future__ import annotations

import json
import os
import random
import time
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import recorddict_to_proto
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from torch import nn

FOLDER = Path(os.environ["FLOWER_FOLDER"])
SETTINGS = json.loads((FOLDER / "settings.json").read_text())


class TwoNN(nn.Module):
    """As in benchmarks/reference_models.py; as in edgelearn/models/mlp.py with a layer norm, if asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(784, 128), nn.Linear(128, 64), nn.Linear(64, 10)
        self.norm = nn.LayerNorm(128) if SETTINGS["norm"] else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.reshape(len(x), 784).to(torch.float32) / 255
        return self.head(self.second(self.norm(self.first(flat)).relu()).relu())


@cache
def world() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "world.npz") as data:
        return dict(data)


def samples(board: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of one board, which over transport has a file of its own."""
    own = FOLDER / f"board-{board}.npz"
    if own.exists():
        with np.load(own) as data:
            return torch.from_numpy(data["x"]), torch.from_numpy(data["y"])
    rows = world()["parts"][board]
    return torch.from_numpy(world()["x"][rows]), torch.from_numpy(world()["y"][rows])


client = ClientApp()


@client.train()
def train(message: Message, context: Context) -> Message:
    torch.set_num_threads(1)
    x, y = samples(int(context.node_config["partition-id"]))
    model = TwoNN()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=SETTINGS["learning_rate"])
    for _ in range(SETTINGS["epochs"]):
        for batch in torch.randperm(len(y)).split(SETTINGS["batch_size"]):
            optimizer.zero_grad()
            F.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    metrics = MetricRecord({"num-examples": len(y)})
    return Message(
        content=RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics}), reply_to=message
    )


class Weighed(FedAvg):
    """FedAvg that also adds up what its messages weigh."""

    down = up = 0

    def configure_train(self, *asked, **named):
        messages = list(super().configure_train(*asked, **named))
        self.down += sum(recorddict_to_proto(message.content).ByteSize() for message in messages[:1]) * len(messages)
        return messages

    def aggregate_train(self, server_round, replies):
        arrived = list(replies)
        self.up += sum(recorddict_to_proto(message.content).ByteSize() for message in arrived[:1]) * len(arrived)
        return super().aggregate_train(server_round, arrived)


server = ServerApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    random.seed(SETTINGS["seed"])  # Flower draws its cohorts by it
    with np.load(FOLDER / "world.npz") as file:  # the boards' samples are none of the server's
        data = {name: file[name] for name in file.files if name not in ("x", "y", "parts")}
    model = TwoNN()
    model.load_state_dict({name: torch.from_numpy(data[f"weights/{name}"]) for name, _ in model.named_parameters()})
    ended: list[float] = []
    scores: list[float] = []

    def judge(_: int, arrays: ArrayRecord) -> MetricRecord:
        model.load_state_dict(arrays.to_torch_state_dict())
        with torch.no_grad():
            right = model(torch.from_numpy(data["test_x"])).argmax(1) == torch.from_numpy(data["test_y"])
        ended.append(time.monotonic())
        scores.append(float(right.float().mean()))
        return MetricRecord({"accuracy": scores[-1]})

    strategy = Weighed(fraction_train=SETTINGS["share"], fraction_evaluate=0.0)
    initial = ArrayRecord(model.state_dict())
    strategy.start(grid, initial, num_rounds=SETTINGS["rounds"], evaluate_fn=judge)
    told = {"ended": ended, "scores": scores, "down": strategy.down, "up": strategy.up, "rss_mib": resident_mib()}
    (FOLDER / "flower.json").write_text(json.dumps(told))


def resident_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


if __name__ == "__main__":
    from flower_side import client, server  # by their module's name: clients' processes import it, and read data once

    resources = {"num_cpus": 1, "num_gpus": 0.0}
    run_simulation(server, client, SETTINGS["boards"], backend_config={"client_resources": resources})
