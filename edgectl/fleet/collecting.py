"""What boards know of themselves, gathered into a folder and a table: no samples, no weights, no keys."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgectl.fleet import boards
from edgectl.fleet.line import Line
from edgectl.fleet.results import HostResult
from edgectl.fleet.runner import Work
from edgewire.errors import EdgeError
from edgewire.files import write_atomic

COLUMNS = ("host", "status", "task", "samples", "version", "recipe", "gain", "serving", "base", "temperature_c")
TRAINED = ("host", "status", "task", "shipped", "version", "gain", "local_samples", "kept", "seconds", "message")


def collect(folder: Path | None) -> Work:
    """The state of a board and the list of its models, as HOST.json in the folder."""

    async def work(line: Line) -> HostResult:
        seen = await line.look(boards.edgectl(line.host, "status", "--json"))
        if seen.rc != 0:
            return boards.failed(line.host, seen)
        status = seen.json()
        found = {"status": status, "models": await _models(line, status)}
        if folder is not None:
            document = {"host": line.host.name, **found}
            write_atomic(folder / f"{line.host.name}.json", (json.dumps(document, indent=1) + "\n").encode())
        return HostResult(line.host.name, "ok", _line(found), 0, found)

    return work


async def _models(line: Line, status: Mapping[str, Any]) -> list[Any]:
    """What `edgectl model list` says of each task; null where it says nothing."""
    tasks = [str(task.get("task")) for task in status.get("tasks", ())]
    if not status.get("enrolled") or not tasks:
        return []
    commands = [
        f"{boards.edgectl(line.host, 'model', 'list', '--task', task, '--json')} || echo null" for task in tasks
    ]
    answer = await line.look("; ".join(commands))
    try:
        return [json.loads(text) for text in answer.text.split("\n") if text.strip()]
    except (ValueError, RecursionError):
        raise EdgeError("what it answered cannot be read") from None


def _line(found: Mapping[str, Any]) -> str:
    told = [f"{row['task']}: {row['samples']} samples, {_version(row)}" for row in rows("", "", found)]
    if not found["status"].get("enrolled"):
        return "not enrolled -> edgectl fleet enroll"
    return "; ".join(told) or "no tasks yet"


def _version(row: Mapping[str, Any]) -> str:
    return "the base serves" if row["version"] is None else f"version {row['version']}"


def rows(host: str, status: str, found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row per task of a board, by COLUMNS."""
    models = {known["task"]: known["models"] for known in found["models"] if known}
    state = found["status"]
    made = []
    for task in state.get("tasks", ()):
        serving: Mapping[str, Any] = next(
            (model for model in models.get(task.get("task"), ()) if model["state"] == "current"), {}
        )
        scores = (task.get("running") or {}).get("all") or {}
        made.append(
            {
                "host": host,
                "status": status,
                "task": task.get("task"),
                "samples": task.get("samples"),
                "version": serving.get("version"),
                "recipe": serving.get("recipe"),
                "gain": serving.get("gain"),
                "serving": scores.get("serving"),
                "base": scores.get("base"),
                "temperature_c": state.get("board_state", {}).get("temperature_c"),
            }
        )
    return made


def trained_row(result: HostResult) -> dict[str, Any]:
    """A row of the table of gains, by TRAINED."""
    answer = result.answer or {}
    return {
        **{name: answer.get(name) for name in TRAINED},
        "host": result.host, "status": result.status, "message": result.message,
    }  # fmt: skip


def gains(found: Sequence[Mapping[str, Any]]) -> str:
    """The summary of a table of gains: how many boards have a new model, and what it is believed to gain."""
    new = [row for row in found if row.get("version") is not None and row.get("status") == "changed"]
    known = [row["gain"] for row in new if isinstance(row.get("gain"), (int, float))]
    if not known:
        return f"{len(new)} of {len(found)} boards have a new model"
    ordered = sorted(known)
    return (
        f"{len(new)} of {len(found)} boards have a new model, believed to gain {100 * sum(known) / len(known):+.1f}"
        f" points over the base in the mean (lowest {100 * ordered[0]:+.1f}, highest {100 * ordered[-1]:+.1f})"
    )


def write_csv(path: Path, columns: Sequence[str], found: Sequence[Mapping[str, Any]]) -> None:
    """A CSV file, whole or not at all. What a spreadsheet would take for a formula gets an apostrophe in front."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(row.get(name)) for name in columns} for row in found)
    write_atomic(path, out.getvalue().encode("utf-8", "replace"))  # half a pair of surrogates is no text


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t" and value else value
