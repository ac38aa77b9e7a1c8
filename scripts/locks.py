"""Write firmware_profiles/locks/: what is installed on each board and Python, by version and digest.

    python -m scripts.locks [PROFILE ...]        needs `uv` (on PATH, or named by UV=) and the package index

Versions are those of constraints/common.txt, which are tested together, but for what a profile pins. Only wheels for
64-bit ARM Linux with glibc 2.28 or newer count, and only their digests are listed. A lock has two parts: what every
board needs, and after the line `# training` what `edgectl train` needs besides. It names everything, so it is installed
without looking for dependencies: pip install --no-deps --require-hashes -r LOCK.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import firmware_profiles

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
LOCKS = ROOT / "firmware_profiles" / "locks"
PLATFORM = "aarch64-manylinux_2_28"
TRAINING = "# training"
RESOLVE_LIMIT_S = 300
# What NVIDIA's build is taken to need besides itself; no newer one of the index will do, it asks for gigabytes of CUDA.
STAND_IN = "torch==2.9.1"

# requirements, constraints, Python -> what `uv pip compile --format pylock.toml` writes
Resolve = Callable[[Sequence[str], Sequence[str], str], str]


def uv(requirements: Sequence[str], constraints: Sequence[str], python: str) -> str:
    """Resolve with uv. Raises CalledProcessError, after uv said why, or TimeoutExpired."""
    with tempfile.TemporaryDirectory() as folder:
        wanted, limits, out = (Path(folder) / name for name in ("wanted.in", "limits.txt", "pylock.toml"))
        wanted.write_text("\n".join(requirements))
        limits.write_text("\n".join(constraints))
        command = [os.environ.get("UV", "uv"), "pip", "compile", "--quiet", wanted, "--constraint", limits]
        command += ["--python-version", python, "--python-platform", PLATFORM, "--only-binary", ":all:"]
        subprocess.run([*command, "--format", "pylock.toml", "-o", out], check=True, timeout=RESOLVE_LIMIT_S)
        return out.read_text()


def once(resolve: Resolve) -> Resolve:
    """The same, asked once for the same: many boards get the same wheels."""
    known: dict[str, str] = {}

    def ask(requirements: Sequence[str], constraints: Sequence[str], python: str) -> str:
        key = repr((requirements, constraints, python))
        if key not in known:
            known[key] = resolve(requirements, constraints, python)
        return known[key]

    return ask


def lock(profile: dict[str, Any], python: str, resolve: Resolve) -> str:
    """The lock of a profile for one Python."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = profile.get("pins") or {}
    pinned = [f"{name}=={pins[name]}" for name in ("torch", "onnxruntime") if name in pins]
    if pins.get("torch_from") == "image":
        pinned.append(STAND_IN)
    names = {"torch", *(pin.split("==")[0] for pin in pinned)}
    common = (ROOT / "constraints" / "common.txt").read_text().splitlines()
    limits = [line for line in common if not line.startswith("#") and line.split("==")[0] not in names] + pinned
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *extras["images"]]
    base = packages(resolve(needed, limits, python))
    every = packages(resolve([*needed, *extras["train"]], [*limits, *_versions(base)], python))
    if pins.get("torch_from") == "image":
        every.pop("torch")
    head = [
        f"# {profile['id']}, Python {python}, 64-bit ARM Linux. Written by scripts/locks.py; do not edit.",
        "# pip install --no-deps --require-hashes -r THIS_FILE",
    ]
    if pins.get("torch_from") == "image":
        head.append("# torch is not locked: NVIDIA's build for the board's JetPack stays, or is installed first.")
    rest = [line for name, line in every.items() if name not in base]
    return "\n".join([*head, *base.values(), TRAINING, *rest]) + "\n"


def packages(pylock: str) -> dict[str, str]:
    """name -> its line, with the digest of every wheel, in the order of names."""
    found = {}
    for package in sorted(tomllib.loads(pylock)["packages"], key=lambda package: package["name"]):
        digests = sorted({wheel["hashes"]["sha256"] for wheel in package["wheels"]})
        hashes = " ".join(f"--hash=sha256:{digest}" for digest in digests)
        found[package["name"]] = f"{package['name']}=={package['version']} {hashes}"
    return found


def _versions(lines: dict[str, str]) -> list[str]:
    return [line.split(" ")[0] for line in lines.values()]


def path(profile_id: str, python: str) -> Path:
    """Where the lock of a profile for one Python lies."""
    return LOCKS / f"{profile_id}-py{re.sub(r'[.]', '', python)}.txt"


def main(names: Sequence[str], resolve: Resolve = uv) -> None:
    """Write the locks of these profiles, of all where none is named."""
    LOCKS.mkdir(exist_ok=True)
    resolve = once(resolve)
    for name in names or firmware_profiles.ids():
        profile = firmware_profiles.facts(name)
        for python in profile["python"]:
            file = path(name, python)
            file.write_text(lock(profile, python, resolve))
            print(f"{file.relative_to(ROOT)}: {file.read_text().count('--hash')} wheels", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
