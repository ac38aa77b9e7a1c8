"""What does edgectl cost beyond the model itself? Peak memory of `infer` and `train`, and time per training step."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.figures import Figure, at_most, ratio_in_turn, run
from benchmarks.world import World, world
from demo.shell import SCRIPTS

BARE_INFER = """
import sys, numpy, onnxruntime
x = numpy.load(sys.argv[2])["x"]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options)
logits = session.run(["logits"], {"x": x})[0]
for row in logits: print(row.argmax())
"""

# the same model, data, batch and number of steps as the recipe `local`, written as anybody would
BARE_TRAIN = """
import sys, numpy, torch
from torch import nn
torch.set_num_threads(1)
data = numpy.load(sys.argv[1]); keep = data["part"] == "local"
x, y = torch.from_numpy(data["x"][keep]), torch.from_numpy(data["y"][keep])
class Net(nn.Module):
    def __init__(self, w=16, e=64):
        super().__init__()
        self.c1, self.n1 = nn.Conv2d(1, w, 3, padding=1), nn.GroupNorm(4, w)
        self.c2, self.n2 = nn.Conv2d(w, 2*w, 3, padding=1, stride=2), nn.GroupNorm(4, 2*w)
        self.c3, self.n3 = nn.Conv2d(2*w, 2*w, 3, padding=1, stride=2), nn.GroupNorm(4, 2*w)
        self.pool, self.emb, self.head = nn.AdaptiveAvgPool2d(2), nn.Linear(8*w, e), nn.Linear(e, 10)
    def forward(self, x):
        h = ((x.float() - 78) / 90).clamp(-10, 10).unsqueeze(1)
        h = self.n1(self.c1(h)).relu(); h = self.n2(self.c2(h)).relu(); h = self.n3(self.c3(h)).relu()
        return self.head(self.emb(torch.flatten(self.pool(h), 1)).relu())
net = Net(); optimizer = torch.optim.Adam(net.parameters(), 1e-3, weight_decay=1e-4)
for step in range(150):
    rows = torch.randperm(len(y))[:32]
    optimizer.zero_grad(); loss = nn.functional.cross_entropy(net(x[rows]), y[rows]); loss.backward(); optimizer.step()
print(float(loss))
"""


def measure(quick: bool) -> Sequence[Figure]:
    rounds = 3 if quick else 9
    with world() as place:
        place.edgectl("enroll", place.folder / "enrol.json")
        place.edgectl("sync")
        place.edgectl("data", "add", place.samples, "--part", "local")
        place.edgectl("train", "--recipe", "local", "--no-veto")
        model = next(place.state.glob("models/*/a/model.onnx"))
        return [
            _infer_memory(place, model, rounds),
            _train_memory(place, rounds),
            _step_time(place, 5 if quick else 15),
        ]


def _infer_memory(place: World, model: Path, rounds: int) -> Figure:
    ours = [str(SCRIPTS / "edgectl"), "infer", str(place.samples)]
    bare = [sys.executable, "-c", BARE_INFER, str(model), str(place.samples)]
    ratio, mine, anchor = ratio_in_turn(lambda: _peak_mib(ours, place), lambda: _peak_mib(bare, place), rounds=rounds)
    shown = f"bare onnxruntime script: {anchor:.1f} MiB; ours {mine:.1f} MiB"
    return at_most("edgectl infer: peak memory", ratio, "ratio", 1.25, anchor=shown)


def _train_memory(place: World, rounds: int) -> Figure:
    ours = [str(SCRIPTS / "edgectl"), "train", "--recipe", "local", "--no-veto", "--force"]
    bare = [sys.executable, "-c", BARE_TRAIN, str(place.samples)]
    ratio, mine, anchor = ratio_in_turn(lambda: _peak_mib(ours, place), lambda: _peak_mib(bare, place), rounds=rounds)
    shown = f"bare torch loop: {anchor:.1f} MiB; ours {mine:.1f} MiB"
    return at_most("edgectl train: peak memory", ratio, "ratio", 1.25, anchor=shown)


# A process inherits the peak of the one it was forked from, so a small one stands between this one and what is
# measured.
LAUNCHER = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss)
"""


def _peak_mib(command: list[str], place: World) -> float:
    """Largest resident size of the process, as the kernel counted it."""
    launched = [sys.executable, "-I", "-S", "-c", LAUNCHER, *command]
    done = subprocess.run(launched, capture_output=True, text=True, env={**os.environ, **place.env}, check=True)
    code, peak_kib = map(int, done.stdout.split())
    if code != 0:
        raise SystemExit(f"{command[0]} ended with exit code {code}")
    return peak_kib / 1024


def _step_time(place: World, rounds: int) -> Figure:
    ours, bare = _loops(place)
    ours(), bare()  # warm up
    ratio, mine, anchor = ratio_in_turn(ours, bare, rounds=rounds)
    shown = f"bare loop, same model and data: {1000 * anchor:.3f} ms; ours {1000 * mine:.3f} ms"
    return at_most("training step: wall time", ratio, "ratio", 1.10, anchor=shown)


def _loops(place: World) -> tuple[Callable[[], float], Callable[[], float]]:
    """Median seconds per step of our loop and of a bare one, on the product's own model and the board's samples."""
    import numpy as np
    import torch

    from edgelearn.device import use_threads
    from edgelearn.examples import make
    from edgelearn.fit import FitSettings, Source, fit
    from edgelearn.models.build import build
    from edgewire.readers import draft_task

    use_threads(1)
    task = draft_task(place.folder / "pool.npz", task_id="digits", title="Digits")
    with np.load(place.samples) as file:
        local = file["part"] == "local"
        x, y = file["x"][local], file["y"][local].astype(np.int64)

    def ours() -> float:
        steps = []
        run = fit(build(task), Source(make(x, y)), FitSettings(steps=150), seed=0)
        for _ in range(150):
            started = time.perf_counter()
            next(run)
            steps.append(time.perf_counter() - started)
        return statistics.median(steps)

    def bare() -> float:
        model, steps = build(task).train(), []
        inputs, labels = torch.from_numpy(x), torch.from_numpy(y)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-4)
        for _ in range(150):
            started = time.perf_counter()
            rows = torch.randperm(len(labels))[:32]
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs[rows])[0], labels[rows]).backward()
            optimizer.step()
            steps.append(time.perf_counter() - started)
        return statistics.median(steps)

    return ours, bare


if __name__ == "__main__":
    run(str(__doc__), measure)
