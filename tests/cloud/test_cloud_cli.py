"""The command line: what it says, what it returns, and that twice is no more than once."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from edgewire.decoding import encode
from tests.cloud import toys
from tests.cloud.toys import report, run

BACKENDS = ("files",)  # what stands below makes no difference here


def test_the_whole_set_up_through_the_console_and_twice(tmp_path):
    data, file = tmp_path / "cloud", toys.data_file(tmp_path / "people.npz")
    consent = ("--consent", "packs", "--consent-until", "2099-12-31")
    steps = [
        ("init", "--host", "localhost", "--url", "https://localhost:8443"),
        ("task", "publish", str(tmp_path / "toy.json")),
        ("pool", "ingest", str(file), "--task", "toy", *consent),
        ("base", "train", "--task", "toy", "--epochs", "2", "--no-rehearse"),
        ("index", "build", "--task", "toy"),
    ]
    made = subprocess.run(
        [
            sys.executable,
            "-m",
            "cloud_aug",
            "task",
            "template",
            "--from",
            str(file),
            "--id",
            "toy",
            "-o",
            str(tmp_path / "toy.json"),
        ],
        env=toys.environment(),
        check=True,
    )
    assert made.returncode == 0
    for step in steps:
        first, again = report(*step, data=data), report(*step, data=data)
        assert (step[:2], first["changed"], again["changed"]) == (step[:2], True, False)
        assert first["schema_version"] == 1
    listed = report("task", "list", data=data)["tasks"][0]
    assert (listed["base_version"], listed["publication"]) == (1, 1)
    assert report("pool", "stats", "--task", "toy", data=data)["usable"] == 108


def test_an_enrolment_file_is_private_and_enrols_a_board(data, client, clock):
    out = data / "board.json"
    done = run("boards", "token", "--task", "toy", "--out", str(out), data=data)
    assert (done.returncode, done.stdout) == (0, "")
    assert out.stat().st_mode & 0o777 == 0o600
    clock.now = time.time()
    token = json.loads(out.read_text())["token"]
    assert client.post("/v1/enroll", content=toys.Board().enrolment(token, now=clock())).status_code == 200
    name = report("boards", "list", data=data)["boards"][0]["name"]
    assert report("boards", "revoke", name, data=data)["changed"]
    assert not report("boards", "revoke", name, data=data)["changed"]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "says"),
    [
        (["task", "show", "nothing"], 1, "task list"),
        (["boards", "revoke", "nobody"], 1, "boards list"),
        (["boards", "token", "--task", "toy", "--valid-for", "soon"], 2, "24h"),
        (["pool", "stats"], 2, "--task"),
        (["keys", "rotate", "everything"], 2, "everything"),
        (["base", "train", "--task", "toy", "--shots", "few"], 2, "--shots"),
        (["keys", "rotate", "root", "--offline", "/nowhere"], 1, "offline"),
    ],
)
def test_a_mistake_is_named_with_what_to_do_and_its_exit_code(data, arguments, exit_code, says):
    done = run(*arguments, data=data)
    assert done.returncode == exit_code
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_errors_are_data_too_with_json(tmp_path):
    done = run("task", "list", "--json", data=tmp_path / "nothing")
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (1, "not_found")


def test_a_build_while_another_runs_is_busy(data):
    from cloud_aug import cloud

    with cloud.open_cloud(data).locked("index-toy", doing="building"):
        done = run("index", "build", "--task", "toy", data=data)
    assert (done.returncode, "another process" in done.stderr) == (9, True)


def test_a_read_only_data_folder_is_named(data):
    import shutil

    shutil.rmtree(data / "locks")
    (data / "locks").write_text("a file where a folder should be")
    done = run("task", "list", data=data)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


def test_keys_and_administrators_are_shown(data):
    shown = report("keys", "show", data=data)
    assert (shown["trust_version"], len(shown["roots"]), shown["tls"]["hosts"]) == (1, 1, list(toys.HOSTS))
    assert report("keys", "rotate", "signing", data=data)["changed"]
    assert len(report("keys", "show", data=data)["signing"]) == 2
    assert report("admin", "token", "--name", "ann", data=data)["token"].startswith("admin_")


def test_help_loads_no_heavy_library():
    program = (
        "import sys; from cloud_aug.cli import app; "
        "heavy = {'torch', 'faiss', 'onnxruntime', 'fastapi', 'sqlalchemy', 'numpy', 'alembic'} & set(sys.modules); "
        "print(sorted(heavy))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=toys.environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_serving_and_matching_need_no_torch():
    program = "import sys, cloud_aug.app, cloud_aug.index; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], env=toys.environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_the_pool_is_judged_and_cleared_from_the_command_line(data, tmp_path):
    task = ("--task", "toy")
    late = toys.data_file(tmp_path / "late.npz", {**toys.people(1, seed=5), "user": np.full(18, "late")})
    consent = ("--consent", "packs", "--consent-until", "2099-12-31")
    assert toys.report("pool", "ingest", str(late), *task, *consent, "--quarantine", data=data)["accepted"] == 18
    assert toys.report("pool", "screen", *task, "--apply", data=data)["screened"][0]["passes"]
    assert toys.report("pool", "reject", *task, "--contributor", "late", data=data)["rejected"] == 18
    assert toys.report("pool", "expire", *task, data=data)["expired"] == 18
    deleted = toys.report("pool", "delete", *task, "--contributor", "person-0", data=data)
    assert (deleted["number"], deleted["samples"], deleted["changed"]) == (1, 18, True)
    again = toys.report("pool", "ingest", str(late), *task, *consent, "--renewed", "nobody", data=data)
    assert again["accepted"] == 18
    stats = toys.report("pool", "stats", *task, data=data)
    assert (stats["usable"], stats["withdrawals"]) == (108, 1)
    assert toys.run("pool", "delete", *task, "--contributor", "nobody", data=data).returncode == 1


def test_a_task_is_tried_before_any_board_gets_it_and_nothing_is_kept(data, tmp_path):
    file, task = toys.data_file(tmp_path / "people.npz"), tmp_path / "draft.json"
    task.write_bytes(encode(replace(toys.TASK, id="draft")))
    quick = ("--shots", "1", "--epochs", "1")
    before = report("task", "list", data=data)
    trial = report("task", "try", str(task), "--samples", str(file), *quick, data=data)["trial"]
    assert (trial["users"], trial["samples"]) == (6, 108)
    assert {figure["boards"] for figure in trial["figures"]} == {6}
    assert {"local", "matched"} <= {figure["recipe"] for figure in trial["figures"]}
    assert report("task", "list", data=data) == before


def test_a_task_whose_users_cannot_play_is_told_so(data, tmp_path):
    file = toys.data_file(tmp_path / "two.npz", toys.people(2))
    task = tmp_path / "draft.json"
    task.write_bytes(encode(toys.TASK))
    failed = run("task", "try", str(task), "--samples", str(file), data=data)
    assert failed.returncode == 2
    assert "too few of the 2 users could play a board" in failed.stderr


def test_a_task_is_pushed_to_boards_and_taken_from_them(data, client, cloud, clock):
    clock.now = time.time()
    toys.Board().enroll(client, cloud, now=clock())
    assert report("task", "recall", "toy", "--profile", "gen*", data=data)["had"] == 1
    pushed = report("task", "push", "toy", "--board", "board-*", data=data)
    assert (pushed["boards"], pushed["new"]) == (1, 1)
    assert not report("task", "push", "toy", "--board", "*", data=data)["changed"]
    assert run("task", "push", "toy", data=data).returncode == 2
    assert run("task", "push", "toy", "--board", "nobody-*", data=data).returncode == 1
