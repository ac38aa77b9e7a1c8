"""Tell the service manager how the agent is: the protocol of sd_notify(3), datagrams to the socket in NOTIFY_SOCKET."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Mapping

_LIMIT = 200

Notify = Callable[[str], None]
"""'READY=1', 'STATUS=...' or 'STOPPING=1'. Never raises."""


def to_manager(environ: Mapping[str, str]) -> Notify:
    """Tells whoever waits at NOTIFY_SOCKET (a path, or '@' and an abstract name); nobody where it is not set."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return lambda message: None
    target = "\0" + address[1:] if address.startswith("@") else address

    def notify(message: str) -> None:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.setblocking(False)  # a manager that does not listen must not hold the loop
            connection.sendto(message.encode(), target)

    return notify


def status(line: str) -> str:
    """A STATUS message of one short line."""
    return "STATUS=" + " ".join(line.split())[:_LIMIT]
