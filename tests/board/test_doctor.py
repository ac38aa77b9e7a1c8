"""What fails is named, explained, and has its exit code."""

from __future__ import annotations

import json
import signal

import pytest

from edgectl import doctor
from edgectl.doctor import Probed
from edgewire import errors
from tests.board.conftest import Board


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGILL, "SIGILL: this build uses instructions that this CPU lacks"),
        (signal.SIGKILL, "SIGKILL: it was killed, most often for lack of memory"),
        (signal.SIGUSR1, "SIGUSR1: it was stopped from outside"),
    ],
)
def test_a_signal_is_explained(number: int, words: str) -> None:
    check = doctor.check_training(lambda _: Probed(-number, "", ""))
    assert words in check.detail
    assert (check.outcome, check.exit_code) == ("fail", 7)


def test_without_torch_a_board_can_still_infer() -> None:
    check = doctor.check_training(lambda _: Probed(3, "", ""))
    assert check.outcome == "warn"
    assert "does not train" in check.detail


def test_a_probe_that_hangs_is_a_failure() -> None:
    assert "did not end" in doctor.check_inference(lambda _: Probed(None, "", "")).detail


def test_onnxruntime_runs_here() -> None:
    assert doctor.check_inference(doctor.run_probe).outcome == "ok"


def test_a_process_that_dies_is_told_by_its_signal() -> None:
    probed = doctor.run_probe("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert probed.returncode == -signal.SIGSEGV


def test_a_clock_before_the_last_enrolment_is_wrong(board: Board) -> None:
    with pytest.raises(errors.WrongClock, match="but it was"):
        doctor.check_clock(board.home, now=doctor.BUILT_AT)


def test_little_memory_is_a_warning() -> None:
    assert doctor.check_memory(90.0).outcome == "warn"
    assert doctor.check_memory(None).detail == "this system does not say how much is free"


def test_a_damaged_database_fails_the_whole_examination(board: Board) -> None:
    board.home.database.write_bytes(b"junk" * 5000)
    done = board.edgectl("doctor", "--offline", "--quick", "--json")
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert done.returncode == 8
    assert checks["database"]["outcome"] == "fail"
    assert checks["enrolment"]["outcome"] == "ok"
