"""`edgectl agent` as a service manager sees it: one instance, notifications, signals, kill -9; and its children."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgectl.agent.children import Children
from edgectl.agent.events import Events
from edgectl.agent.notify import to_manager
from edgectl.stopping import Stop
from edgectl.store import Store
from edgewire.files import exclusive
from tests.board.conftest import ROOT, Board

CSV = "y,group,a,b,c,d,e,f\nwave,one,1,2,3,4,5,6\npoint,two,6,5,4,3,2,1\n"
QUICK = {
    "EDGECTL_AGENT_WATCH_SECONDS": "1",
    "EDGECTL_AGENT_SYNC_SECONDS": "0",
    "EDGECTL_AGENT_TRAIN_SECONDS": "0",
    "EDGECTL_THREADS": "1",
}


@contextlib.contextmanager
def running(board: Board, *options: str, **more: str) -> Iterator[subprocess.Popen[str]]:
    """An agent, killed in the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "edgectl", "agent", *options],
        env={**board.environment, **QUICK, **more},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def drop(board: Board, name: str = "one.csv", text: str = CSV) -> None:
    board.home.inbox.mkdir(parents=True, exist_ok=True)
    (board.home.inbox / name).write_text(text)


def stored(board: Board) -> int:
    with Store.open(board.home.database) as store:
        return sum(store.label_counts("gestures").values())


def seen(process: subprocess.Popen[str], kind: str) -> dict[str, Any]:
    """The next event of that kind on stdout."""
    assert process.stdout is not None
    for line in process.stdout:
        event: dict[str, Any] = json.loads(line)
        if event["event"] == kind:
            return event
    raise AssertionError(f"it ended without {kind}: {process.communicate()}")


def test_once_adds_what_was_dropped_and_refuses_what_does_not_fit(board: Board) -> None:
    drop(board)
    drop(board, "bad.csv", "y,a\nwave,1\n")
    with running(board, "--once", "--json") as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    events = {event["event"]: event for event in map(json.loads, out.splitlines())}
    assert events["added"]["added"] == stored(board) == 2
    assert sorted(path.name for path in (board.home.inbox / "refused").iterdir()) == ["bad.csv", "bad.csv.reason.txt"]


def test_a_disk_that_refuses_readings_is_a_matter_of_health(board: Board) -> None:
    board.home.lock("telemetry").mkdir()
    with running(board, "--once", "--json") as process:
        out, _ = process.communicate(timeout=60)
    (health,) = (event for event in map(json.loads, out.splitlines()) if event["event"] == "health")
    assert (process.returncode, health["problems"][-1].startswith("readings are not kept: Is a directory")) == (0, True)


def test_killed_at_any_moment_nothing_is_lost_and_nothing_is_there_twice(board: Board) -> None:
    for number in range(4):
        drop(board, f"{number}.csv", f"y,a,b,c,d,e,f\nwave,{number},2,3,4,5,6\n")
    for number in range(4):
        with running(board, "--json") as process:
            seen(process, "added")
            time.sleep(0.1 * number)
            process.kill()
    with running(board, "--once", "--json") as process:
        process.communicate(timeout=60)
    assert stored(board) == 4
    assert sorted(path.name for path in (board.home.inbox / "done").iterdir()) == [f"{n}.csv" for n in range(4)]


def test_there_is_only_one_agent(board: Board) -> None:
    with exclusive(board.home.lock("agent"), doing="testing"), running(board, "--once") as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 9
    assert "agent" in err


def test_a_board_that_belongs_nowhere_and_wrong_settings_are_said(newcomer: Board, board: Board) -> None:
    with running(board, "--once", EDGECTL_AGENT_WATCH_SECONDS="soon") as process:
        _, err = process.communicate(timeout=60)
    assert (process.returncode, "EDGECTL_AGENT_WATCH_SECONDS" in err) == (2, True)
    board.home.enrolment.unlink()
    with running(board, "--once", "--json") as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, "enroll" in err) == (10, True)
    assert json.loads(out)["event"] == "end"


@pytest.mark.parametrize("abstract", [False, True])
def test_the_service_manager_is_told(board: Board, tmp_path: Path, abstract: bool) -> None:
    name = f"@edgectl-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if abstract else name)
        manager.settimeout(60)
        with running(board, NOTIFY_SOCKET=name) as process:
            assert manager.recv(4096) == b"READY=1"
            assert manager.recv(4096).startswith(b"STATUS=")
            process.send_signal(signal.SIGTERM)
            told = [manager.recv(4096)]
            while told[-1] != b"STOPPING=1":
                told.append(manager.recv(4096))
            assert process.wait(60) == 0


def test_a_manager_that_is_gone_or_does_not_listen_holds_nothing_up(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    to_manager({"NOTIFY_SOCKET": path})("READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        for _ in range(5000):
            to_manager({"NOTIFY_SOCKET": path})("STATUS=again")


class Gone(io.StringIO):
    """Nobody reads it any more."""

    def flush(self) -> None:
        raise BrokenPipeError


def test_a_reader_that_went_away_does_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", Gone())
    Events(lambda message: None, lambda: 0.0, as_json=True).tell("added", "one")


def test_the_loop_imports_nothing_heavy(board: Board) -> None:
    drop(board)
    script = (
        "import sys; from edgectl.cli import run; code = run(['agent', '--once']);"
        "heavy = {'torch', 'onnxruntime', 'numpy', 'requests'} & sys.modules.keys();"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    environment = {**board.environment, **QUICK}
    done = subprocess.run([sys.executable, "-c", script], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert stored(board) == 2


# Children and signals


def test_a_child_that_is_asked_to_stop_gets_sigterm(tmp_path: Path) -> None:
    """`telemetry watch` never ends by itself."""
    done = Children(tmp_path, lambda: True).run(["telemetry", "watch", "--every", "600"], None)
    assert done.code == -signal.SIGTERM


def test_a_child_past_its_limit_is_ended(tmp_path: Path) -> None:
    done = Children(tmp_path, lambda: False).run(["telemetry", "watch", "--every", "600"], 0.0)
    assert done.code == -signal.SIGTERM


def test_a_child_imports_nothing_of_the_folder_where_somebody_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "typer.py").write_text("raise SystemExit('of a stranger')")
    monkeypatch.chdir(tmp_path)
    assert Children(tmp_path, lambda: False).run(["--version"], None).code == 0


def test_a_child_says_why_it_failed(tmp_path: Path) -> None:
    done = Children(tmp_path, lambda: False).run(["sync", "--json"], None)
    assert done.code == 10
    assert "enroll" in done.said


def test_a_signal_wakes_whoever_waits_and_the_second_ends_it() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Stop().listening() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(3600.0)
        with pytest.raises(KeyboardInterrupt):
            stop.sleep(3600.0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before
