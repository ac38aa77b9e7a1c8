"""What can be done to a fleet: for each verb the work on one board, as a coroutine that gets the line to it."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgectl.fleet import boards
from edgectl.fleet.inventory import Host
from edgectl.fleet.line import Line
from edgectl.fleet.packing import Packer
from edgectl.fleet.results import HostResult, Skip
from edgectl.fleet.runner import Work

CLOCK_OFF_S = 300  # what the cloud lets a clock be wrong by
_PING = (
    "date +%s; uname -m; tr '\\0' '\\n' </proc/device-tree/model 2>/dev/null | head -n 1; echo;"
    " {edgectl} --version 2>/dev/null || echo 'no edgectl'"
)


def ping(clock: Callable[[], float] = time.time) -> Work:
    """Is it there, whose clock is right, which edgectl does it have?"""

    async def work(line: Line) -> HostResult:
        command = _PING.replace("{edgectl}", boards.edgectl(line.host))
        answer = boards.need(await line.look(command, user=""))  # a new board does not have the user of `become` yet
        said = [text.strip() for text in answer.text.strip().splitlines()]
        ahead_s = round(float(said[0]) - clock()) if said and said[0].isdigit() else None
        version = said[-1].removeprefix("edgectl ")
        known = {
            "edgectl": None if version == "no edgectl" else version,
            "machine": said[1] if len(said) > 1 else None,
            "model": said[2] if len(said) > 3 and said[2] else None,
            "clock_ahead_s": ahead_s,
        }
        return HostResult(line.host.name, "ok", _ping_line(known), 0, known)

    return work


def _ping_line(known: Mapping[str, Any]) -> str:
    has = f"edgectl {known['edgectl']}" if known["edgectl"] else "no edgectl -> edgectl fleet install"
    line = ", ".join(str(part) for part in (has, known["model"] or known["machine"]) if part)
    off = known["clock_ahead_s"]
    if off is not None and abs(off) > CLOCK_OFF_S:
        line += f"; its clock is {abs(off)} s {'ahead' if off > 0 else 'behind'} -> timedatectl set-ntp true"
    return line


def run(command: Sequence[str], *, root: bool) -> Work:
    """Any command, once. One word is a line for the board's shell; several are a program and its arguments."""
    text = command[0] if len(command) == 1 else shlex.join(command)

    async def work(line: Line) -> HostResult:
        filled = line.host.fill_command(text) if len(command) == 1 else text
        answer = await line.do(filled, user="root" if root else "")
        well = answer.rc == 0
        return HostResult(
            line.host.name,
            "changed" if well else "failed",
            "" if well else f"ended with {answer.rc}",
            answer.rc,
            output=answer.text if well else answer.text + answer.errors,
            truncated=answer.truncated,
        )

    return work


def edgectl_once(words: Callable[[Host], Sequence[str]], tell: boards.Tell, *, detach: bool = False) -> Work:
    """An edgectl command that changes something, once."""

    async def work(line: Line) -> HostResult:
        command = boards.edgectl(line.host, *words(line.host), "--json")
        answer = await line.do(command, detach=detach)
        if answer.state == "running":
            return HostResult(line.host.name, "changed", "begun; it goes on there", None)
        return boards.judge(line.host, answer, tell)

    return work


def edgectl_look(words: Callable[[Host], Sequence[str]], tell: boards.Tell) -> Work:
    """An edgectl command that only looks."""

    async def work(line: Line) -> HostResult:
        answer = await line.look(boards.edgectl(line.host, *words(line.host), "--json"))
        return boards.judge(line.host, answer, tell)

    return work


@dataclass(frozen=True)
class Push:
    """A file or folder for each host. template: its path, with `{host}` and variables; task: None takes the board's."""

    template: str
    task: str | None
    packer: Packer

    def work(self) -> Work:
        async def work(line: Line) -> HostResult:
            path = Path(line.host.fill(self.template)).expanduser()
            if not path.exists():
                raise Skip(f"there is no {path}")
            try:
                payload = await self.packer.payload(path)
                answer = await line.do(self._command(line.host, path), payload=payload)
            finally:
                if "{host}" in self.template:  # nobody else's
                    self.packer.forget(path)
            return boards.judge(line.host, answer, _pushed)

        return work

    def _command(self, host: Host, path: Path) -> str:
        """Under its own name: recordings are known by that."""
        task = ["--task", self.task or host.get("task")] if self.task or host.get("task") else []
        folder = path.is_dir()
        there = f'"$d"/{shlex.quote(path.resolve().name if folder else path.name)}'
        receive = f"mkdir {there} && tar -xf - -C {there}" if folder else f"cat >{there}"
        add = f"{boards.edgectl(host, 'data', 'add')} {there} {shlex.join([*task, '--json'])}"
        return f"{boards.IN_FOLDER}{receive} && {add}"


def _pushed(answer: Mapping[str, Any]) -> str:
    return f"{answer.get('added')} samples added to '{answer.get('task')}', it has {answer.get('total')}"


def synced(answer: Mapping[str, Any]) -> str:
    """A line about what `edgectl sync` did."""
    tasks = [
        f"{task.get('task')}: {'updated' if task.get('changed') else 'nothing new'}" for task in answer.get("tasks", ())
    ]
    return "; ".join(tasks) or "no tasks yet"


def stood(answer: Mapping[str, Any]) -> str:
    """A line about what `edgectl status` says."""
    if not answer.get("enrolled"):
        return "not enrolled -> edgectl fleet enroll"
    tasks = [f"{task.get('task')}: {task.get('samples')} samples" for task in answer.get("tasks", ())]
    now = answer.get("board_state", {}).get("line", "")
    return "; ".join(part for part in (str(answer.get("board")), *tasks, now) if part)


def trained(answer: Mapping[str, Any]) -> str:
    """A line about what `edgectl train` did."""
    if not answer.get("changed"):
        return f"{answer.get('shipped')} stays; {answer.get('reason')}"
    gain = answer.get("gain")
    believed = f", believed {100 * gain:+.1f} points over the base" if isinstance(gain, (int, float)) else ""
    return f"version {answer.get('version')}: recipe {answer.get('shipped')}{believed}"
