"""Try what a board needs, one check after the other. What may kill the process (a wheel built for another CPU) is tried
in a subprocess, and the signal that ended it is explained."""

from __future__ import annotations

import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from edgectl import __version__, tls
from edgectl.board import memory, profile
from edgectl.config import Settings
from edgectl.home import Home
from edgewire.errors import EdgeError, NotEnrolled, ResourcesRefused, UnsupportedBoard, WrongClock, from_os_error

PROBE_LIMIT_S = 180.0
CLOUD_LIMIT_S = 15.0
DISK_WANTED_MIB, DISK_NEEDED_MIB = 500, 50
MEMORY_WANTED_MIB = 150
BUILT_AT = 1767225600.0  # 2026-01-01: no clock that is right can be before this program was written

# One convolution and a matrix product, as ONNX opset 13: (1, 1, 4, 4) -> (1, 2).
_MODEL = (
    "CAg66gEKDwoBeAoBdxIBYyIEQ29udgoSCgFjCgFzEgFyIgdSZXNoYXBlChEKAXIKAW0SAXkiBk1hdE11bBIBZyozCAEIAQgDCAMQ"
    "AUIBd0okAACAPwAAgD8AAIA/AACAPwAAgD8AAIA/AACAPwAAgD8AAIA/KisIBAgCEAFCAW1KIAAAgD4AAIC+AACAPgAAgL4AAIA+"
    "AACAvgAAgD4AAIC+KhkIAhAHQgFzShABAAAAAAAAAAQAAAAAAAAAWhsKAXgSFgoUCAESEAoCCAEKAggBCgIIBAoCCARiEwoBeRIO"
    "CgwIARIICgIIAQoCCAJCBAoAEA0="
)
_INFERENCE = f"""
import base64, numpy, onnxruntime
session = onnxruntime.InferenceSession(base64.b64decode("{_MODEL}"), providers=["CPUExecutionProvider"])
(out,) = session.run(None, {{"x": numpy.ones((1, 1, 4, 4), numpy.float32)}})
assert out.shape == (1, 2) and numpy.allclose(out, [[9.0, -9.0]]), out
print(onnxruntime.__version__)
"""
_TRAINING = """
import importlib.util, sys
if importlib.util.find_spec("torch") is None:
    sys.exit(3)
import torch
layer = torch.nn.Conv2d(1, 4, 3)
layer(torch.ones(2, 1, 8, 8)).square().mean().backward()
assert torch.isfinite(layer.weight.grad).all()
print(torch.__version__, "with CUDA" if torch.cuda.is_available() else "without CUDA")
"""
_NO_TORCH = 3

_SIGNALS = {
    signal.SIGILL: "this build uses instructions that this CPU lacks",
    signal.SIGSEGV: "it crashed",
    signal.SIGBUS: "it crashed (a damaged file, or a failing disk)",
    signal.SIGABRT: "it gave up",
    signal.SIGKILL: "it was killed, most often for lack of memory",
}


@dataclass(frozen=True)
class Check:
    """exit_code: what the command returns if this is the first check that fails."""

    name: str
    outcome: Literal["ok", "warn", "fail"]
    detail: str
    hint: str = ""
    exit_code: int = 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def _ok(name: str, detail: str) -> Check:
    return Check(name, "ok", detail)


def _failed(name: str, error: EdgeError) -> Check:
    return Check(name, "fail", error.message, error.hint, error.exit_code)


def examine(
    home: Home, settings: Settings, *, now: float, offline: bool = False, quick: bool = False
) -> Iterator[Check]:
    """All checks, one by one, so that they can be shown as they end."""
    yield check_python()
    yield check_board(settings)
    yield check_memory(memory.available_mib())
    yield from _guarded("state folder", lambda: check_state(home))
    yield from _guarded("clock", lambda: check_clock(home, now=now))
    yield from _guarded("database", lambda: check_database(home, now=now))
    yield from _guarded("enrolment", lambda: check_enrolment(home))
    if not offline and home.enrolment.exists():
        yield from _guarded("cloud", lambda: check_cloud(home, settings))
    if not quick:
        yield check_inference(run_probe)
        yield check_training(run_probe)


def _guarded(name: str, check: Callable[[], Check]) -> Iterator[Check]:
    """One check that cannot be made must not hide the others."""
    try:
        yield check()
    except EdgeError as error:
        yield _failed(name, error)
    except OSError as error:
        yield _failed(name, from_os_error(error, f"checking the {name}"))


def check_python() -> Check:
    bits = 64 if sys.maxsize > 2**32 else 32
    libraries = ", ".join(f"{name} {metadata.version(name)}" for name in ("numpy", "onnxruntime", "requests", "typer"))
    detail = f"edgectl {__version__}, Python {platform.python_version()}, {platform.machine()}, {bits} bit; {libraries}"
    if bits == 32:
        return _failed("python", UnsupportedBoard(detail, hint="install a 64-bit system: there are no 32-bit wheels"))
    return _ok("python", detail)


def check_board(settings: Settings) -> Check:
    found = settings.text("profile") or profile.detect()
    if found == profile.GENERIC:
        return Check("board", "warn", f"{profile.model() or 'unknown model'}: no profile fits, using '{found}'")
    return _ok("board", f"{profile.model() or 'unknown model'}: profile '{found}'")


def check_memory(available_mib: float | None) -> Check:
    if available_mib is None:
        return Check("memory", "warn", "this system does not say how much is free")
    detail = f"{available_mib:.0f} MiB available"
    if available_mib < MEMORY_WANTED_MIB:
        return Check(
            "memory", "warn", detail, hint=f"training needs {MEMORY_WANTED_MIB} MiB or more; stop other programs"
        )
    return _ok("memory", detail)


