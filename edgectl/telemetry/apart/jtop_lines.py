"""Answers each line on stdin with one line of JSON of what jetson-stats reads, until stdin ends.

A process of its own because jtop is AGPL-3.0, changes how Python starts processes when it is imported, and hangs when
its service does. Started by file name, so that it imports nothing of edgectl. Ends with {"error": ...} when jtop has no
more to say: `edgectl.telemetry.jtop` then starts it again after a while.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

_latest: dict[str, Any] = {}
_latest_at = 0.0


def main() -> None:
    """Read until jtop gives no more, then say why and end."""
    threading.Thread(target=_answer, daemon=True).start()
    try:
        import jtop
    except ImportError:
        _end("jetson-stats is not installed: pip install 'edgectl[jetson]'")
    try:
        with jtop.jtop(interval=1.0) as jetson:
            while jetson.ok():
                _keep({"version": str(getattr(jtop, "__version__", "unknown")), **snapshot(jetson)})
        _end("jtop gives no more data")
    except Exception as error:  # whatever another version raises: it must become one line
        _end(f"{type(error).__name__}: {error}")


def snapshot(jetson: Any) -> dict[str, Any]:
    """What this version of jtop tells, in its own units: mW, percent, kHz; what it does not tell is left out."""
    found: dict[str, Any] = {}
    for name, read in _PARTS.items():
        try:
            found[name] = read(jetson)
        except (AttributeError, KeyError, TypeError, ValueError, StopIteration):
            continue
    return found


def _temperatures(jetson: Any) -> dict[str, float]:
    return {str(name): float(one["temp"]) for name, one in jetson.temperature.items() if one.get("online", True)}


def _gpu(jetson: Any) -> Any:
    return next(gpu for gpu in jetson.gpu.values() if gpu.get("type") == "integrated")


_PARTS: dict[str, Callable[[Any], Any]] = {
    "temperatures_c": _temperatures,
    "power_mw": lambda jetson: float(jetson.power["tot"]["power"]),
    "total_rail": lambda jetson: str(jetson.power["tot"].get("name", "")),
    "gpu_percent": lambda jetson: float(_gpu(jetson)["status"]["load"]),
    "gpu_khz": lambda jetson: float(_gpu(jetson)["freq"]["cur"]),
}


def _keep(values: dict[str, Any]) -> None:
    global _latest, _latest_at
    _latest, _latest_at = values, time.monotonic()


def _answer() -> None:
    """In a thread, so that an answer with its age comes even while jtop hangs, and the process ends with its reader."""
    for line in sys.stdin:
        if _latest:
            _say({"asked": line.strip(), "age_s": time.monotonic() - _latest_at, **_latest})
        else:
            _say({"asked": line.strip(), "age_s": None})
    os._exit(0)


def _say(values: dict[str, Any]) -> None:
    try:
        sys.stdout.write(json.dumps(values) + "\n")
        sys.stdout.flush()
    except OSError:  # nobody reads any more
        os._exit(0)


def _end(reason: str) -> NoReturn:
    _say({"error": reason[:200]})
    os._exit(3)  # not sys.exit: jtop's threads would keep the process


if __name__ == "__main__":
    main()
