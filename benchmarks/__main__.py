"""Run every benchmark, one after the other, and end with the goals that do not hold."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.figures import Figure, table

NAMES = (
    "startup",
    "footprint",
    "sync_bytes",
    "governor",
    "fleet",
    "base",
    "retrieval",
    "serving",
    "console",
    "privacy",
    "tuning",
    "blending",
    "personalize",
    "federated",
    "releases",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="rough answers, within three minutes each")
    quick = ["--quick"] if parser.parse_args().quick else []
    failed: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            out = Path(folder) / f"{name}.json"
            subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *quick, "--json", str(out)], check=True)
            print(flush=True)
            figures = [Figure(**figure) for figure in json.loads(out.read_text())["figures"]]
            failed += [figure for figure in figures if figure.holds is False]
    print("Every goal holds." if not failed else f"Goals that do not hold:\n\n{table(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
