"""Each board its own one-time token, over ssh: on no command line, in no log and in no shell history."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Awaitable, Callable
from pathlib import Path

from edgectl.fleet import boards
from edgectl.fleet.inventory import Host
from edgectl.fleet.line import Line
from edgectl.fleet.packing import Payload
from edgectl.fleet.results import HostResult, Skip
from edgectl.fleet.runner import Work
from edgectl.fleet.ssh import kill
from edgewire.errors import EdgeError, NotFound, TimedOut, TooLarge

FILE_LIMIT_BYTES = 128 << 10
TOKEN_S = 120
Token = Callable[[Host], Awaitable[bytes]]


def from_folder(folder: Path) -> Token:
    """HOST.json of a folder, as `cloud-aug boards token --out` writes it."""

    async def token(host: Host) -> bytes:
        path = folder / f"{host.name}.json"
        try:
            with path.open("rb") as opened:
                return _checked(opened.read(FILE_LIMIT_BYTES + 1))
        except FileNotFoundError:
            raise Skip(f"there is no {path}") from None

    return token


def from_command(command: str) -> Token:
    """What a command prints, run once for each board: `ssh cloud cloud-aug boards token --task T`."""

    async def token(host: Host) -> bytes:
        words = shlex.split(host.fill(command))
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                *words, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe, start_new_session=True
            )
        except FileNotFoundError:
            raise NotFound(f"there is no program {words[0]}", hint="--token-command") from None
        try:
            return await asyncio.wait_for(_said(process), TOKEN_S)
        except asyncio.TimeoutError:
            raise TimedOut(f"no token: the command took more than {TOKEN_S} s") from None
        finally:
            kill(process)

    return token


async def _said(process: asyncio.subprocess.Process) -> bytes:
    out, errors = await asyncio.gather(*(_read(stream) for stream in (process.stdout, process.stderr)))
    if await process.wait() != 0:
        said = errors.decode("utf-8", "replace").strip().splitlines()
        raise EdgeError(f"no token: the command ended with {process.returncode}: {said[-1] if said else ''}")
    return _checked(out)


async def _read(stream: asyncio.StreamReader | None) -> bytes:
    kept = bytearray()
    while stream is not None and (chunk := await stream.read(1 << 16)):
        kept += chunk[: FILE_LIMIT_BYTES + 1 - len(kept)]
    return bytes(kept)


def _checked(file: bytes) -> bytes:
    if len(file) > FILE_LIMIT_BYTES:
        raise TooLarge(f"no token: an enrolment file has at most {FILE_LIMIT_BYTES >> 10} KiB")
    return file


def enroll(token: Token | None, scratch: Path, *, force: bool) -> Work:
    """Enroll a board that is not. token: None only takes its host key."""

    async def work(line: Line) -> HostResult:
        if token is None:
            boards.need(await line.look("true", user=""))
            return HostResult(line.host.name, "ok", "its host key is known", 0)
        seen = await line.look(boards.edgectl(line.host, "status", "--json"))
        if seen.rc != 0:
            return boards.failed(line.host, seen)
        known = seen.json()
        if known.get("enrolled") and not force:
            return HostResult(line.host.name, "ok", f"already enrolled at {known.get('url')}", 0, known)
        file = scratch / f"{line.host.name}.json"
        file.touch(mode=0o600)
        try:
            file.write_bytes(await token(line.host))
            return await _introduce(line, file, force=force)
        finally:
            file.unlink()

    return work


async def _introduce(line: Line, file: Path, *, force: bool) -> HostResult:
    name = ["--name", line.host.get("name", line.host.name.rpartition("@")[2])]
    words = ["enroll", "-", *name, *(["--force"] if force else []), "--json"]
    answer = await line.do(boards.edgectl(line.host, *words), payload=Payload.of(file))
    return boards.judge(line.host, answer, lambda said: f"enrolled at {said.get('url')} as {said.get('board')}")
