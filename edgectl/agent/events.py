"""What the agent tells: a line for people on stderr, or a line of JSON on stdout; and its last one to the service
manager."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from typing import Any

from edgectl.agent.notify import Notify, status
from edgectl.output import SCHEMA_VERSION, say


class Events:
    """wall: seconds since 1970. Whoever reads may go away, and the journal's disk may be full: the loop goes on."""

    def __init__(self, notify: Notify, wall: Callable[[], float], *, as_json: bool) -> None:
        self._notify, self._wall, self._as_json = notify, wall, as_json

    def tell(self, kind: str, line: str, **known: Any) -> None:
        """One event."""
        self._notify(status(line))
        with contextlib.suppress(OSError):
            if self._as_json:
                event = {"schema_version": SCHEMA_VERSION, "at": self._wall(), "event": kind, "line": line, **known}
                # ASCII: a file's name may hold bytes that are no text
                sys.stdout.write(json.dumps(event, allow_nan=False) + "\n")
                sys.stdout.flush()
            else:
                say(line.replace("\n", " "))
