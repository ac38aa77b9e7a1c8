"""`python -m demo [--data digits|myo|wisdm|FILE.npz]`: keys, service, pool, base model, boards, personal models, a
report.

Everything is done by calling `cloud-aug` and `edgectl`, over real TLS on loopback. Nothing is left behind but the
report.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from demo import data, report
from demo.report import BoardResult
from demo.shell import call, free_port, output_of, server, tell

TARGET_STEPS = 1200  # of base training: enough for the demo, and minutes stay minutes


@dataclass(frozen=True)
class Stage:
    """Where the demo plays."""

    work: Path
    cloud: Path
    problem: data.Problem
    task: str
    url: str


def main() -> None:
    arguments = _arguments()
    try:
        problem = data.load(arguments.data, boards=arguments.boards, seed=arguments.seed)
    except ValueError as error:
        raise SystemExit(f"demo: {error}") from None
    with tempfile.TemporaryDirectory(prefix="edgectl-demo-") as folder:
        results = _play(Path(folder), problem)
    path = report.write(results, problem.title, problem.about, Path(arguments.report))
    print(
        f"\nAccuracy on held-out samples, in %\n\n{report.table(results)}\n\n{report.sentences(results)}"
        f"\n\nWritten: {path}"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--data", default="digits", help="digits, myo, wisdm, or an NPZ file in the generic format")
    parser.add_argument("--boards", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", default="demo-report", help="folder for report.json and report.html")
    return parser.parse_args()


def _play(work: Path, problem: data.Problem) -> list[BoardResult]:
    tell(f"{problem.title}. {problem.about}")
    pool, board_files = problem.write(work)
    port = free_port()
    stage = Stage(work, work / "cloud", problem, problem.name, f"https://127.0.0.1:{port}")
    _set_up_cloud(stage, pool)
    with server(stage.cloud, port, work / "server.log"):
        tell(f"cloud: serving {stage.url} over TLS")
        modes = {
            board: "embedding" if i >= len(board_files) - 2 else "directory" for i, board in enumerate(board_files)
        }
        with ThreadPoolExecutor(2) as pairs:  # two boards at a time, one core each
            futures = [pairs.submit(_board, stage, name, file, modes[name]) for name, file in board_files.items()]
            return [future.result() for future in futures]


def _cloud(stage: Stage, *arguments: str | Path) -> dict[str, Any]:
    return call("cloud-aug", *arguments, env={"CLOUD_AUG_DATA": str(stage.cloud)})


def _set_up_cloud(stage: Stage, pool: Path) -> None:
    cloud = partial(_cloud, stage)
    cloud("init", "--host", "127.0.0.1", "--url", stage.url)
    tell("cloud: keys and certificates made")
    task_file = stage.work / "task.json"
    env = {"CLOUD_AUG_DATA": str(stage.cloud)}
    task = json.loads(output_of("cloud-aug", "task", "template", "--from", pool, "--id", stage.task, env=env))
    task["title"] = stage.problem.title
    task["privacy"]["modes"] = ["directory", "embedding"]
    if stage.problem.name == "myo":
        task["input"]["ring"] = True  # an armband, which may be worn turned
    if stage.problem.name == "digits":
        task["model"]["width"] = 8  # a small model for a small board: six conflicting styles do not fit into it
    task_file.write_text(json.dumps(task))
    cloud("task", "publish", task_file)
    stats = cloud("pool", "ingest", pool, "--task", stage.task, "--consent", "packs", "--consent-until", "2099-01-01")
    tell(f"cloud: task '{stage.task}' published, {stats['accepted']} samples of consenting contributors ingested")
    rows = dict(data.counts(stage.problem))["pool"]
    epochs = max(3, min(25, round(TARGET_STEPS * 64 / rows)))
    tell(f"cloud: training the base model ({epochs} epochs), then rehearsing every recipe on held-out contributors ...")
    cloud("base", "train", "--task", stage.task, "--epochs", str(epochs), "--shots", f"1,{data.SHOTS}")
    built = cloud("index", "build", "--task", stage.task)
    made = built["publication"]
    tell(
        f"cloud: directory of {made['cohorts']} cohorts, {len(made['packs'])} packs and the search index are published"
    )


def _board(stage: Stage, name: str, file: Path, mode: str) -> BoardResult:
    """One board's whole life: enroll, add, sync, train (socket closed), evaluate, infer."""
    started = time.monotonic()
    env = {"EDGECTL_STATE": str(stage.work / "boards" / name), "EDGECTL_THREADS": "1", "EDGECTL_MODE": mode}

    def edgectl(*arguments: str | Path) -> dict[str, Any]:
        return call("edgectl", *arguments, env=env)

    token = stage.work / f"{name}.enrol.json"
    cloud_env = {"CLOUD_AUG_DATA": str(stage.cloud)}
    output_of("cloud-aug", "boards", "token", "--task", stage.task, "--out", token, env=cloud_env)
    edgectl("enroll", token, "--name", name)
    first = edgectl("sync")
    added = edgectl("data", "add", file, "--part", "local")
    second = edgectl("sync")
    trained = edgectl("train")
    scored = edgectl("eval", file, "--part", "test", "--recipes", ",".join(report.RECIPES))
    edgectl("infer", file, "--part", "test")
    by_name = {row["name"]: row for row in scored["models"]}
    mpda = by_name["trained mpda"]
    result = BoardResult(
        board=name,
        mode=mode,
        **{recipe: by_name[f"trained {recipe}"]["accuracy"] for recipe in report.RECIPES},
        shipped=by_name["serving"]["accuracy"],
        shipped_recipe=by_name["serving"]["recipe"],
        candidates=mpda["candidate_samples"],
        kept=mpda["outside_samples"],
        contributors=f"{mpda['kept']} of {mpda['candidates']}",
        bytes_down=int(first["bytes_down"]) + int(second["bytes_down"]),
        seconds=round(time.monotonic() - started, 1),
        local_samples=int(added["added"]),
        test_samples=int(scored["samples"]),
    )
    tell(
        f"{name} ({mode}): {result.local_samples} samples of its own, chose {trained['shipped']};"
        f" {100 * result.base:.0f} % -> {100 * result.shipped:.0f} % on {result.test_samples} held-out samples"
    )
    return result


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
