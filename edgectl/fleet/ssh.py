"""The system's OpenSSH as a child process: ssh_config, ProxyJump, agents, hardware keys and known_hosts as the user has
them. Host keys are always checked."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import resource
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from edgectl.fleet.frames import Frames, Mark
from edgectl.fleet.inventory import Host
from edgewire.errors import EdgeError, NotFound

SSH_FAILED = 255
_LAST_WORDS_S = 2.0
KEPT_BYTES = 1 << 20
_CHUNK = 1 << 16
_ERRORS_KEPT = 1 << 14
_MOST_MARKS = 8
_FILES_BESIDES = 64
# What counts where the user's own configuration says nothing else.
_DEFAULTS = "Host *\n  ConnectTimeout 10\n  ServerAliveInterval 15\n  ServerAliveCountMax 3\n"


@dataclass(frozen=True)
class Ssh:
    """program: the ssh binary; config: a file that includes the user's. accept_new: take the key of an unknown host
    (never a changed one)."""

    program: str
    config: Path
    accept_new: bool = False

    def command(self, host: Host, words: Sequence[str]) -> list[str]:
        """The whole command line. words: one shell command for the board, already quoted."""
        checking = "accept-new" if self.accept_new else "yes"
        line = [self.program, "-F", str(self.config), "-T", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"]
        line += ["-o", f"StrictHostKeyChecking={checking}", "-o", "RemoteCommand=none"]
        for option, name in (("-l", "user"), ("-p", "port")):
            if host.get(name):
                line += [option, host.get(name)]
        if host.get("address"):
            address = host.get("address").replace("%", "%%")  # fe80::1%eth0: ssh fills in %e
            line += ["-o", f"HostName={address}"]
        return [*line, "--", host.name, *words]


@contextlib.contextmanager
def prepared(user_config: Path | None, *, accept_new: bool = False) -> Iterator[Ssh]:
    """Find ssh and write the configuration of this run. Raises EdgeError without ssh, NotFound without the file."""
    program = shutil.which("ssh")
    if program is None:
        raise EdgeError("there is no ssh on this machine", hint="Debian, Ubuntu: sudo apt-get install openssh-client")
    if user_config is not None and not user_config.is_file():
        raise NotFound(f"there is no file {user_config}")
    own = [user_config.absolute()] if user_config else [Path("~/.ssh/config").expanduser(), Path("/etc/ssh/ssh_config")]
    with tempfile.TemporaryDirectory(prefix="edgectl-fleet-") as folder:
        config = Path(folder) / "config"
        config.write_text("".join(f'Include "{path}"\n' for path in own) + _DEFAULTS)
        yield Ssh(program, config, accept_new)


def make_room(connections: int) -> None:
    """So many at once have more open files than a shell allows: three pipes each, and one to see it end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * connections + _FILES_BESIDES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
        )


@dataclass(frozen=True)
class Heard:
    """One connection from begin to end. rc: of ssh itself; marks: what the board said; errors: the end of stderr."""

    rc: int
    marks: tuple[Mark, ...]
    errors: str
    timed_out: bool


async def talk(
    command: Sequence[str],
    *,
    nonce: str,
    payload: Path | None = None,
    limit_s: float | None = None,
    on_line: Callable[[str], None] = lambda line: None,
) -> Heard:
    """Run ssh to its end, or kill it after limit_s. payload: sent from where the board says that it has it.

    ssh gets a session of its own: Ctrl-C is for us, who then tell the boards.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL if payload is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    heard = asyncio.gather(_marks(process, nonce, payload), _errors(process, on_line), process.wait())
    timed_out = False
    try:
        marks, errors, rc = await asyncio.wait_for(asyncio.shield(heard), limit_s)
    except asyncio.TimeoutError:
        timed_out = True
        kill(process)
        marks, errors, rc = await _last_words(heard)
    except BaseException:
        kill(process)
        with contextlib.suppress(asyncio.CancelledError):
            await _last_words(heard)
        raise
    return Heard(rc, tuple(marks), errors, timed_out)


async def _last_words(heard: asyncio.Future[tuple[list[Mark], str, int]]) -> tuple[list[Mark], str, int]:
    """Of an ssh that was killed. A proxy command in a session of its own may outlive it, with our ends of the pipes."""
    done, _ = await asyncio.wait({heard}, timeout=_LAST_WORDS_S)
    if done:
        return heard.result()
    heard.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await heard
    return [], "", SSH_FAILED


def kill(process: asyncio.subprocess.Process) -> None:
    """A process that leads a session, and what it started, as ssh does for ProxyJump."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


async def _marks(process: asyncio.subprocess.Process, nonce: str, payload: Path | None) -> list[Mark]:
    stdout = cast(asyncio.StreamReader, process.stdout)
    frames, found = Frames(nonce, KEPT_BYTES), list[Mark]()
    sending: asyncio.Task[None] | None = None
    try:
        while chunk := await stdout.read(_CHUNK):
            for mark in frames.feed(chunk):
                found.append(mark)
                if len(found) > _MOST_MARKS:
                    kill(process)
                    return found
                start = _wanted_from(mark)
                if start is not None and process.stdin is not None and payload is not None and sending is None:
                    sending = asyncio.create_task(_send(process.stdin, payload, start))
                if mark.words[:1] == ("end",) and process.stdin is not None:
                    process.stdin.close()
    finally:
        if sending is not None:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await sending
    return found


def _wanted_from(mark: Mark) -> int | None:
    """From which byte on the board wants the payload; None: this mark says something else."""
    known = len(mark.words) == 2 and mark.words[0] == "send" and re.fullmatch("[0-9]{1,15}", mark.words[1])
    return int(mark.words[1]) if known else None


async def _send(stdin: asyncio.StreamWriter, payload: Path, start: int) -> None:
    """The rest of the file, no faster than the board takes it. A connection that breaks shows at the other end."""
    with payload.open("rb") as opened, contextlib.suppress(ConnectionError):
        opened.seek(start)
        while chunk := opened.read(_CHUNK):
            stdin.write(chunk)
            await stdin.drain()
        stdin.close()


async def _errors(process: asyncio.subprocess.Process, on_line: Callable[[str], None]) -> str:
    """The end of stderr; each line is shown as it comes."""
    stderr = cast(asyncio.StreamReader, process.stderr)
    kept, rest = "", ""
    while chunk := await stderr.read(_CHUNK):
        text = chunk.decode("utf-8", "replace")
        kept = (kept + text)[-_ERRORS_KEPT:]
        *lines, rest = (rest + text)[-_ERRORS_KEPT:].split("\n")
        for line in lines:
            if line.strip():
                on_line(line.rstrip())
    return kept
