"""edgectl status"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from edgectl.commands import Invocation, JsonFlag, invocation
from edgectl.glance import glance
from edgectl.output import emit, plural

if TYPE_CHECKING:
    from edgectl.store import Store

RUNS_SHOWN = 3


def register(app: typer.Typer) -> None:
    app.command()(status)


def status(ctx: typer.Context, json: JsonFlag = False) -> None:
    """Say what this board has: enrolment, samples, last runs, what waits to be sent. Asks nobody else."""
    here = invocation(ctx)
    report = _report(here)
    emit(report, _lines(report), as_json=json)


def _report(here: Invocation) -> dict[str, Any]:
    known = glance(here.home)
    report: dict[str, Any] = {"state": str(here.home.root), "enrolled": known is not None, **(known or {})}
    report |= {"outbox": 0, "interrupted": [], "tasks": []}
    tasks: list[str] = (known or {}).get("granted", [])
    if here.home.database.exists():  # looking must not make anything
        with here.store() as store:
            report |= {"outbox": store.outbox_size(), "interrupted": [run.id for run in store.interrupted_runs()]}
            every = [*tasks, *(task for task in store.sample_tasks() if task not in tasks)]
            report["tasks"] = [_task(here, store, task) for task in every]
    else:
        report["tasks"] = [{"task": task, "samples": 0, "labels": {}, "runs": []} for task in tasks]
    return report


def _task(here: Invocation, store: Store, task: str) -> dict[str, Any]:
    counts = store.label_counts(task)
    return {
        "task": task,
        "samples": sum(counts.values()),
        "labels": counts,
        "synced": here.home.manifest(task).exists(),
        "epsilon_spent": store.epsilon_spent(task),
        "runs": [
            {"run": run.id, "kind": run.kind, "outcome": run.outcome, "started_at": run.started_at}
            for run in store.runs(task, RUNS_SHOWN)
        ],
    }


def _lines(report: dict[str, Any]) -> list[str]:
    where = f"board {report['board']} of {report['url']}" if report["enrolled"] else "not enrolled: edgectl enroll FILE"
    lines = [where, f"state: {report['state']}"]
    for task in report["tasks"]:
        labels = ", ".join(f"{label} {n}" for label, n in task["labels"].items())
        lines.append(f"task {task['task']}: {plural(task['samples'], 'sample')}" + (f" ({labels})" if labels else ""))
        lines += [f"  {run['kind']} #{run['run']}: {run['outcome'] or 'no end noted'}" for run in task["runs"]]
    if report["outbox"]:
        lines.append(f"{plural(report['outbox'], 'upload')} waiting for the next sync")
    return lines
