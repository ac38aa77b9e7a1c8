"""Rounds of the same model over the same boards, here and in Flower: time, memory, bytes and accuracy.

Flower is installed into an environment of its own under --cache (about 1 GB), never into this one. MNIST, 100 boards of
600 images, ten of them in each round, FedAvg of the 2NN from the same initial weights; both sides train with torch on
one thread per board and judge every round on the same 10,000 images. Flower's simulation may use all cores, and ours
has a process for each. The two are played one after the other. Compressed, ten boards take part in every round, and are
compared with the same ten uncompressed. Real transport is for `transport_vs_flower`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.federated import World
from benchmarks.federated_cases import BOARDS
from benchmarks.figures import Figure, answer, at_least, at_most, noted
from benchmarks.flower_env import environment
from benchmarks.reference_models import reference_model
from benchmarks.running import memory_mib
from cloud_aug.simulation.plan import Plan
from cloud_aug.simulation.play import Simulation
from cloud_aug.simulation.processes import Processes
from edgelearn.crowd import Crowd
from edgelearn.device import use_threads
from edgelearn.federated import splits
from edgelearn.federated.algorithm import LocalSettings
from edgelearn.learner import weights_of

SHARE = 0.1
SETTINGS = LocalSettings(epochs=1, batch_size=10, learning_rate=0.04)
ROUNDS, QUICK_ROUNDS, LAST = 200, 10, 5
WARM_UP = 2  # rounds that no time is taken of
FEW = 10  # boards that take part in every round
COMPRESSED = {"compression": "sparse", "down": "changes"}
PLAYS: dict[str, tuple[int, dict[str, Any]]] = {  # ours: how many boards, and what is unusual
    "ours": (BOARDS, {"share": SHARE}),
    "few": (FEW, {"share": 1.0}),
    "compressed": (FEW, {"share": 1.0, **COMPRESSED}),
}


def main() -> None:
    arguments = _arguments()
    if arguments.play:
        _play(arguments.play, arguments.folder, arguments.rounds)
        return
    with tempfile.TemporaryDirectory(prefix="flower-") as folder:
        rounds = QUICK_ROUNDS if arguments.quick else arguments.rounds
        figures = _compare(Path(folder), arguments.cache, rounds)
    answer((__doc__ or "").partition("\n\n")[0], figures, arguments.json)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.federated_vs_flower", description=(__doc__ or ""))
    parser.add_argument("--cache", type=Path, default=Path("build/flower"), help="where Flower is installed")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds")
    parser.add_argument("--json", type=Path, metavar="OUT")
    parser.add_argument("--play", choices=PLAYS, help=argparse.SUPPRESS)  # our half, in a process of its own
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _compare(folder: Path, cache: Path, rounds: int) -> list[Figure]:
    _write_world(folder, rounds)
    flower = [str(environment(cache)), str(Path(__file__).with_name("flower_side.py"))]
    found = {"flower": _run(flower, folder / "flower.json")}
    for play in PLAYS:
        command = [sys.executable, "-m", "benchmarks.federated_vs_flower", "--rounds", str(rounds)]
        found[play] = _run([*command, "--play", play, "--folder", str(folder)], folder / f"{play}.json")
    return _figures(found, rounds)


def _write_world(folder: Path, rounds: int) -> None:
    world, rng = World(), np.random.default_rng(0)
    parts = np.stack([part.rows for part in splits.iid(len(world.y), BOARDS, rng)])
    weights = {f"weights/{name}": array for name, array in weights_of(reference_model("2nn", seed=0)).items()}
    columns = {"x": world.x, "y": world.y, "parts": parts, "test_x": world.test[0], "test_y": world.test[1]}
    np.savez(folder / "world.npz", **columns, **weights)
    settings = {**vars(SETTINGS), "rounds": rounds, "share": SHARE, "boards": BOARDS, "seed": 0, "norm": False}
    (folder / "settings.json").write_text(json.dumps(settings))


def _run(command: list[str], result: Path) -> dict[str, Any]:
    """What one side tells, and how long it took as a whole."""
    began = time.monotonic()
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0", "FLWR_HOME": str(result.parent / "flwr")}
    # by default ray gives its workers a very low priority: beside anything else on the machine they would stand still
    quiet |= {"FLOWER_FOLDER": str(result.parent), "RAY_worker_niceness": "0"}
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(Path.cwd())}
    log = result.with_suffix(".log")
    with log.open("w") as said:
        done = subprocess.run(command, env=os.environ | quiet | threads, stdout=said, stderr=said, check=False)
    if done.returncode or not result.exists():
        raise RuntimeError(f"{command[0]} ended with {done.returncode}:\n{log.read_text()[-2000:]}")
    told = json.loads(result.read_text())
    return {**told, "wall_s": time.monotonic() - began}


def _play(name: str, folder: Path, rounds: int) -> None:
    use_threads(1)
    boards, unusual = PLAYS[name]
    with np.load(folder / "world.npz") as data:
        parts = [splits.Part(rows) for rows in data["parts"][:boards]]
        test = data["test_x"], data["test_y"]
        crowd = Crowd(reference_model("2nn", seed=0), data["x"], data["y"], parts, test)
    plan = Plan(settings=SETTINGS, rounds=rounds, **unusual)
    with Processes(len(os.sched_getaffinity(0))) as players:
        simulation = Simulation(crowd, plan, folder / name, world=name, players=players)
        ended = [time.monotonic()]
        simulation.run(lambda _: ended.append(time.monotonic()))
    told = {
        "ended": ended,
        "scores": [done.score for done in simulation.history],
        "down": sum(done.bytes_down for done in simulation.history),
        "up": sum(done.bytes_up for done in simulation.history),
        "rss_mib": memory_mib(os.getpid()),
    }
    (folder / f"{name}.json").write_text(json.dumps(told))


def _figures(found: dict[str, dict[str, Any]], rounds: int) -> list[Figure]:
    ours, flower = found["ours"], found["flower"]
    round_s = {name: _round_s(told["ended"]) for name, told in found.items()}
    bytes_ = {name: (told["down"] + told["up"]) / (rounds * FEW) for name, told in found.items()}
    score = {name: 100 * statistics.mean(told["scores"][-LAST:]) for name, told in found.items()}
    hourly = f"Flower {3600 / round_s['flower']:.0f}; {rounds} rounds of {FEW} of {BOARDS} boards"
    memory = f"ours {ours['rss_mib']:.0f} MiB with all boards, Flower {flower['rss_mib']:.0f} MiB without"
    unusual = ", ".join(" ".join(pair) for pair in COMPRESSED.items())
    way = f"{bytes_['compressed'] / 1000:.1f} kB; {FEW} boards in every round, {unusual}"
    few = f"{score['compressed']:.2f} %, uncompressed {score['few']:.2f} %; the last {LAST} rounds"
    small = bytes_["compressed"] / bytes_["flower"]
    return [
        noted("rounds per hour", 3600 / round_s["ours"], "", anchor=hourly),
        at_most(
            "time per round, of Flower's", round_s["ours"] / round_s["flower"], "x", 0.5, anchor=_pair(round_s, "s")
        ),
        noted("memory of the server's process", ours["rss_mib"] / flower["rss_mib"], "x", anchor=memory),
        at_most(
            "bytes per board and round, of Flower's", bytes_["ours"] / bytes_["flower"], "x", 1, anchor=_pair(bytes_)
        ),
        at_most("compressed both ways, of Flower's", small, "x", 0.05, anchor=way),
        at_least("accuracy, over Flower's", score["ours"] - score["flower"], "points", -0.5, anchor=_pair(score, "%")),
        at_least("compressed over uncompressed", score["compressed"] - score["few"], "points", -0.5, anchor=few),
        noted("wall time as a whole, of Flower's", ours["wall_s"] / flower["wall_s"], "x", anchor="with start and end"),
    ]


def _round_s(ended: list[float]) -> float:
    """Median time of a round, the first ones left out."""
    return statistics.median(
        after - before for before, after in zip(ended[WARM_UP:], ended[WARM_UP + 1 :], strict=False)
    )


def _pair(values: dict[str, float], unit: str = "") -> str:
    return f"ours {values['ours']:.4g} {unit}, Flower {values['flower']:.4g} {unit}".replace(" ,", ",").rstrip()


if __name__ == "__main__":
    main()
