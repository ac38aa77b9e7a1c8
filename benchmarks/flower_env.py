"""Where Flower lives: an environment of its own, made once, with the torch that this project is tested with."""

from __future__ import annotations

import subprocess
import sys
import venv
from importlib.metadata import version
from pathlib import Path

FLOWER = "flwr[simulation]==1.41.0"


def environment(cache: Path) -> Path:
    """Its Python. Raises RuntimeError where it cannot be made (no network, no wheel)."""
    folder = cache.resolve() / "venv"
    python, ready = folder / "bin" / "python", folder / "ready"
    if ready.exists() and ready.read_text() == _wanted():
        return python
    print(f"installing {FLOWER} into {folder} ...", file=sys.stderr, flush=True)
    venv.create(folder, clear=True, with_pip=True)
    done = subprocess.run(
        [str(python), "-m", "pip", "install", "-q", FLOWER, f"torch=={version('torch')}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"Flower could not be installed:\n{done.stderr[-2000:]}")
    ready.write_text(_wanted())
    return python


def _wanted() -> str:
    return f"{FLOWER} torch=={version('torch')}"
