"""The example scripts, as a user would run them, against boards that are scripts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.fleet.conftest import ROOT, Fleet
from tests.fleet.test_commands import TRAINED, asked, board, says

needs_jq = pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq: apt-get install jq")
STATUS = {"enrolled": True, "board": "b", "changed": False, "tasks": [], "board_state": {"temperature_c": 41.0}}


def script(fleet: Fleet, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    line = [str(ROOT / "scripts" / "fleet" / name), str(fleet.homes / "inventory"), *words]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=120, env=dict(os.environ))


def answers(**by_command: object) -> str:
    cases = "".join(f"{name}) {says(document)}\n;;\n" for name, document in by_command.items())
    return f'case "$1" in\n{cases}*) exit 1 ;;\nesac'


def inventory(fleet: Fleet, *lines: str) -> None:
    text = "".join(lines)
    hosts = "".join(
        f"    {line.split()[0]}: {{edgectl: {line.split('edgectl=')[1].split()[0]}}}\n" for line in text.splitlines()
    )
    first = text.split()[0]
    (fleet.homes / "inventory").write_text(
        f"all:\n  hosts:\n{hosts}  children:\n    canaries:\n      hosts: {{{first}: {{}}}}\n"
    )


@needs_jq
def test_a_night_trains_canaries_first_and_keeps_the_tables(fleet: Fleet, tmp_path: Path) -> None:
    well = answers(sync={"changed": True}, train=TRAINED, status=STATUS)
    inventory(fleet, board(fleet, "canary", well), board(fleet, "other", well))
    done = script(fleet, "nightly.sh", str(tmp_path / "nights"))
    assert done.returncode == 0, done.stderr
    (night,) = (tmp_path / "nights").iterdir()
    assert {"canaries.csv", "gains.csv", "boards.csv", "sync.json"} <= {path.name for path in night.iterdir()}
    assert "other,changed,t,blend" in (night / "gains.csv").read_text()


@needs_jq
def test_after_failed_canaries_nobody_else_is_trained(fleet: Fleet, tmp_path: Path) -> None:
    sick = answers(sync={"changed": True}, status=STATUS)
    inventory(
        fleet, board(fleet, "canary", sick), board(fleet, "other", answers(sync={}, train=TRAINED, status=STATUS))
    )
    done = script(fleet, "nightly.sh", str(tmp_path / "nights"))
    assert done.returncode == 12, done.stderr
    assert "canaries failed" in done.stderr
    assert not any(line.startswith("train") for line in asked(fleet, "other"))


@needs_jq
def test_the_hot_ones_are_named_the_hottest_first(fleet: Fleet) -> None:
    states = {
        "cool": {"temperature_c": 40},
        "hot": {"temperature_c": 75},
        "hotter": {"temperature_c": 84, "throttled": True},
    }
    boards = [board(fleet, name, answers(status={**STATUS, "board_state": state})) for name, state in states.items()]
    inventory(fleet, *boards)
    done = script(fleet, "who-is-hot.sh")
    assert (done.returncode, done.stdout) == (1, "84\thotter\tthrottled\t\n75\thot\t\t\n")
    assert script(fleet, "who-is-hot.sh", "90").returncode == 1  # throttled is bad at any heat


def test_new_boards_go_through_all_steps_and_again_changes_nothing(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x")
    script_of_a = answers(sync={"changed": False}, status=STATUS, data={"changed": False})
    inventory(fleet, board(fleet, "a", script_of_a))
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "SHA256SUMS").write_text("")
    (bundle / "install.sh").write_text('mkdir -p "$2"')
    text = (fleet.homes / "inventory").read_text().replace("{edgectl", f"{{prefix: {fleet.home('a')}/opt, edgectl")
    (fleet.homes / "inventory").write_text(text)
    done = [script(fleet, "new-boards.sh", "t", "cloud", str(tmp_path / "{host}.csv"), str(bundle)) for _ in range(2)]
    assert [one.returncode for one in done] == [0, 0], done[0].stdout + done[0].stderr
    assert "already enrolled" in done[1].stdout
    assert any(re.fullmatch(r"data add /var/tmp/\S+/a\.csv --task t --json", line) for line in asked(fleet, "a"))


@needs_jq
def test_boards_that_do_not_answer_are_not_cool(fleet: Fleet) -> None:
    inventory(fleet, board(fleet, "gone", answers()))
    fleet.trouble("gone", "exit 255")
    assert script(fleet, "who-is-hot.sh").returncode == 13
    (fleet.homes / "inventory").unlink()
    assert script(fleet, "who-is-hot.sh").returncode == 1
