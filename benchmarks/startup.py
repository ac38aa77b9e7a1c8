"""How long does `edgectl` take to start? Against an interpreter that imports typer and requests."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from benchmarks.figures import Figure, at_most, exactly, ratio_in_turn, run
from demo.shell import SCRIPTS

ANCHOR = [sys.executable, "-c", "import typer, requests"]
HEAVY = ("torch", "onnxruntime", "numpy", "requests", "faiss")


def measure(quick: bool) -> Sequence[Figure]:
    figures = []
    with tempfile.TemporaryDirectory() as state:
        for arguments in (["--help"], ["--state", state, "status"]):
            name = f"edgectl {arguments[-1]}"
            command = [str(SCRIPTS / "edgectl"), *arguments]
            _seconds(command), _seconds(ANCHOR)  # warm the page cache
            ratio, ours, anchor = ratio_in_turn(
                lambda command=command: _seconds(command), lambda: _seconds(ANCHOR), rounds=9 if quick else 31
            )
            shown = f"python -c 'import typer, requests': {1000 * anchor:.0f} ms; ours {1000 * ours:.0f} ms"
            figures.append(at_most(f"{name}: wall time", ratio, "ratio", 1.3, anchor=shown))
            figures.append(
                exactly(f"{name}: heavy modules", _heavy_imports(arguments), "modules", 0, anchor=str(HEAVY))
            )
    return figures


def _seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def _heavy_imports(arguments: list[str]) -> int:
    script = (
        f"import sys; from edgectl.cli import run; run({arguments!r}); print(len(set({HEAVY!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


if __name__ == "__main__":
    run(str(__doc__), measure)
