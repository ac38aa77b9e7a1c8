"""What jetson-stats knows, through a helper process that may die, hang or be of another version: then fields stay null
with a reason, the helper is started again after a growing pause, and whoever reads is not held up."""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgectl.telemetry.draft import Draft

if TYPE_CHECKING:
    import subprocess

FIELDS = ("temperature_c", "power_w", "gpu_load", "gpu_mhz")
WAIT_S = 0.2  # for an answer; the helper keeps them ready
STALE_S = 5.0  # jtop reads once a second
SILENT_S = 10.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 300.0
_LIMIT_BYTES = 64 << 10


def spawn() -> subprocess.Popen[bytes]:
    """Start the helper. Raises OSError."""
    import subprocess

    program = Path(__file__).parent / "apart" / "jtop_lines.py"
    return subprocess.Popen(
        [sys.executable, str(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for whoever reads; the helper ends with it
    )


class Jtop:
    """Fills what /sys left open. It is started only if something was."""

    def __init__(self, spawn: Callable[[], subprocess.Popen[bytes]] = spawn) -> None:
        self._spawn = spawn
        self._process: subprocess.Popen[bytes] | None = None
        self._reason = "jtop was not started"
        self._complaint = ""  # the last error that this helper told
        self._buffer = b""
        self._number = 0
        self._unanswered_since: float | None = None
        self._not_before, self._pause_s = float("-inf"), FIRST_PAUSE_S

    def read(self, draft: Draft, now: float) -> None:
        wanted = [name for name in FIELDS if draft.open(name)]
        if not wanted:
            return
        answer = self._ask(now)
        if answer is not None:
            _fill(draft, answer)
        for name in wanted:
            if answer is None and draft.open(name):
                draft.lack(name, f"{draft.missing.get(name, 'not in /sys')}; jtop: {self._reason}")

    @property
    def starting(self) -> bool:
        """Whether the helper runs and has said nothing of use yet."""
        return self._process is not None and self._unanswered_since is not None

    def close(self) -> None:
        """End the helper."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        import subprocess

        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1.0)

    def _ask(self, now: float) -> dict[str, Any] | None:
        """The answer to this very question, or None and a reason."""
        if self._process is None and not self._start(now):
            return None
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            return None
        try:
            self._number += 1
            if self._unanswered_since is None:
                self._unanswered_since = now
            os.write(process.stdin.fileno(), f"{self._number}\n".encode())
            return self._receive(process.stdout.fileno(), now)
        except BlockingIOError:
            self._fail("takes no more questions", now)
        except OSError:
            self._collect(process.stdout.fileno())
            self._fail(self._reason, now)
        return None

    def _start(self, now: float) -> bool:
        if now < self._not_before:
            return False
        try:
            self._process = self._spawn()
        except OSError as error:
            self._fail(f"cannot be started: {os.strerror(error.errno or 0)}", now)
            return False
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)
        self._buffer, self._unanswered_since, self._reason = b"", None, "the helper is starting"
        self._complaint = ""
        return True

    def _receive(self, handle: int, now: float) -> dict[str, Any] | None:
        taken = 0
        while select.select([handle], [], [], WAIT_S)[0]:
            piece = os.read(handle, _LIMIT_BYTES)
            self._buffer += piece
            taken += len(piece)
            for answer in self._lines():
                if answer.get("asked") == str(self._number):
                    return self._judge(answer, now)
            if not piece or taken > _LIMIT_BYTES:
                self._fail(self._reason if not piece else "the helper prints too much", now)
                return None
        if self._unanswered_since is not None and now - self._unanswered_since > SILENT_S:
            self._fail("the helper does not answer", now)
        return None

    def _collect(self, handle: int) -> None:
        """What it said before it ended."""
        with contextlib.suppress(OSError):
            self._buffer += os.read(handle, _LIMIT_BYTES)
        list(self._lines())

    def _lines(self) -> list[dict[str, Any]]:
        """Whole lines that are JSON objects; an error among them becomes the reason."""
        *whole, self._buffer = self._buffer.split(b"\n")
        found = []
        for line in whole:
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                self._reason = "the helper printed garbage"
                continue
            if isinstance(value, dict):
                found.append(value)
                if "error" in value:
                    self._reason = self._complaint = str(value["error"])[:200]
        return found

    def _judge(self, answer: dict[str, Any], now: float) -> dict[str, Any] | None:
        """The answer, if jtop was heard lately. Until it was heard for the first time, it is starting."""
        age_s = answer.get("age_s")
        if isinstance(age_s, (int, float)) and age_s <= STALE_S:
            self._unanswered_since, self._pause_s, self._reason = None, FIRST_PAUSE_S, ""
            return answer
        waiting = self._complaint or "jtop has not answered yet"
        self._reason = waiting if age_s is None else f"silent for {age_s:.0f} s"
        if self._unanswered_since is not None and now - self._unanswered_since > SILENT_S:
            self._fail(self._reason, now)
        return None

    def _fail(self, reason: str, now: float) -> None:
        self.close()
        self._reason = reason
        self._not_before = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)


def _fill(draft: Draft, answer: dict[str, Any]) -> None:
    temperatures = answer.get("temperatures_c")
    if isinstance(temperatures, dict):
        known = {str(name): float(value) for name, value in temperatures.items() if _believable(value)}
        if known and draft.open("temperature_c"):
            draft.give("temperature_c", max(known.values()))
            draft.give("temperatures_c", known)
    if draft.open("power_w") and _is_number(answer.get("power_mw")):
        draft.give("power_w", answer["power_mw"] / 1000)
        if not draft.open("power_w"):
            draft.give("power_quality", "measured" if answer.get("total_rail") else "modelled")
    for name, key, unit in (("gpu_load", "gpu_percent", 100.0), ("gpu_mhz", "gpu_khz", 1000.0)):
        if _is_number(answer.get(key)):
            draft.give(name, answer[key] / unit)
    for name in FIELDS:
        if draft.open(name):
            draft.missing.setdefault(name, f"jtop {str(answer.get('version'))[:20]} does not tell it")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _believable(value: Any) -> bool:
    from edgectl.telemetry.draft import doubt

    return _is_number(value) and doubt("temperature_c", value) is None
