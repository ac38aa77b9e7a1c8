"""What fails is named, explained, and has its exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgectl import doctor
from edgectl.board import profile
from edgectl.remedies import Probed, remedy, why
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
    check = doctor.check_training(lambda _: Probed(-number, "", ""), {})
    assert words in check.detail
    assert (check.outcome, check.exit_code) == ("fail", 7)


def test_without_torch_a_board_can_still_infer() -> None:
    check = doctor.check_training(lambda _: Probed(3, "", ""), {})
    assert check.outcome == "warn"
    assert "does not train" in check.detail


def test_a_probe_that_hangs_is_a_failure() -> None:
    assert "did not end" in doctor.check_inference(lambda _: Probed(None, "", ""), {}).detail


def test_onnxruntime_runs_here() -> None:
    assert doctor.check_inference(doctor.run_probe, {}).outcome == "ok"


def test_what_every_command_imports_loads_here() -> None:
    check = doctor.check_imports(doctor.run_probe, {})
    assert check.outcome == "ok"
    assert "cryptography" in check.detail


def test_a_library_under_another_name_is_no_end_of_the_examination(monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime-gpu brings the module onnxruntime, and no package of that name."""
    monkeypatch.setattr(doctor.fit, "installed", lambda name: None if name == "onnxruntime" else "1.0")
    assert "onnxruntime unknown, requests 1.0" in doctor.check_python().detail


def test_the_import_that_kills_is_named() -> None:
    check = doctor.check_imports(lambda _: Probed(-signal.SIGILL, "numpy\ncryptography\n", ""), {})
    assert check.detail.startswith("cryptography: ended by SIGILL")


ILLEGAL = Probed(-signal.SIGILL, "", "")
# onnxruntime 1.22.0 in a chroot without /sys, under qemu
NO_PROCESSORS = Probed(
    -signal.SIGABRT,
    "",
    "Error in cpuinfo: failed to parse both lists of possible and present processors\n"
    "terminate called after throwing an instance of 'onnxruntime::OnnxRuntimeException'\n"
    "  what():  logging.h:371 Attempt to use DefaultLogger but none has been registered.\n\n"
    "qemu: uncaught target signal 6 (Aborted) - core dumped",
)


def missing(text: str) -> Probed:
    return Probed(1, "", f"Traceback\nImportError: {text}")


@pytest.mark.parametrize(
    ("board", "library", "version", "probed", "words"),
    [
        ("pi-4b", "torch", "2.10.0", ILLEGAL, "has armv8.0-a cores: install the version that its profile pins"),
        ("pi-4b", "torch", "2.10.0", ILLEGAL, "torch==2.9.1"),
        ("pi-zero-2w", "onnxruntime", "1.21.0", ILLEGAL, "onnxruntime==1.22.0"),
        ("pi-4b", "torch", "2.9.1+cpu", ILLEGAL, "2.9.1 should run there"),
        ("jetson-orin-nano", "torch", "2.10.0", ILLEGAL, "NVIDIA's build of torch"),
        ("pi-5", "onnxruntime", "1.31.1", ILLEGAL, "try an older version"),
        ("pi-5", "torch", "2.9.1", Probed(-signal.SIGKILL, "", ""), "add swap"),
        ("pi-5", "torch", "2.9.1", Probed(None, "", ""), "throttled"),
        ("pi-4b", "onnxruntime", "1.22.0", NO_PROCESSORS, "mount /sys into this container"),
        (
            "pi-5", "torch", "2.9.1",
            missing("libopenblas.so.0: cannot open shared object file: No such file or directory"),
            "apt-get install libopenblas0",
        ),
        (
            "jetson-orin-nx", "torch", "2.8.0",
            missing("libcudnn.so.9: cannot open shared object file: No such file or directory"),
            "nvidia-jetpack",
        ),
        (
            "pi-4b", "torch", "2.13.0",
            missing("libcudart.so.13: cannot open shared object file: No such file or directory"),
            "scripts/install.sh --profile pi-4b",
        ),
        (
            "jetson-nano", "onnxruntime", "1.22.0",
            missing("/lib/aarch64-linux-gnu/libm.so.6: version `GLIBC_2.28' not found (required by x.so)"),
            "BASE_IMAGE=ubuntu:22.04",
        ),
        ("pi-5", "numpy", None, missing("No module named 'numpy'"), "install numpy again"),
        ("generic", "torch", "2.9.1", Probed(1, "", ""), "scripts/install.sh --profile generic"),
    ],
)  # fmt: skip
def test_the_remedy_is_the_boards(board: str, library: str, version: str | None, probed: Probed, words: str) -> None:
    assert words in remedy(probed, library, profile.load(board), version=version)


def test_what_was_thrown_is_told_with_the_signal() -> None:
    assert why(NO_PROCESSORS).endswith(
        "it gave up: logging.h:371 Attempt to use DefaultLogger but none has been registered."
    )


def test_torch_without_cuda_on_a_jetson_is_a_warning() -> None:
    done = Probed(0, "2.9.1 without CUDA", "")
    assert doctor.check_training(lambda _: done, profile.load("jetson-orin-nano")).outcome == "warn"
    assert doctor.check_training(lambda _: done, profile.load("pi-5")).outcome == "ok"


def test_an_invalid_profile_of_the_site_fails_its_check_and_no_other(board: Board) -> None:
    own = board.folder / "config" / "edgectl" / "profiles"
    own.mkdir(parents=True)
    (own / "mine.toml").write_text('id = "mine"\nschema_version = 1\ntreads = 4\n')
    board.edgectl("config", "set", "profile", "mine")
    done = board.edgectl("doctor", "--offline", "--quick", "--json")
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert done.returncode == 2
    assert "treads is not a field" in checks["board"]["detail"]
    assert checks["database"]["outcome"] == "ok"


def test_a_process_that_dies_is_told_by_its_signal() -> None:
    probed = doctor.run_probe("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert probed.returncode == -signal.SIGSEGV


def test_what_an_installed_edgectl_does_not_see_is_not_told_as_there(tmp_path: Path) -> None:
    """install.sh starts it with -I; NVIDIA's torch in somebody's ~/.local is then as good as none."""
    (tmp_path / "torch_of_somebody.py").touch()
    probe = "from edgectl import doctor; print(doctor.run_probe('import torch_of_somebody').returncode)"
    start = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r}); {probe}"
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    codes = [
        subprocess.run([sys.executable, *flags, "-c", start], env=environ, capture_output=True, check=True).stdout
        for flags in ([], ["-I"])
    ]
    assert codes == [b"0\n", b"1\n"]


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
