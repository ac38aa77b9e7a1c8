"""What each fleet command asks of a board and makes of its answer. The board's edgectl is a script here."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import subprocess
from pathlib import Path

import pytest

from edgectl.fleet.collecting import gains
from edgectl.fleet.inventory import Host
from edgectl.fleet.ssh import Ssh
from tests.fleet.conftest import Fleet, write_program

TRAINED = {
    "changed": True,
    "task": "t",
    "shipped": "blend",
    "version": 3,
    "gain": 0.042,
    "local_samples": 12,
    "kept": 5,
}


def board(fleet: Fleet, name: str, script: str) -> str:
    """A host whose edgectl is that script; its line of the inventory."""
    home = fleet.home(name)
    home.mkdir(exist_ok=True)
    write_program(home / "edgectl", f'#!/bin/sh\necho "$@" >> {home}/asked\n{script}\n')
    return f"{name} edgectl={home}/edgectl\n"


def says(document: object, code: int = 0) -> str:
    return f"cat <<'END'\n{json.dumps(document)}\nEND\nexit {code}"


def asked(fleet: Fleet, name: str) -> list[str]:
    return (fleet.home(name) / "asked").read_text().splitlines()


def test_ping_tells_a_wrong_clock_and_a_missing_edgectl(fleet: Fleet) -> None:
    write_program(fleet.homes.parent / "bin" / "date", "#!/bin/sh\necho 1000\n")
    (fleet.homes.parent / "bin" / "edgectl").unlink()
    result = fleet.host("ping")
    assert result["answer"]["edgectl"] is None
    assert result["answer"]["clock_ahead_s"] < -1_000_000_000
    assert "s behind -> timedatectl" in result["message"]
    assert "no edgectl -> edgectl fleet install" in result["message"]


def test_train_ends_with_a_table_of_gains(fleet: Fleet, tmp_path: Path) -> None:
    hosts = board(fleet, "a", says(TRAINED)) + board(
        fleet, "b", says({"changed": False, "shipped": "base", "reason": "-=x"})
    )
    out = tmp_path / "gains.csv"
    code, lines = fleet.run("train", "--csv", str(out), "--task", "t", "--", "--max-seconds", "60", hosts=hosts)
    assert (code, asked(fleet, "a")) == (0, ["train --task t --max-seconds 60 --json"])
    with out.open() as opened:
        rows = {row["host"]: row for row in csv.DictReader(opened)}
    assert (rows["a"]["shipped"], rows["a"]["gain"], rows["a"]["local_samples"]) == ("blend", "0.042", "12")
    assert lines[-1]["said"].startswith("1 of 2 boards have a new model, believed to gain +4.2 points")


def test_a_text_that_a_spreadsheet_would_run_is_only_text(fleet: Fleet, tmp_path: Path) -> None:
    hosts = board(fleet, "a", says({**TRAINED, "shipped": "=cmd|' /C calc'!A0"}))
    fleet.run("train", "--csv", str(tmp_path / "gains.csv"), hosts=hosts)
    assert "a,changed,t,'=cmd|" in (tmp_path / "gains.csv").read_text()


def test_gains_of_nobody_are_no_gains() -> None:
    assert gains([]) == "0 of 0 boards have a new model"


def test_training_may_go_on_alone_and_be_followed_later(fleet: Fleet) -> None:
    hosts = board(fleet, "a", f"while [ ! -e {fleet.homes}/go ]; do sleep 0.05; done\n{says(TRAINED)}")
    begun = fleet.host("train", "--detach", "--operation", "abc", hosts=hosts)
    assert (begun["status"], begun["message"]) == ("changed", "begun; it goes on there")
    (fleet.homes / "go").touch()
    later = fleet.host("train", "--operation", "abc", hosts=hosts)
    assert (later["answer"]["version"], len(asked(fleet, "a"))) == (3, 1)


def test_the_boards_own_complaint_is_told_with_what_to_do(fleet: Fleet) -> None:
    hosts = board(
        fleet, "a", "echo 'edgectl: the cloud cannot be reached' >&2; echo '  -> try again later' >&2; exit 3"
    )
    result = fleet.host("sync", hosts=hosts)
    assert (result["status"], result["rc"], result["attempts"]) == ("failed", 3, 1)
    assert result["message"] == "the cloud cannot be reached; try again later"


def test_a_missing_sudo_is_no_missing_edgectl(fleet: Fleet) -> None:
    write_program(fleet.homes.parent / "bin" / "sudo", "#!/bin/sh\necho 'sh: 1: exec: sudo: not found' >&2; exit 127\n")
    assert fleet.host("sync", hosts="pi-1 become=nobody\n")["message"].startswith("sudo is not there")


def test_nothing_to_do_is_no_failure(fleet: Fleet) -> None:
    hosts = board(fleet, "a", "echo 'edgectl: nothing new' >&2; exit 5")
    assert fleet.host("train", hosts=hosts)["status"] == "ok"


@pytest.mark.parametrize("said", ["", "{", '"text"', "junk {}", "[" * 100_000])
def test_an_answer_that_cannot_be_read_is_a_failure(fleet: Fleet, said: str) -> None:
    (fleet.homes / "said").write_text(said)
    hosts = board(fleet, "a", f"cat {fleet.homes}/said")
    result = fleet.host("status", hosts=hosts)
    assert (result["status"], result["message"][:31]) == ("failed", "what it answered cannot be read")


def test_each_board_gets_its_own_file_and_none_is_no_failure(fleet: Fleet, tmp_path: Path) -> None:
    hosts = "".join(board(fleet, name, f'cp "$3" {fleet.home(name)}/got; {says({"changed": True})}') for name in "ab")
    (tmp_path / "a.csv").write_text("only for a")
    code, lines = fleet.run("data", "push", str(tmp_path / "{host}.csv"), hosts=hosts)
    assert (code, sorted((line["host"], line["status"]) for line in lines[:2])) == (
        0,
        [("a", "changed"), ("b", "skipped")],
    )
    assert (fleet.home("a") / "got").read_text() == "only for a"


def test_a_recording_has_the_name_that_it_has_here(fleet: Fleet, tmp_path: Path) -> None:
    """Windows of one recording are never split between folds, however often it is pushed."""
    hosts = board(fleet, "a", says({"changed": True}))
    (tmp_path / "photos of a" / "cat").mkdir(parents=True)
    (tmp_path / "photos of a" / "cat" / "1.png").write_bytes(b"png")
    (tmp_path / "it's.csv").write_text("x\n1\n")
    for name in ("photos of a", "it's.csv"):
        fleet.run("data", "push", str(tmp_path / name), hosts=hosts)
    assert [line.split("/")[-1] for line in asked(fleet, "a")] == ["photos of a --json", "it's.csv --json"]


def test_a_folder_arrives_as_a_folder_and_leaves_nothing_behind(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "photos" / "cat" / "1.png").write_bytes(b"png")
    hosts = board(
        fleet, "a", f'cp -r "$3" {fleet.home("a")}/got; echo "$3" > {fleet.home("a")}/where; {says({"changed": True})}'
    )
    fleet.run("data", "push", str(tmp_path / "photos"), "--task", "t", hosts=hosts)
    assert (fleet.home("a") / "got" / "cat" / "1.png").read_bytes() == b"png"
    assert asked(fleet, "a")[0].endswith("--task t --json")
    assert not Path((fleet.home("a") / "where").read_text().strip()).exists()


def bundle(tmp_path: Path, script: str) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "SHA256SUMS").write_text("")
    write_program(folder / "install.sh", script)
    return folder


def install(fleet: Fleet, folder: Path, *more: str) -> dict[str, object]:
    prefix = fleet.home("a") / "opt" / "edgectl"
    prefix.parent.mkdir(parents=True, exist_ok=True)
    return fleet.host("install", "--bundle", str(folder), "--prefix", str(prefix), "--no-root", *more, hosts="a")


def test_installing_passes_arguments_on_and_twice_is_once(fleet: Fleet, tmp_path: Path) -> None:
    folder = bundle(tmp_path, '#!/bin/sh\nmkdir -p "$2"; echo "$*" >> "$2/args"; echo "[install] done: here"\n')
    said = [install(fleet, folder, "--", "--no-units") for _ in range(2)]
    assert [(result["status"], result["message"]) for result in said] == [
        ("changed", "done: here"),
        ("ok", "already installed"),
    ]
    prefix = fleet.home("a") / "opt" / "edgectl"
    assert (prefix / "args").read_text() == f"--prefix {prefix} --no-units\n"
    assert install(fleet, folder, "--again", "--", "--no-units")["status"] == "changed"


def test_what_the_installer_complains_of_is_told(fleet: Fleet, tmp_path: Path) -> None:
    said = "echo '[install] error: no Python' >&2; echo '[install]   -> apt-get install python3' >&2; exit 7"
    result = install(fleet, bundle(tmp_path, f"#!/bin/sh\n{said}\n"))
    assert (result["status"], result["rc"]) == ("failed", 7)
    assert result["message"] == "no Python; -> apt-get install python3"


def test_of_two_operators_who_install_at_once_one_is_told(fleet: Fleet, tmp_path: Path) -> None:
    folder = bundle(tmp_path, "#!/bin/sh\n")
    above = fleet.home("a") / "opt"
    above.mkdir(parents=True)
    descriptor = os.open(above, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        assert install(fleet, folder)["message"] == "somebody else is installing there"
    finally:
        os.close(descriptor)


def test_enrolling_needs_to_know_where_tokens_come_from(fleet: Fleet) -> None:
    assert fleet.run("enroll") == (2, [])


def test_a_token_command_that_fails_is_told_for_the_host_and_costs_no_other(fleet: Fleet, tmp_path: Path) -> None:
    token = write_program(
        tmp_path / "token", "#!/bin/sh\n[ $1 = a ] || { echo no such task >&2; exit 1; }\necho '{}'\n"
    )
    status = f'[ "$1" = status ] && {{ {says({"enrolled": False})}\n}}'
    answer = f"{status}\ncat > {fleet.homes}/token-of; {says({'changed': True, 'board': 'b1'})}"
    hosts = "".join(board(fleet, name, answer) for name in "ab")
    code, lines = fleet.run("enroll", "--token-command", f"{token} {{host}}", hosts=hosts)
    found = {line["host"]: line for line in lines[:2]}
    assert (code, found["a"]["status"], found["b"]["status"]) == (12, "changed", "failed")
    assert "no such task" in found["b"]["message"]
    assert asked(fleet, "a") == ["status --json", "enroll - --name a --json"]


def test_become_and_state_reach_the_board(fleet: Fleet) -> None:
    sudo = '#!/bin/sh\nprintf "%s " "$@" > "$HOME/sudo"\nshift 4\nexec "$@"\n'
    write_program(fleet.homes.parent / "bin" / "sudo", sudo)
    hosts = (
        board(fleet, "a", says({"enrolled": True, "board": "b1"})).strip() + " become=edgectl state=/var/lib/edgectl\n"
    )
    assert fleet.host("status", hosts=hosts)["status"] == "ok"
    assert asked(fleet, "a") == ["--state /var/lib/edgectl status --json"]
    assert (fleet.home("a") / "sudo").read_text().startswith("-n -u edgectl -- ")


def test_a_board_without_the_user_that_install_makes_can_be_met(fleet: Fleet) -> None:
    write_program(fleet.homes.parent / "bin" / "sudo", "#!/bin/sh\necho 'sudo: unknown user edgectl' >&2; exit 1\n")
    (fleet.homes.parent / "bin" / "edgectl").unlink()
    for words in (("enroll", "--keys-only"), ("ping",)):
        assert fleet.host(*words, hosts="pi-1 become=edgectl\n")["status"] == "ok"


def test_collecting_writes_a_file_per_host_and_a_row_per_task(fleet: Fleet, tmp_path: Path) -> None:
    status = {
        "enrolled": True,
        "board": "b1",
        "tasks": [{"task": "t", "samples": 7}],
        "board_state": {"temperature_c": 51.5},
    }
    models = {"task": "t", "models": [{"version": 2, "state": "current", "recipe": "blend", "gain": 0.1}]}
    hosts = board(fleet, "a", f'[ "$1" = status ] && {{ {says(status)}\n}}\n{says(models)}')
    fleet.run("collect", "--out", str(tmp_path / "out"), "--csv", str(tmp_path / "all.csv"), hosts=hosts)
    assert json.loads((tmp_path / "out" / "a.json").read_text())["models"] == [models]
    assert (tmp_path / "all.csv").read_text().splitlines()[1] == "a,ok,t,7,2,blend,0.1,,,51.5"


def test_the_settings_may_name_the_inventory(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgectl import cli

    (fleet.homes / "mine").write_text("pi-9\n")
    monkeypatch.setenv("EDGECTL_FLEET_INVENTORY", str(fleet.homes / "mine"))
    assert cli.run(["fleet", "ping", "--json"]) == 0
    assert fleet.calls() == ["pi-9"]


@pytest.mark.parametrize("operation", ["", "../x", "A B", "-x"])
def test_an_operation_that_is_no_id_is_refused(fleet: Fleet, operation: str) -> None:
    assert fleet.run("run", f"--operation={operation}", "--", "true")[0] == 2
    assert not any(".." in path.name for path in fleet.homes.rglob("*"))


@pytest.mark.parametrize(
    "answer",
    [
        {"enrolled": True, "tasks": ["x"]},
        {"enrolled": True, "board_state": None},
        {"enrolled": True, "board": "\ud800"},
        {"enrolled": False, "tasks": ["x"]},
        {"enrolled": True, "tasks": [{"task": "\ud800"}]},
    ],
)
def test_an_odd_answer_of_one_board_is_no_end_for_the_others(fleet: Fleet, tmp_path: Path, answer: object) -> None:
    hosts = board(fleet, "odd", says(answer)) + board(fleet, "well", says({"enrolled": True, "board": "b"}))
    _, lines = fleet.run("status", "--forks", "1", hosts=hosts)
    assert (lines[-1]["kind"], lines[1]["status"]) == ("summary", "ok")
    table = tmp_path / "all.csv"
    assert fleet.run("collect", "--csv", str(table), hosts=hosts)[1][-1]["kind"] == "summary"
    assert table.exists()


@pytest.mark.parametrize(
    "words",
    [
        ("data", "push", "nowhere.npz"),
        ("data", "push", "nowhere/{host}.npz"),
        ("data", "push", "nowhere/for-{host}/x.npz"),
        ("install", "--bundle", "nowhere"),
        ("enroll", "--tokens", "nowhere"),
        ("train", "--csv", "nowhere/gains.csv"),
        ("collect", "--csv", "nowhere/boards.csv"),
    ],
)
def test_a_misspelt_path_is_told_before_anything_is_done(fleet: Fleet, words: tuple[str, ...]) -> None:
    assert fleet.run(*words) == (1, [])
    assert fleet.calls() == []


def test_a_command_that_the_user_has_for_logins_is_not_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("Host *\n  RemoteCommand tmux\n")
    line = Ssh("ssh", tmp_path / "config").command(Host("kitchen"), ["true"])
    done = subprocess.run([*line[:1], "-G", *line[1:]], capture_output=True, text=True, check=True)
    assert "remotecommand tmux" not in done.stdout


def test_an_address_may_name_the_interface() -> None:
    host = Host("kitchen", vars={"address": "fe80::1%eth0"})
    line = Ssh("ssh", Path("/dev/null")).command(host, ["true"])
    done = subprocess.run([*line[:1], "-G", *line[1:]], capture_output=True, text=True, check=True)
    assert "hostname fe80::1%eth0\n" in done.stdout


def test_what_a_link_points_to_is_sent(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.png").write_bytes(b"png")
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "photos" / "cat" / "1.png").symlink_to(tmp_path / "elsewhere.png")
    hosts = board(fleet, "a", f'cp -r "$3" {fleet.home("a")}/got; {says({"changed": True})}')
    fleet.run("data", "push", str(tmp_path / "photos"), hosts=hosts)
    got = fleet.home("a") / "got" / "cat" / "1.png"
    assert (got.is_symlink(), got.read_bytes()) == (False, b"png")


def test_a_token_that_is_no_enrolment_file_by_its_size_is_not_sent(fleet: Fleet) -> None:
    hosts = board(fleet, "a", says({"enrolled": False}))
    result = fleet.host("enroll", "--token-command", "head -c 5000000 /dev/zero", hosts=hosts)
    assert (result["status"], result["message"][:33]) == ("failed", "no token: an enrolment file has a")
    assert asked(fleet, "a") == ["status --json"]
