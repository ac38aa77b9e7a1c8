"""Everything a board without internet needs, in one folder: wheels by their lock, the installer, profiles and units,
and a list of digests that the installer checks before it installs anything."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import edgectl
from edgewire.errors import DigestMismatch, EdgeError, NotFound, UsageError
from edgewire.files import digest_of_file, sync_path

TRAINING = "# training"
SUMS = "SHA256SUMS"
_GLIBC = range(17, 29)  # manylinux_2_17 to 2_28: what the locks were resolved for

Run = Callable[[Sequence[str]], None]


@dataclass(frozen=True)
class Made:
    """What a bundle holds. size_bytes: of all its files."""

    folder: Path
    profile: str
    python: str
    training: bool
    wheels: int
    size_bytes: int


def run(command: Sequence[str]) -> None:
    """Run a program, its output on stderr. Raises EdgeError if it fails."""
    done = subprocess.run(command, stdout=sys.stderr, check=False)
    if done.returncode != 0:
        program = command.index(sys.executable)
        raise EdgeError(
            f"{' '.join(command[program + 1 : program + 4])} ended with {done.returncode}",
            hint="what it said is above; is the network there?",
        )


def checkout() -> Path:
    """The project's source, which has installer, units and locks. Raises UsageError where edgectl runs without it."""
    source = Path(edgectl.__file__).parents[1]
    if not (source / "scripts" / "install.sh").is_file():
        raise UsageError("bundles are made from a checkout of the project", hint="run edgectl from there, in its .venv")
    return source


def make(source: Path, out: Path, *, profile: str, python: str, training: bool, run: Run = run) -> Made:
    """Make the bundle in the folder `out`, which appears whole or not at all.

    Raises UsageError (out exists), NotFound (no lock for that), DigestMismatch, EdgeError (pip failed), OSError.
    """
    lock = _lock(source, profile, python)
    if out.exists():
        raise UsageError(f"{out} is there already", hint="remove it, or name another folder")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        (partial / "wheels").mkdir(parents=True)
        wanted = _wanted(lock.read_text(encoding="utf-8"), training)
        _fetch(wanted, partial, python, run)
        _build(source, partial / "wheels", run)
        wheels = _check(wanted, partial / "wheels")
        _copy(source, partial, lock, training)
        size_bytes = _sum(partial)
        partial.replace(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    sync_path(out.parent)
    return Made(out, profile, python, training, wheels, size_bytes)


def _lock(source: Path, profile: str, python: str) -> Path:
    locks = source / "firmware_profiles" / "locks"
    there = sorted(path.name for path in locks.glob(f"{profile}-py*.txt"))
    name = f"{profile}-py{python.replace('.', '')}.txt"
    if name not in there:
        hint = f"there are: {', '.join(there)}" if there else "edgectl profile list"
        raise NotFound(f"there is no lock of '{profile}' for Python {python}", hint=hint)
    return locks / name


def _wanted(lock: str, training: bool) -> dict[str, str]:
    """name -> its line of the lock."""
    text = lock if training else lock.partition(f"\n{TRAINING}\n")[0]
    return {line.split("==")[0]: line for line in text.splitlines() if line and not line.startswith("#")}


def _fetch(wanted: dict[str, str], partial: Path, python: str, run: Run) -> None:
    """Download the wheels for the board, whatever this machine is: everything is named, so nothing is resolved here."""
    (partial / "wanted.txt").write_text("\n".join(wanted.values()), encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    command += [f"--python-version={python}", "--implementation=cp"]
    command += [f"--abi={abi}" for abi in (f"cp{python.replace('.', '')}", "abi3", "none")]
    command += [f"--platform=manylinux_2_{minor}_aarch64" for minor in _GLIBC] + ["--platform=manylinux2014_aarch64"]
    run([*command, "--dest", str(partial / "wheels"), "-r", str(partial / "wanted.txt")])
    (partial / "wanted.txt").unlink()


def _build(source: Path, wheels: Path, run: Run) -> None:
    """edgectl's own wheel, built outside the checkout: an earlier build leaves files there that are gone by now."""
    with tempfile.TemporaryDirectory(prefix="edgectl-bundle-") as folder:
        config = Path(folder) / "build.cfg"
        config.write_text(f"[build]\nbuild_base={folder}\n[egg_info]\negg_base={folder}\n", encoding="utf-8")
        command = ["env", f"DIST_EXTRA_CONFIG={config}", sys.executable, "-m", "pip", "wheel", "--no-deps"]
        run([*command, "--wheel-dir", str(wheels), str(source)])


def _check(wanted: dict[str, str], wheels: Path) -> int:
    """Every wheel is one that the lock names, and none is missing; how many there are, with edgectl's own."""
    found = {wheel.name.split("-")[0].lower().replace("_", "-"): wheel for wheel in sorted(wheels.iterdir())}
    if missing := sorted({*wanted, "edgectl"} - found.keys()):
        raise NotFound(f"these wheels are missing: {', '.join(missing)}", hint="run the same command again")
    for name, wheel in found.items():
        if name != "edgectl" and f"--hash=sha256:{digest_of_file(wheel)}" not in wanted.get(name, "").split():
            raise DigestMismatch(
                f"{wheel.name} is not the wheel that the lock names", hint="remove it from pip's cache"
            )
    return len(found)


def _copy(source: Path, partial: Path, lock: Path, training: bool) -> None:
    for folder in ("profiles", "locks"):
        (partial / folder).mkdir()
    for profile in (source / "firmware_profiles").glob("*.toml"):
        shutil.copyfile(profile, partial / "profiles" / profile.name)
    shutil.copyfile(lock, partial / "locks" / lock.name)
    shutil.copytree(source / "systemd", partial / "systemd", copy_function=shutil.copyfile)
    shutil.copy(source / "scripts" / "install.sh", partial / "install.sh")
    (partial / "training").write_text("yes\n" if training else "no\n")


def _sum(partial: Path) -> int:
    """Write the list of digests; the bytes of all files."""
    files = sorted(path for path in partial.rglob("*") if path.is_file())
    lines = [f"{digest_of_file(path)}  {path.relative_to(partial).as_posix()}\n" for path in files]
    (partial / SUMS).write_text("".join(lines))
    return sum(path.stat().st_size for path in files)
