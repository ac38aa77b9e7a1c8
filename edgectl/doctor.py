"""Try what a board needs, one check after the other. What may kill the process (a wheel built for another CPU) is tried
in a subprocess, and the signal that ended it is explained."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from edgectl import __version__, tls
from edgectl.board import fit, memory, profile
from edgectl.budget import LOADING_MIB
from edgectl.config import Settings
from edgectl.home import Home
from edgectl.remedies import LIMIT_S, Probed, remedy, why
from edgewire.errors import EdgeError, NotEnrolled, ResourcesRefused, UnsupportedBoard, WrongClock, from_os_error

CLOUD_LIMIT_S = 15.0
DISK_WANTED_MIB, DISK_NEEDED_MIB = 500, 50
BUILT_AT = 1767225600.0  # 2026-01-01: no clock that is right can be before this program was written

# One convolution and a matrix product, as ONNX opset 13: (1, 1, 4, 4) -> (1, 2).
_MODEL = (
    "CAg66gEKDwoBeAoBdxIBYyIEQ29udgoSCgFjCgFzEgFyIgdSZXNoYXBlChEKAXIKAW0SAXkiBk1hdE11bBIBZyozCAEIAQgDCAMQ"
    "AUIBd0okAACAPwAAgD8AAIA/AACAPwAAgD8AAIA/AACAPwAAgD8AAIA/KisIBAgCEAFCAW1KIAAAgD4AAIC+AACAPgAAgL4AAIA+"
    "AACAvgAAgD4AAIC+KhkIAhAHQgFzShABAAAAAAAAAAQAAAAAAAAAWhsKAXgSFgoUCAESEAoCCAEKAggBCgIIBAoCCARiEwoBeRIO"
    "CgwIARIICgIIAQoCCAJCBAoAEA0="
)
_IMPORTS = """
import importlib
for name in ("numpy", "cryptography.hazmat.primitives.asymmetric.ed25519", "msgspec", "requests", "safetensors.numpy"):
    print(name.split(".")[0], flush=True)
    importlib.import_module(name)
"""
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
    home: Home,
    settings: Settings,
    *,
    now: float,
    site: Sequence[Path] = (),
    offline: bool = False,
    quick: bool = False,
) -> Iterator[Check]:
    """All checks, one by one, so that they can be shown as they end. site: folders with a site's own profiles."""
    yield check_python()
    known: dict[str, Any] = {}
    yield from _guarded("board", lambda: check_board(settings, site, known))
    yield check_memory(memory.available_mib())
    if not quick:
        imports = check_imports(run_probe, known)
        yield imports
        if imports.outcome == "fail":
            return  # the checks below would die of the same
    yield from _guarded("state folder", lambda: check_state(home))
    yield from _guarded("clock", lambda: check_clock(home, now=now))
    yield from _guarded("database", lambda: check_database(home, now=now))
    yield from _guarded("enrolment", lambda: check_enrolment(home))
    if not offline and home.enrolment.exists():
        yield from _guarded("cloud", lambda: check_cloud(home, settings))
    if not quick:
        yield check_inference(run_probe, known)
        yield check_training(run_probe, known)


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
    names = ("numpy", "onnxruntime", "requests", "typer")
    libraries = ", ".join(f"{name} {fit.installed(name) or 'unknown'}" for name in names)
    detail = f"edgectl {__version__}, Python {platform.python_version()}, {platform.machine()}, {bits} bit; {libraries}"
    if bits == 32:
        return _failed("python", UnsupportedBoard(detail, hint="install a 64-bit system: there are no 32-bit wheels"))
    return _ok("python", detail)


def check_board(settings: Settings, site: Sequence[Path], known: dict[str, Any]) -> Check:
    """Also fills `known` with the profile: what helps against a failure depends on the board."""
    found = settings.text("profile") or profile.detect(site=site)
    known.update(profile.load(found, site))
    name = profile.model() or "unknown model"
    if found == profile.GENERIC:
        return Check("board", "warn", f"{name}: no profile fits, using '{found}'")
    differing = [one.field for one in fit.compare(known) if one.outcome == "differs"]
    if differing:
        detail = f"{name}: profile '{found}', but this machine differs in {', '.join(differing)}"
        return Check("board", "warn", detail, f"edgectl profile check {found}")
    return _ok("board", f"{name}: profile '{found}'")


def check_memory(available_mib: float | None) -> Check:
    if available_mib is None:
        return Check("memory", "warn", "this system does not say how much is free")
    detail = f"{available_mib:.0f} MiB available"
    if available_mib < LOADING_MIB:
        return Check("memory", "warn", detail, hint=f"training needs {LOADING_MIB} MiB or more; stop other programs")
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


def run_probe(script: str) -> Probed:
    """Run Python in a process of its own, which sees the packages that this one sees, and nothing of the current
    folder."""
    try:
        done = subprocess.run(
            [sys.executable, *(["-I"] if sys.flags.isolated else []), "-c", script],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            cwd=Path("/"),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Probed(None, "", "")
    return Probed(done.returncode, done.stdout.strip(), done.stderr.strip())


def check_imports(run: Callable[[str], Probed], known: Mapping[str, Any]) -> Check:
    """What every command needs. The name printed last is the one that did not survive."""
    probed = run(_IMPORTS)
    names = probed.stdout.split()
    if probed.returncode == 0:
        return _ok("imports", f"{', '.join(names)} load")
    return _unsupported("imports", names[-1] if names else "python", probed, known)


def check_inference(run: Callable[[str], Probed], known: Mapping[str, Any]) -> Check:
    """onnxruntime runs a model."""
    probed = run(_INFERENCE)
    if probed.returncode == 0:
        return _ok("inference", f"onnxruntime {probed.stdout} runs a convolution")
    return _unsupported("inference", "onnxruntime", probed, known)


def check_training(run: Callable[[str], Probed], known: Mapping[str, Any]) -> Check:
    """torch trains, and on the GPU where the profile says that its build should."""
    probed = run(_TRAINING)
    if probed.returncode == _NO_TORCH:
        return Check("training", "warn", "torch is not installed: this board syncs and infers, but does not train")
    if probed.returncode != 0:
        return _unsupported("training", "torch", probed, known)
    detail = f"torch {probed.stdout} runs a convolution forward and backward"
    if "without CUDA" in probed.stdout and (known.get("pins") or {}).get("torch_from") == "image":
        hint = "to train on the GPU, install NVIDIA's build of torch for this JetPack, see docs/boards.md"
        return Check("training", "warn", detail, hint)
    return _ok("training", detail)


def _unsupported(name: str, library: str, probed: Probed, known: Mapping[str, Any]) -> Check:
    hint = remedy(probed, library, known, version=fit.installed(library))
    return _failed(name, UnsupportedBoard(f"{library}: {why(probed)}", hint=hint))
