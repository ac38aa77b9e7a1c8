"""edgectl status"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from edgectl.commands import Invocation, JsonFlag, invocation
from edgectl.glance import glance, metric
from edgectl.output import emit, plural
from edgectl.rounds import ledger
from edgectl.standing import standing

if TYPE_CHECKING:
    from edgectl.store import Store

RUNS_SHOWN = 3


def register(app: typer.Typer) -> None:
    app.command()(status)


def status(ctx: typer.Context, json: JsonFlag = False) -> None:
    """Say what this board has: enrolment, samples, how the model does on new ones, last runs, what waits to be sent.

    The running score is honest: each new sample is predicted before a model is trained on it. Asks nobody else.
    """
    here = invocation(ctx)
    report = _report(here)
    emit(report, _lines(report), as_json=json)


def _report(here: Invocation) -> dict[str, Any]:
    known = glance(here.home)
    report: dict[str, Any] = {"state": str(here.home.root), "enrolled": known is not None, **(known or {})}
    report |= {"board_state": _board_state(here), "outbox": 0, "interrupted": [], "rounds": None, "tasks": []}
    tasks: list[str] = (known or {}).get("granted", [])
    if here.home.database.exists():  # looking must not make anything
        with here.store() as store:
            report |= {"outbox": store.outbox_size(), "interrupted": [run.id for run in store.interrupted_runs()]}
            every = [*tasks, *(task for task in store.sample_tasks() if task not in tasks)]
            noises = store.noise_of_updates()
            report["rounds"] = ledger.told_of_all(noises)
            every += [task for task in noises if task not in every]
            report["tasks"] = [_task(here, store, task, noises.get(task, [])) for task in every]
    else:
        report["tasks"] = [
            {"task": task, "samples": 0, "labels": {}, "lacks": _lacks(here, task), "running": None, "runs": []}
            for task in tasks
        ]
    return report


def _board_state(here: Invocation) -> dict[str, Any]:
    from edgectl.telemetry.reading import Sensors
    from edgectl.telemetry.show import one_line

    reading = Sensors(site=here.places.profiles).read()
    return {"line": one_line(reading), **reading.plain()}


def _task(here: Invocation, store: Store, task: str, noises: list[float]) -> dict[str, Any]:
    counts, last = store.label_counts(task), store.last_training(task)
    answered = last.newest_sample if last is not None else 0
    return {
        "task": task,
        "samples": sum(counts.values()),
        "labels": counts,
        "synced": here.home.manifest(task).exists(),
        "lacks": _lacks(here, task),
        "epsilon_spent": store.epsilon_spent(task),
        "rounds": ledger.told(noises),
        "running": standing(store.scores(task), metric=metric(here.home, task), answered=answered),
        "runs": [
            {"run": run.id, "kind": run.kind, "outcome": run.outcome, "started_at": run.started_at}
            for run in store.runs(task, RUNS_SHOWN)
        ],
    }


def _lacks(here: Invocation, task: str) -> list[str]:
    if not here.home.lacks(task).exists():
        return []
    from edgectl.suits import noted

    return noted(here.home, task)


def _lines(report: dict[str, Any]) -> list[str]:
    where = f"board {report['board']} of {report['url']}" if report["enrolled"] else "not enrolled: edgectl enroll FILE"
    lines = [where, f"state: {report['state']}", f"now: {report['board_state']['line']}"]
    for task in report["tasks"]:
        labels = ", ".join(f"{label} {n}" for label, n in task["labels"].items())
        lines.append(f"task {task['task']}: {plural(task['samples'], 'sample')}" + (f" ({labels})" if labels else ""))
        lines += [f"  left alone: it needs {', '.join(task['lacks'])}"] if task["lacks"] else []
        lines += _running_lines(task["running"])
        lines += [f"  rounds: {ledger.line(task['rounds'])}"] if task.get("rounds") else []
        lines += [f"  {run['kind']} #{run['run']}: {run['outcome'] or 'no end noted'}" for run in task["runs"]]
    if report["rounds"]:
        lines.append(f"rounds of all tasks together: {ledger.line(report['rounds'])}")
    if report["outbox"]:
        lines.append(f"{plural(report['outbox'], 'upload')} waiting for the next sync")
    return lines


def _running_lines(running: dict[str, Any] | None) -> list[str]:
    if running is None:
        return []
    lines = [f"  new samples, each predicted before it was trained on ({running['metric']}):"]
    spans = [("last", running["last"]), ("all", running["all"])]
    spans += [(_name(row["version"]), row) for row in running["versions"]]
    lines += [
        f"    {name} {row['samples']}: {_share(row['serving'])}, base {_share(row['base'])}" for name, row in spans
    ]
    drift = running["drift"]
    lines.append(f"    drift: {drift['detail']}" + (f" -> {drift['hint']}" if drift["hint"] else ""))
    return lines


def _name(version: int | None) -> str:
    return "before any version," if version is None else f"version {version},"


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.1f} %"
