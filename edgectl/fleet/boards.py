"""What is run on boards, as lines for their shell, and what its end means."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Any

from edgectl.fleet.inventory import Host
from edgectl.fleet.line import Answer
from edgectl.fleet.results import HostResult
from edgewire.errors import EdgeError, NothingToDo

_MISSING, _TIMED_OUT, _KILLED = 127, 124, 137
Tell = Callable[[Mapping[str, Any]], str]


# A folder for a while, which goes whatever happens. Not in /tmp: that is memory on newer systems.
IN_FOLDER = 'd=$(mktemp -d -p /var/tmp) && trap "rm -rf $d" EXIT && trap "exit 143" TERM INT HUP && '


def edgectl(host: Host, *words: str) -> str:
    """An edgectl command of that board, with its own program and state folder where the inventory names them."""
    state = ["--state", host.get("state")] if host.get("state") else []
    return shlex.join([host.get("edgectl", "edgectl"), *state, *words])


def judge(host: Host, answer: Answer, tell: Tell) -> HostResult:
    """The end of an edgectl command with --json. Raises EdgeError if its answer cannot be read."""
    if answer.rc != 0:
        return failed(host, answer)
    document = answer.json()
    return HostResult(host.name, "changed" if document.get("changed") else "ok", tell(document), 0, document)


def failed(host: Host, answer: Answer) -> HostResult:
    """A command that did not end with 0. Nothing to do is no failure."""
    message = {
        _MISSING: "edgectl is not there -> edgectl fleet install, or say where it is: `edgectl` in the inventory",
        _TIMED_OUT: "it took too long and was ended there -> --timeout",
        _KILLED: "it was killed there: too long for --timeout, or out of memory",
    }.get(answer.rc, answer.complaint())
    if answer.rc == _MISSING and "sudo" in answer.complaint():
        message = (
            "sudo is not there, and `become` needs it -> install it, or log in as that user: `user` in the inventory"
        )
    return HostResult(host.name, "ok" if answer.rc == NothingToDo.exit_code else "failed", message, answer.rc)


def need(answer: Answer) -> Answer:
    """Raises EdgeError for a step that others build on and that failed."""
    if answer.rc != 0:
        raise EdgeError(answer.complaint())
    return answer