def check_state(home: Home) -> Check:
    """The folder can be written, is private, and has room."""
    probe = home.ensure().root / "doctor.probe"
    probe.write_bytes(b"x")
    probe.unlink()
    free_mib = shutil.disk_usage(home.root).free >> 20
    detail = f"{home.root}, {free_mib} MiB free"
    if free_mib < DISK_NEEDED_MIB:
        return _failed("state folder", ResourcesRefused(detail, hint=f"free at least {DISK_NEEDED_MIB} MiB"))
    if home.root.stat().st_mode & 0o077:
        return Check("state folder", "warn", f"{home.root} is open to others", hint=f"chmod 700 {home.root}")
    if free_mib < DISK_WANTED_MIB:
        return Check("state folder", "warn", detail, hint=f"{DISK_WANTED_MIB} MiB or more are advisable")
    return _ok("state folder", detail)


def check_clock(home: Home, *, now: float) -> Check:
    """Not earlier than what this machine itself wrote before."""
    lived = [BUILT_AT, *(path.stat().st_mtime for path in (home.enrolment, home.trust) if path.exists())]
    if now < max(lived) - 60:
        raise WrongClock(
            f"it is {tls.utc(now)} by this machine's clock, but it was {tls.utc(max(lived))} before",
            hint="set this machine's clock (timedatectl set-ntp true)",
        )
    return _ok("clock", tls.utc(now))


def check_database(home: Home, *, now: float) -> Check:
    from edgectl.store import Store

    if not home.database.exists():
        return _ok("database", "there is none yet")
    with Store.open(home.database) as store:
        if problems := store.check():
            return Check("database", "fail", problems[0], f"recover it: sqlite3 {home.database} .recover", 8)
        interrupted, waiting = len(store.interrupted_runs()), store.outbox_size()
    return _ok("database", f"whole; {waiting} uploads wait, {interrupted} runs without an end")


def check_enrolment(home: Home) -> Check:
    from edgectl import enrolment

    try:
        known = enrolment.load(home)
    except NotEnrolled as error:
        return Check("enrolment", "warn", error.message, error.hint)
    if home.key.stat().st_mode & 0o077:
        return Check("enrolment", "warn", f"{home.key} is readable by others", hint=f"chmod 600 {home.key}")
    return _ok("enrolment", f"board {known.board} of {known.url}; tasks: {', '.join(known.tasks) or 'none'}")


def check_cloud(home: Home, settings: Settings) -> Check:
    """Certificate, clock, access: a new token is asked for, so a revoked board learns it here."""
    from edgectl import enrolment
    from edgectl.cloud import HttpCloud, Limits
    from edgewire.signing import SigningKey

    known, started = enrolment.load(home), time.monotonic()
    cloud = HttpCloud(
        known.url,
        ca_bundle=home.ca_bundle,
        key=SigningKey.load(home.key),
        board=known.board,
        limits=Limits(connect_s=5, read_s=5, attempts=1),
        deadline=started + CLOUD_LIMIT_S,
        use_proxy=settings.flag("proxy"),
    )
    try:
        tasks = cloud.tasks()
    finally:
        cloud.close()
    return _ok(
        "cloud", f"{known.url} answers in {time.monotonic() - started:.2f} s; tasks: {', '.join(tasks) or 'none'}"
    )


@dataclass(frozen=True)
class Probed:
    """How a probe ended. returncode below 0: by that signal; None: it took longer than PROBE_LIMIT_S."""

    returncode: int | None
    stdout: str
    stderr: str


def run_probe(script: str) -> Probed:
    """Run Python in a process of its own. -P or a neutral folder: nothing of the current folder may be imported."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            timeout=PROBE_LIMIT_S,
            cwd=Path("/"),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Probed(None, "", "")
    return Probed(done.returncode, done.stdout.strip(), done.stderr.strip())


def check_inference(run: Callable[[str], Probed]) -> Check:
    probed = run(_INFERENCE)
    if probed.returncode == 0:
        return _ok("inference", f"onnxruntime {probed.stdout} runs a convolution")
    return _failed("inference", UnsupportedBoard(f"onnxruntime: {_why(probed)}", hint=_advice(probed, "onnxruntime")))


def check_training(run: Callable[[str], Probed]) -> Check:
    probed = run(_TRAINING)
    if probed.returncode == 0:
        return _ok("training", f"torch {probed.stdout} runs a convolution forward and backward")
    if probed.returncode == _NO_TORCH:
        return Check("training", "warn", "torch is not installed: this board syncs and infers, but does not train")
    return _failed("training", UnsupportedBoard(f"torch: {_why(probed)}", hint=_advice(probed, "torch")))


def _why(probed: Probed) -> str:
    if probed.returncode is None:
        return f"did not end within {PROBE_LIMIT_S:.0f} s"
    if probed.returncode < 0:
        number = -probed.returncode
        name = signal.Signals(number).name if number in signal.valid_signals() else f"signal {number}"
        return f"ended by {name}: {_SIGNALS.get(signal.Signals(number), 'it was stopped from outside')}"
    return probed.stderr.splitlines()[-1] if probed.stderr else f"ended with {probed.returncode}"


def _advice(probed: Probed, library: str) -> str:
    if probed.returncode == -signal.SIGILL:
        pinned = profile.pinned(library)
        return (
            f"install the version this board's profile pins: {library}=={pinned}" if pinned else "try an older version"
        )
    if probed.returncode == -signal.SIGKILL:
        return "add swap or stop other programs, then try again"
    return f"reinstall {library} with the project's constraints file"
