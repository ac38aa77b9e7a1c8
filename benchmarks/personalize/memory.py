"""How much a fresh process grows while it runs one recipe for one board: `python -m benchmarks.personalize.memory
JSON`, a process per recipe, because memory that was freed hides what the next recipe takes."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

from benchmarks.personalize.work import Place, choose_recipe, find_stage, make_setting, start_worker
from edgelearn.models.build import load, outputs
from edgelearn.personalize.recipes import RECIPES


def main() -> None:
    asked = json.loads(sys.argv[1])
    start_worker()
    place = Place(**asked["place"])
    stage = find_stage(place, Path(asked["folder"]))
    setting = make_setting(stage, stage.fold.boards[asked["number"]], asked["shots"], place.seed)
    outputs(load(setting.task, setting.base), setting.local.x)  # what torch loads at its first use is no recipe's
    before = _reset_peak()
    name = choose_recipe(stage, setting) if asked["recipe"] == "auto" else asked["recipe"]
    RECIPES[name](setting)
    print(max(0.0, _peak_mib() - before))


def _reset_peak() -> float:
    """Forget the peak so far, where the system can; MiB in use now."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return _peak_mib()
    return _status_mib("VmRSS")


def _peak_mib() -> float:
    if Path("/proc/self/status").exists():
        return _status_mib("VmHWM")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def _status_mib(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    main()
