"""Many hosts: who is done when, what is left alone, what is tried again, and how it ends."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgectl.fleet.runner import batch_size
from edgewire.errors import UsageError
from tests.fleet.conftest import ROOT, Fleet, write_program
from tests.fleet.test_once import wait_for

FAILS = "exit 255"


def statuses(lines: list[dict[str, object]]) -> dict[str, str]:
    return {str(line["host"]): str(line["status"]) for line in lines if line["kind"] == "host"}


def test_some_failed_is_12_and_some_unreachable_is_13(fleet: Fleet) -> None:
    fleet.trouble("gone", FAILS)
    code, lines = fleet.run("run", "--retries", "0", "--", "true", hosts="here\ngone\n")
    assert (code, statuses(lines)) == (13, {"here": "changed", "gone": "unreachable"})
    code, lines = fleet.run("run", "--retries", "0", "--", "false", hosts="here\ngone\n")
    assert (code, statuses(lines)) == (12, {"here": "failed", "gone": "unreachable"})
    summary = lines[-1]
    assert (summary["kind"], summary["failed"], summary["unreachable"]) == ("summary", 1, 1)


def test_a_command_that_itself_ends_with_255_has_failed_and_is_not_tried_again(fleet: Fleet) -> None:
    result = fleet.host("run", "--", "exit 255")
    assert (result["status"], result["rc"], result["attempts"]) == ("failed", 255, 1)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("Host key verification failed.", "its host key is not known"),
        ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @", "its host key has changed"),
        ("pi@pi-1: Permission denied (publickey).", "it refuses your key"),
    ],
)
def test_what_trying_again_cannot_cure_is_not_tried_again(fleet: Fleet, said: str, message: str) -> None:
    fleet.trouble("pi-1", f"echo '{said}' >&2; exit 255")
    result = fleet.host("ping")
    assert (result["status"], result["attempts"]) == ("unreachable", 1)
    assert result["message"].startswith(message)


def test_what_a_command_complains_of_before_its_connection_breaks_is_no_reason_to_give_up(fleet: Fleet) -> None:
    broken = """[ ! -e ../broken ] || exec sh -c "$1"; touch ../broken
        sh -c "$1" | sed '/ end /d'; echo 'cp: x: Permission denied' >&2; exit 255"""
    fleet.trouble("pi-1", broken)
    result = fleet.host("run", "--", "echo done")
    assert (result["status"], result["attempts"], result["output"]) == ("changed", 2, "done\n")


def test_batches_stop_when_too_many_of_one_have_failed(fleet: Fleet) -> None:
    for host in ("b", "c"):
        fleet.trouble(host, FAILS)
    line = ["run", "--serial", "2", "--max-fail-percent", "50", "--retries", "0", "--", "true"]
    _, lines = fleet.run(*line, hosts="a\nb\nc\nd\ne\nf\n")
    assert statuses(lines) == dict.fromkeys("ad", "changed") | dict.fromkeys("bc", "unreachable") | dict.fromkeys(
        "ef", "changed"
    )
    fleet.trouble("d", FAILS)
    _, lines = fleet.run(*line, hosts="a\nb\nc\nd\ne\nf\n")
    assert statuses(lines)["e"] == "skipped"
    assert "more than 50 % of a batch failed" in str(lines[-1]["aborted"])


@pytest.mark.parametrize(("text", "size"), [("5", 5), ("20%", 4), ("1%", 1), ("100%", 17)])
def test_a_batch_is_a_number_or_a_share(text: str, size: int) -> None:
    assert batch_size(text, 17) == size


@pytest.mark.parametrize("text", ["0", "-1", "x", "%", "0%"])
def test_a_batch_of_nothing_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        batch_size(text, 17)


def test_a_dry_run_connects_to_nobody(fleet: Fleet) -> None:
    code, lines = fleet.run("run", "--dry-run", "--", "true", hosts="a\nb\n")
    assert (code, statuses(lines), fleet.calls()) == (0, {"a": "skipped", "b": "skipped"}, [])


def test_only_the_limited_hosts_are_asked(fleet: Fleet) -> None:
    fleet.run("ping", "--limit", "b,c", hosts="a\nb\nc\n")
    assert sorted(fleet.calls()) == ["b", "c"]


def test_without_ssh_it_says_how_to_get_it(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert fleet.run("ping") == (1, [])


def test_a_board_that_talks_nonsense_has_failed(fleet: Fleet) -> None:
    nonce = 'n=$(echo "$1" | tr " " "\\n" | grep -xE "[0-9a-f]{16}")'
    fleet.trouble("pi-1", f'{nonce}; printf "\\n@edgectl-fleet %s end what is this\\n" "$n"; exit 0')
    result = fleet.host("run", "--", "true")
    assert (result["status"], result["message"]) == ("failed", "what it answered cannot be read")


def start(fleet: Fleet, *words: str, hosts: str) -> subprocess.Popen[str]:
    inventory = fleet.homes / "hosts"
    inventory.write_text(hosts)
    line = [sys.executable, "-m", "edgectl", "fleet", *words[:1], "-i", str(inventory), "--json", *words[1:]]
    return subprocess.Popen(line, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=dict(os.environ))


def test_ctrl_c_stops_what_runs_on_the_boards_and_says_how_each_was_left(fleet: Fleet) -> None:
    command = "trap 'echo stopped > state; exit 130' TERM; touch began; while :; do sleep 0.1; done"
    with start(fleet, "run", "--forks", "1", "--", command, hosts="a\nb\n") as process:
        wait_for(fleet.home("a") / "began")
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=90)
    lines = [json.loads(line) for line in out.splitlines()]
    assert process.returncode == 130
    assert [(line["status"], line["message"]) for line in lines[:2]] == [
        ("cancelled", "stopped there, with 130"),
        ("cancelled", "not begun"),
    ]
    assert (fleet.home("a") / "state").read_text() == "stopped\n"
    assert not fleet.home("b").exists()


def test_what_is_told_as_stopped_has_stopped(fleet: Fleet) -> None:
    home = fleet.home("a")
    home.mkdir()
    script = f"trap 'sleep 2; touch {home}/checkpoint; exit 130' TERM; touch {home}/began; while :; do sleep 0.1; done"
    write_program(home / "edgectl", f"#!/bin/sh\n{script}\n")
    with start(fleet, "train", hosts=f"a edgectl={home}/edgectl\n") as process:
        wait_for(home / "began")
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=90)
    assert json.loads(out.splitlines()[0])["message"] == "stopped there, with 130"
    assert (home / "checkpoint").exists()


def test_what_was_stopped_before_it_began_never_begins(fleet: Fleet) -> None:
    fleet.trouble("a", "[ -e second ] || { touch second; sleep 60; }")
    with start(fleet, "run", "--operation", "abc", "--", "touch did", hosts="a\n") as process:
        wait_for(fleet.home("a") / "second")
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=90)
    assert json.loads(out.splitlines()[0])["message"] == "it had not begun, and will not"
    assert fleet.host("run", "--operation", "abc", "--", "touch did", hosts="a")["rc"] == 130
    assert not (fleet.home("a") / "did").exists()


def test_what_outlives_its_ssh_holds_up_nobody(fleet: Fleet) -> None:
    """A proxy command in a session of its own keeps the pipes open."""
    fleet.trouble("a", "[ -e second ] || { touch second; setsid sh -c 'while [ -e second ]; do sleep 1; done'; }")
    with start(fleet, "run", "--", "true", hosts="a\n") as process:
        wait_for(fleet.home("a") / "second")
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=90)
        (fleet.home("a") / "second").unlink()
    assert json.loads(out.splitlines()[0])["message"] == "it had not begun, and will not"


def test_the_terminal_shows_a_line_per_host_and_a_recap(fleet: Fleet) -> None:
    from io import StringIO

    from rich.console import Console

    from edgectl.fleet.inventory import Host
    from edgectl.fleet.live import Live
    from edgectl.fleet.results import HostResult, Recap

    out, recap = StringIO(), Recap("abc", 1000)
    with Live("run", 1000, 8, console=Console(file=out, width=80, force_terminal=False)) as live:
        for number in range(1000):
            live.began(Host(f"pi-{number}"))
            result = HostResult(
                f"pi-{number}", "failed" if number % 10 == 0 else "ok", "\x1b[2Jboo" if number == 1 else ""
            )
            recap.count(result)
            live.ended(result)
        live.recap(recap, "")
    lines = out.getvalue().splitlines()
    assert len(lines) < 1000 + 30
    assert "pi-1      ok           \N{REPLACEMENT CHARACTER}[2Jboo" in lines
    assert lines[1001] == "1000 hosts: ok 900, failed 100 (operation abc)"
    assert lines[-1] == "  ... and 80 more; --json has them all"


def test_more_boards_at_a_time_than_a_shell_allows_files_for(fleet: Fleet) -> None:
    (fleet.homes / "hosts").write_text("pi-[01:20]\n")
    command = [sys.executable, "-m", "edgectl", "fleet", "run", "-i", str(fleet.homes / "hosts"), "--json", "sleep 1"]
    line = f"ulimit -Sn 40; exec {shlex.join(command)}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, json.loads(done.stdout.splitlines()[-1])["changed"]) == (0, 20)


def test_each_host_has_its_own_time(fleet: Fleet) -> None:
    """A slow host holds up nobody but itself: the quick ones are told first."""
    fleet.trouble("slow", "sleep 2")
    _, lines = fleet.run("run", "--", "true", hosts="slow\nquick\n")
    assert [line["host"] for line in lines[:2]] == ["quick", "slow"]


def test_pauses_before_another_attempt_grow_and_vary() -> None:
    import asyncio
    from random import Random

    from edgectl.fleet.inventory import Host
    from edgectl.fleet.line import Line, Patience
    from edgectl.fleet.results import Unreachable
    from edgectl.fleet.ssh import Ssh

    pauses = list[float]()

    async def nap(seconds: float) -> None:
        pauses.append(seconds)

    line = Line(Ssh("/bin/false", Path("/dev/null")), Host("x"), "abc", Patience(3, 5, Random(0), nap))
    with pytest.raises(Unreachable):
        asyncio.run(line.look("true"))
    assert line.attempts == 4
    assert all(0.5 * 2**i <= pause <= 1.5 * 2**i for i, pause in enumerate(pauses))
    assert len(set(pauses)) == 3
