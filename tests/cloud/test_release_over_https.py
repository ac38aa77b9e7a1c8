"""A release from the command line to a board's command line, over TLS, and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloud_aug.cloud import open_cloud
from edgewire.decoding import decode
from edgewire.messages import EnrolmentFile
from tests.board.conftest import Board
from tests.cloud import toys
from tests.cloud.backends import files_only
from tests.cloud.releasing import second_base


def sync(board: Board) -> dict[str, object]:
    done = board.edgectl("sync", "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)["tasks"][0]
    return found


@files_only
def test_a_build_says_that_boards_get_its_base_by_a_release_only(data: Path) -> None:
    toys.run("base", "train", "--task", "toy", "--epochs", "5", "--seed", "1", "--no-rehearse", data=data)
    said = toys.run("index", "build", "--task", "toy", "--hold", data=data).stdout
    assert "cloud-aug release create --task toy --base 2" in said
    assert toys.report("index", "build", "--task", "toy", data=data)["held"]


@files_only
@pytest.mark.slow
def test_a_base_reaches_a_board_and_is_called_back(data: Path, tmp_path: Path) -> None:
    made = open_cloud(data)
    second_base(made)
    made.database.close()
    board = Board(tmp_path / "board")
    (tmp_path / "board").mkdir()
    with toys.serving(data):
        token = toys.run("boards", "token", "--task", "toy", data=data).stdout
        decode(EnrolmentFile, token.encode(), what="enrolment file")
        assert board.edgectl("enroll", "-", "--name", "kitchen", stdin=token.encode()).returncode == 0
        assert sync(board)["base_version"] == 1
        file = toys.data_file(tmp_path / "mine.npz", {k: v[:18] for k, v in toys.people(1, seed=9).items()})
        assert board.edgectl("data", "add", str(file)).returncode == 0
        options = ("--base", "2", "--canary", "kitchen", "--waves", "100%", "--soak", "1s", "--max-slowdown", "100")
        release = toys.report("release", "create", "--task", "toy", *options, data=data)["release"]["info"]["id"]
        assert toys.report("release", "start", release, data=data)["release"]["info"]["state"] == "running"
        told = sync(board)
        assert (told["base_version"], told["releases"]) == (2, [f"release {release} is in force"])
        again = toys.run("release", "start", release, "--json", data=data)
        assert (again.returncode, json.loads(again.stdout)["error"]["code"]) == (1, "conflict")
        info = toys.report("release", "abort", release, "--reason", "a test", data=data)["release"]["info"]
        assert (info["state"], info["counts"]["committed"]) == ("aborted", 1)
        assert sync(board)["base_version"] == 1
        info = toys.report("release", "status", release, "--boards", data=data)["release"]["info"]
        assert info["counts"]["reverted"] == 1
