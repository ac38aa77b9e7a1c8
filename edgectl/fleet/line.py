"""The line to one board: run something there, or have it done once however often the connection breaks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import shlex
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from edgectl.fleet.inventory import Host
from edgectl.fleet.packing import Payload
from edgectl.fleet.results import Unreachable
from edgectl.fleet.ssh import KEPT_BYTES, SSH_FAILED, Heard, Ssh, talk
from edgewire.errors import EdgeError, UsageError

NOTHING = "-"  # in the place of a payload's digest
STOP_S = 60
GRACE_S = 45  # beyond what the board was given: it ends the command after 30 more
LONGEST_COMMAND = 64 << 10
_EVAL = 'script=$1; shift; eval "$script"'  # so that the script can start itself anew
_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
# What ssh says where trying again does not help, and what does.
_FINAL = {
    "REMOTE HOST IDENTIFICATION HAS CHANGED": (
        "its host key has changed",
        "if the board was installed anew: ssh-keygen -R HOST, then edgectl fleet enroll; else somebody is in between",
    ),
    "Host key verification failed": (
        "its host key is not known",
        "compare and take it: edgectl fleet enroll --keys-only",
    ),
    "Permission denied": ("it refuses your key", "ssh-add -l lists the agent's keys; ssh-copy-id HOST brings one"),
    "Could not resolve hostname": (
        "its name cannot be resolved",
        "set `address` in the inventory, or HostName in ~/.ssh/config",
    ),
    "Bad configuration option": ("ssh's configuration is wrong", "ssh -G HOST says where"),
}


@dataclass(frozen=True)
class Answer:
    """What the command did on the board. state: looked, did, followed, repeated or running; size: of all its output."""

    rc: int
    state: str
    out: bytes
    size: int
    errors: str

    @property
    def truncated(self) -> bool:
        return self.size > len(self.out)

    @property
    def text(self) -> str:
        return self.out.decode("utf-8", "replace")

    def json(self) -> dict[str, Any]:
        """The one document of an edgectl command. Raises EdgeError."""
        with contextlib.suppress(ValueError, RecursionError):
            document = json.loads(self.out)
            if isinstance(document, dict):
                return document
        raise EdgeError("what it answered cannot be read", hint="is edgectl there of the same version? fleet ping says")

    def complaint(self) -> str:
        """The line in which an edgectl command says what is wrong, or else the last one."""
        lines = [line.strip() for line in self.errors.splitlines() if line.strip()]
        ours = [i for i, line in enumerate(lines) if line.startswith("edgectl: ")]
        if not ours:
            return lines[-1] if lines else f"it ended with {self.rc} and said nothing"
        said = lines[ours[-1]][len("edgectl: ") :]
        hints = [line for line in lines[ours[-1] + 1 :] if line.startswith("-> ")]
        return f"{said}; {hints[0][3:]}" if hints else said


@dataclass(frozen=True)
class Patience:
    """retries: further attempts after a lost connection; limit_s: that a command may take on a board, 0: any."""

    retries: int
    limit_s: int
    rng: Random = field(default_factory=Random)
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


@dataclass
class Line:
    """host: whom; operation: the id of what is changed; on_line: what the board says meanwhile. attempts: so far."""

    ssh: Ssh
    host: Host
    operation: str
    patience: Patience
    on_line: Callable[[str], None] = lambda line: None
    attempts: int = 0
    _begun: bool = False

    async def look(self, command: str, *, user: str | None = None) -> Answer:
        """Run it; nothing on the board may change by it. user: as for `do`. Raises Unreachable, UsageError."""
        become = self._user if user is None else user
        return await self._until_heard(["look", become, str(self.patience.limit_s), command], None)

    async def do(
        self, command: str, *, user: str | None = None, payload: Payload | None = None, detach: bool = False
    ) -> Answer:
        """Have it done once; with the same operation, follow it or hear again what came of it. user: whom to become;
        None takes the host's `become`.

        Raises Unreachable, EdgeError (the board could not begin, or was cut off in the middle), UsageError.
        """
        self._begun = True
        digest, size = (NOTHING, 0) if payload is None else (payload.digest, payload.size)
        words = ["do", self._user if user is None else user, self.operation, str(self.patience.limit_s)]
        words += [str(KEPT_BYTES), digest, str(size), "yes" if detach else "no", command]
        return await self._until_heard(words, payload)

    async def stop(self) -> str:
        """End what was begun on the board, or keep it from beginning; in which state the board is, as a line."""
        if not self._begun:
            return "nothing was begun"
        try:
            words = ["stop", self._user, self.operation, str(STOP_S)]
            answer = _answer(await self._talk(words, None, STOP_S + GRACE_S))
        except EdgeError as error:
            return f"not known whether it goes on there: {error.message}"
        said = {
            "prevented": "it had not begun, and will not",
            "ended": f"it had ended before, with {answer.rc}",
            "stopped": f"stopped there, with {answer.rc}",
        }
        return said.get(answer.state, "it goes on there")

    @property
    def _user(self) -> str:
        return self.host.get("become")

    async def _until_heard(self, words: Sequence[str], payload: Payload | None) -> Answer:
        limit_s = self.patience.limit_s + GRACE_S if self.patience.limit_s else None
        for attempt in range(self.patience.retries + 1):
            try:
                return _answer(await self._talk(words, payload, limit_s))
            except Unreachable as error:
                if not error.again or attempt == self.patience.retries:
                    raise
                self.on_line(f"{error.message}; trying again")
            pause = min(_LONGEST_PAUSE_S, _PAUSE_S * 2**attempt)
            await self.patience.sleep(pause * (0.5 + self.patience.rng.random()))
        raise AssertionError("unreachable")

    async def _talk(self, words: Sequence[str], payload: Payload | None, limit_s: float | None) -> Heard:
        nonce = secrets.token_hex(8)
        self.attempts += 1
        line = shlex.join(["sh", "-c", _EVAL, "edgectl-fleet", script(), words[0], nonce, *words[1:]])
        if len(line) > LONGEST_COMMAND:
            raise UsageError("this command is too long for a command line", hint="put it into a script there")
        command, path = self.ssh.command(self.host, [line]), None if payload is None else payload.path
        return await talk(command, nonce=nonce, payload=path, limit_s=limit_s, on_line=self.on_line)


@cache
def script() -> str:
    """remote.sh without what a shell does not need."""
    text = Path(__file__).with_name("remote.sh").read_text(encoding="utf-8")
    return "".join(f"{line.strip()}\n" for line in text.splitlines() if line.strip() and line.strip()[0] != "#")


def _answer(heard: Heard) -> Answer:
    """What was heard, or why it was not. Raises Unreachable or EdgeError."""
    marks: Mapping[str, Any] = {mark.words[0]: mark for mark in heard.marks if mark.words}
    if "end" not in marks:
        raise _lost(heard)
    try:
        return _told(heard, marks)
    except (ValueError, KeyError, IndexError):  # a board may say anything
        raise EdgeError("what it answered cannot be read") from None


def _told(heard: Heard, marks: Mapping[str, Any]) -> Answer:
    end = marks["end"]
    rc, state, *why = end.words[1:]
    if state in ("cut", "damaged"):
        raise Unreachable(f"the connection was lost: {' '.join(why)}")
    if state in ("refused", "broken"):
        raise EdgeError(" ".join(why) or "it could not begin")
    if state == "looked":
        return Answer(int(rc), state, end.body, end.size, heard.errors)
    if "err" not in marks:
        return Answer(int(rc), state, b"", 0, heard.errors)
    size = int(marks["begin"].words[1])
    return Answer(int(rc), state, marks["err"].body, size, end.body.decode("utf-8", "replace"))


def _lost(heard: Heard) -> Unreachable:
    if not heard.marks:  # else the errors are those of the command
        for sign, (message, hint) in _FINAL.items():
            if sign in heard.errors:
                return Unreachable(message, hint=hint, again=False)
    if heard.timed_out:
        return Unreachable("it did not answer in time")
    lines = [line.strip() for line in heard.errors.splitlines() if line.strip()]
    said = f": {lines[-1]}" if lines else ""
    if heard.rc == SSH_FAILED:
        return Unreachable(f"no connection{said}")
    return Unreachable(f"the connection was lost in the middle (ssh ended with {heard.rc}){said}")
