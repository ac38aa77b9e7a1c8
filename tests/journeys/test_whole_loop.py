"""From an enrolment file to a personal model and back, over real TLS, by the commands that a user would type."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from cloud_aug import pool
from cloud_aug.cloud import open_cloud
from edgectl import enrolment, tasks
from edgectl.home import Home
from edgectl.material import make_candidates, prepare
from edgectl.store import Store
from edgelearn.models.build import load, outputs
from edgelearn.personalize.recipes import RECIPES
from edgewire.samples import by_user
from tests.cloud import toys
from tests.journeys.conftest import Box, Place, own_file


def test_two_boards_and_a_cloud_go_through_the_whole_loop(place: Place) -> None:
    for name, mode in (("one", "directory"), ("two", "embedding")):
        board, file = place.board(name, mode=mode), own_file(place.folder / f"{name}.npz")
        assert board.report("sync")["changed"]
        assert board.report("data", "add", file, "--part", "local")["added"] == 12
        synced = board.report("sync")["tasks"][0]
        assert synced["mode"] == mode
        trained = board.report("train", "--recipe", "local", "--no-veto")
        assert (trained["changed"], trained["version"], trained["shipped"]) == (True, 1, "local")
        scored = {row["name"]: row["accuracy"] for row in board.report("eval", file, "--part", "test")["models"]}
        assert scored["serving"] > 0.9
        inferred = board.report("infer", file, "--part", "test")
        assert (inferred["version"], len(inferred["predictions"])) == (1, 60)
        assert board.report("sync")["sent"] == 1  # the report of the run
    assert {info["name"] for info in place.cloud("boards", "list")["boards"]} == {"one", "two"}


def test_accuracy_through_https_equals_accuracy_with_the_same_functions_called_directly(shared: Place) -> None:
    board, file = shared.board("one"), own_file(shared.folder / "one.npz", shift=-1.0)
    board.report("sync")
    board.report("data", "add", file, "--part", "local")
    board.report("sync")
    recipes = ("base", "local", "random", "matched", "mpda")
    scored = board.report("eval", file, "--part", "test", "--recipes", ",".join(recipes))
    through_https = {row["recipe"]: row["accuracy"] for row in scored["models"] if row["name"].startswith("trained")}

    service = open_cloud(shared.data)
    shared = pool.load(service, toys.TASK, now=time.time())
    home = Home(board.state)
    manifest = tasks.known_task(home, enrolment.load(home), None, time.time())
    with Store.open(home.database) as store:
        setting = prepare(home, manifest, store, seed=0, device="cpu", threads=1).setting
    model = load(toys.TASK, setting.base)
    direct = make_candidates([shared.samples], set(), embed=lambda x: outputs(model, x)[1])
    assert sorted(len(c.y) for c in direct) == sorted(len(c.y) for c in setting.candidates)
    with np.load(file) as columns:
        test = columns["part"] == "test"
        x, y = columns["x"][test], np.asarray([toys.TASK.labels.index(label) for label in columns["y"][test]])
    # the contributors' true names instead of pseudonyms: the order of equals may differ, nothing else
    names = {c.x.tobytes(): c.name for c in setting.candidates}
    renamed = [type(c)(names[c.x.tobytes()], c.x, c.y, c.embedding) for c in direct]
    for recipe in recipes:
        whole = type(setting)(
            setting.task, setting.base, setting.local, renamed, setting.global_means, setting.settings, setting.seed
        )
        logits, _ = outputs(load(toys.TASK, RECIPES[recipe](whole).weights), x)
        assert float((logits.argmax(axis=1) == y).mean()) == pytest.approx(through_https[recipe], abs=1e-6), recipe
    assert {name for name, _ in by_user(shared.samples)} == {f"person-{i}" for i in range(6)}


def test_what_a_board_shares_reaches_others_and_never_itself(place: Place) -> None:
    giver, taker = place.board("giver"), place.board("taker")
    file = own_file(place.folder / "giver.npz", shift=3.0, per_class=6)
    giver.report("sync")
    giver.report("data", "add", file, "--part", "local")
    assert giver.report("data", "share", "--until", "2099-01-01", "--yes")["shared"] == 18
    assert giver.report("sync")["sent"] == 1
    assert place.cloud("pool", "stats", "--task", "toy")["quarantine"] == 18
    board_id = next(info["board"] for info in place.cloud("boards", "list")["boards"] if info["name"] == "giver")
    assert place.cloud("pool", "accept", "--task", "toy", "--contributor", board_id)["accepted"] == 18
    assert place.cloud("index", "build", "--task", "toy")["changed"]
    taker.report("sync")
    taker.report("data", "add", own_file(place.folder / "taker.npz", shift=2.0, seed=9), "--part", "local")
    assert _candidates(taker) == 7
    giver.report("sync")
    assert _candidates(giver) == 6


def _candidates(board: Box) -> int:
    home = Home(board.state)
    manifest = tasks.known_task(home, enrolment.load(home), None, time.time())
    with Store.open(home.database) as store:
        return len(prepare(home, manifest, store, seed=0, device="cpu", threads=1).setting.candidates)


def test_models_are_staged_committed_and_rolled_back(shared: Place) -> None:
    board, file = shared.board("one"), own_file(shared.folder / "one.npz")
    board.report("sync")
    board.report("data", "add", file, "--part", "local")
    board.report("sync")
    assert board.report("train", "--recipe", "local", "--no-veto")["version"] == 1
    staged = board.report("train", "--recipe", "matched", "--no-veto", "--stage")
    assert (staged["version"], staged["staged"]) == (2, True)
    assert board.report("infer", file)["version"] == 1
    assert board.report("model", "commit")["version"] == 2
    assert board.report("infer", file)["version"] == 2
    shown = board.report("model", "show")
    assert (shown["recipe"], shown["signed"], len(shown["samples"])) == ("matched", True, 12)
    assert board.report("model", "rollback")["version"] == 1
    assert board.report("model", "commit")["version"] == 2
    states = {row["version"]: row["state"] for row in board.report("model", "list")["models"]}
    assert states == {1: "previous", 2: "current"}


def test_training_again_with_nothing_new_changes_nothing_and_new_samples_make_a_new_version(shared: Place) -> None:
    board, file = shared.board("one"), own_file(shared.folder / "one.npz")
    board.report("sync")
    board.report("data", "add", file, "--part", "local")
    first = board.report("train", "--recipe", "local", "--no-veto")
    again = board.report("train", "--recipe", "local", "--no-veto")
    assert (first["changed"], again["changed"], again["version"]) == (True, False, 1)
    board.report("data", "add", own_file(shared.folder / "more.npz", seed=51), "--part", "local")
    assert board.report("train", "--recipe", "local", "--no-veto")["version"] == 2


def test_two_boards_with_one_seed_and_the_same_samples_make_the_same_bytes(shared: Place) -> None:
    file = own_file(shared.folder / "same.npz")
    models = []
    for name in ("one", "two"):
        board = shared.board(name)
        board.report("sync")
        board.report("data", "add", file, "--part", "local")
        board.report("train", "--recipe", "mpda", "--no-veto", "--seed", "7")
        models.append((board.state / "models/toy/current/model.onnx").read_bytes())
    assert models[0] == models[1]


def test_one_sample_per_class_is_a_normal_case_and_the_output_says_what_decided(shared: Place) -> None:
    board, file = shared.board("one"), own_file(shared.folder / "one.npz", per_class=1)
    board.report("sync")
    board.report("data", "add", file, "--part", "local")
    done = board.run("train", "--json")
    assert done.returncode == 0, done.stderr
    assert "rehearsal" in done.stderr
    assert json.loads(done.stdout)["shipped"] == "base"  # the toy cloud published no rehearsal


def test_a_board_that_was_granted_another_key_of_the_server_follows_it(place: Place) -> None:
    board = place.board("one")
    board.report("sync")
    assert place.cloud("keys", "rotate", "signing")["changed"]
    board.report("sync")
    assert enrolment.load(Home(board.state)).trust.version == 2


def test_inference_on_csv_from_standard_input_prints_a_line_per_sample(shared: Place) -> None:
    board = shared.board("one")
    board.report("sync")
    csv = shared.folder / "some.csv"
    csv.write_text("a,b\n-3,-2\n3,-2\n0,3\n")
    done = board.run("infer", csv)
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["left", "right", "top"]


def test_training_cannot_reach_the_network() -> None:
    import subprocess
    import sys

    script = (
        "from edgectl.retraining import seal_network; import socket; seal_network()\n"
        "try: socket.create_connection(('127.0.0.1', 9), 1)\n"
        "except PermissionError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert "opens no socket" in done.stdout
