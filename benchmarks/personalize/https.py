"""The same boards through a real service over TLS and the commands that a user would type: accuracy, or AUC, must be
identical to what the benchmark measures by calling the functions."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.personalize.plan import Game, Plan
from benchmarks.personalize.records import Pair
from benchmarks.personalize.work import choose_recipe, find_stage, make_setting, prepare
from benchmarks.protocols import Board, Fold
from demo.shell import call, free_port, output_of, server
from edgelearn.device import use_threads
from edgelearn.metrics import score
from edgelearn.models.build import load, outputs
from edgelearn.personalize.recipes import RECIPES
from edgewire.decoding import encode

NOT_COMPARED = ("random",)  # which contributors it draws follows their names, which are pseudonyms here
FETCH_ALL_BYTES = 1 << 40


def play(plan: Plan, boards: int, folder: Path) -> list[Pair]:
    """Both paths for the first boards of each data set, under the first seed, with a middle number of shots, with the
    recipes that the task has."""
    use_threads(1)
    found: list[Pair] = []
    for data in dict.fromkeys(game.place.data for game in plan.games):
        first = next(game.place for game in plan.games if game.place.data == data)
        mine = [game for game in plan.games if game.place == first and game.whole]
        if not mine:
            continue  # nobody has enough samples
        names = [name for name in mine[0].recipes if name not in NOT_COMPARED]
        counts = sorted({game.shots for game in mine})
        middle = [game for game in mine if game.shots == counts[len(counts) // 2]][:boards]
        prepare(first, folder, rehearsed="auto" in names)
        found += _play(find_stage(first, folder).fold, middle, names, folder)
    return found


def _play(fold: Fold, games: Sequence[Game], names: Sequence[str], folder: Path) -> Iterator[Pair]:
    with tempfile.TemporaryDirectory(prefix="personalize-https-") as made:
        work, port = Path(made), free_port()
        _set_up_cloud(fold, games[0].place.seed, work, port, rehearsed="auto" in names)
        with server(work / "cloud", port, work / "server.log"):
            for game in games:
                board = fold.boards[game.number]
                through = _through_https(fold, board, game, names, work)
                for name, (score, recipe) in _direct(game, names, folder).items():
                    shown = f"{name}: {through[name][1]}, {recipe}" if name == "auto" else name
                    yield Pair(game.place.data, game.board, game.shots, shown, through[name][0], score)


def _set_up_cloud(fold: Fold, seed: int, work: Path, port: int, *, rehearsed: bool) -> None:
    env = {"CLOUD_AUG_DATA": str(work / "cloud")}
    task = replace(fold.task, privacy=replace(fold.task.privacy, fetch_all_below_bytes=FETCH_ALL_BYTES))
    (work / "task.json").write_bytes(encode(task))
    labels = np.asarray(task.labels)
    group = np.full(len(fold.y), "") if fold.group is None else fold.group.astype(str)
    np.savez(work / "pool.npz", x=fold.x, y=labels[fold.y], user=fold.user.astype(str), group=group)
    consent = ("--consent", "packs", "--consent-until", "2099-01-01")
    call("cloud-aug", "init", "--host", "127.0.0.1", "--url", f"https://127.0.0.1:{port}", env=env)
    call("cloud-aug", "task", "publish", work / "task.json", env=env)
    call("cloud-aug", "pool", "ingest", work / "pool.npz", "--task", task.id, *consent, env=env)
    train = ("--epochs", str(fold.epochs), "--seed", str(seed), "--rehearse" if rehearsed else "--no-rehearse")
    call("cloud-aug", "base", "train", "--task", task.id, *train, env=env)
    call("cloud-aug", "index", "build", "--task", task.id, env=env)


def _through_https(
    fold: Fold, board: Board, game: Game, names: Sequence[str], work: Path
) -> dict[str, tuple[float, str]]:
    """Recipe -> (score, recipe shipped) of a board that enrols, syncs and trains."""
    cloud = {"CLOUD_AUG_DATA": str(work / "cloud")}
    env = {"EDGECTL_STATE": str(work / f"board-{game.number}"), "EDGECTL_THREADS": "1", "EDGECTL_DEVICE": "cpu"}
    token, file = work / f"{game.number}.enrol.json", work / f"{game.number}.npz"
    rows = np.concatenate([local := board.local(game.shots), test := board.held_out(game.shots)])
    part = np.asarray(["local"] * len(local) + ["test"] * len(test))
    group = np.asarray([f"recording-{number}" for number in board.group[rows]])
    np.savez(file, x=board.x[rows], y=np.asarray(fold.task.labels)[board.y[rows]], group=group, part=part)
    output_of("cloud-aug", "boards", "token", "--task", fold.task.id, "--out", token, env=cloud)
    call("edgectl", "enroll", token, env=env)
    call("edgectl", "sync", env=env)
    call("edgectl", "data", "add", file, "--part", "local", env=env)
    call("edgectl", "sync", env=env)
    seed = ("--seed", str(game.place.seed))
    single = ",".join(name for name in names if name != "auto")
    trained = call("edgectl", "train", *seed, env=env) if "auto" in names else {}
    scored = call("edgectl", "eval", file, "--part", "test", "--recipes", single, *seed, env=env)
    by_name = {row["name"]: (float(row[scored["metric"]]), str(row["recipe"])) for row in scored["models"]}
    found = {name: by_name[f"trained {name}"] for name in names if name != "auto"}
    return {**found, "auto": (by_name["serving"][0], str(trained["shipped"]))} if trained else found


def _direct(game: Game, names: Sequence[str], folder: Path) -> dict[str, tuple[float, str]]:
    """The same by calling the functions, as the benchmark does."""
    stage = find_stage(game.place, folder)
    board = stage.fold.boards[game.number]
    setting = make_setting(stage, board, game.shots, game.place.seed)
    test = board.held_out(game.shots)
    found = {}
    for name in names:
        recipe = choose_recipe(stage, setting) if name == "auto" else name
        logits, _ = outputs(load(setting.task, RECIPES[recipe](setting).weights), board.x[test])
        found[name] = (score(setting.task.metric, logits, board.y[test]), recipe)
    return found
