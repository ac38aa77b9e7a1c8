"""`cloud-aug serve`: the service, until a signal ends it."""

from __future__ import annotations

import logging
import socket
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from cloud_aug.commands.options import Data
from edgewire.errors import EdgeError, UsageError, from_os_error

if TYPE_CHECKING:
    from cloud_aug.settings import Settings

_log = logging.getLogger("cloud_aug.serve")

Bind = Annotated[str | None, typer.Option("--bind", help="The address to listen on. [default: settings.toml]")]
Port = Annotated[int | None, typer.Option("--port", help="The port; 0 takes a free one. [default: settings.toml]")]
Log = Annotated[bool, typer.Option("--access-log", help="Log every request, not only those that failed.")]
Format = Annotated[
    str, typer.Option("--log-format", show_default="text on a terminal, else json", help="'json' or 'text'.")
]
Count = Annotated[int, typer.Option("--workers", min=1, max=256, help="Processes that share the port.")]
Inherited = Annotated[str, typer.Option("--worker", hidden=True)]


def serve(
    data: Data = None,
    bind: Bind = None,
    port: Port = None,
    workers: Count = 1,
    access_log: Log = False,
    log_format: Format = "",
    worker: Inherited = "",
) -> None:
    """Serve boards over HTTPS. The address appears on stderr once requests are answered."""
    from cloud_aug import logs, settings

    if log_format not in ("", "json", "text"):
        raise UsageError(f"there is no log format '{log_format}'", hint="write --log-format json or text")
    folder = data or settings.default_data_folder()
    chosen, as_json = settings.load(folder), log_format == "json" or (not log_format and not sys.stderr.isatty())
    logs.configure(as_json=as_json, requests=access_log)
    if worker:
        _serve_inherited(chosen, worker)
        return
    listener, address = _listen(chosen, bind, port)
    _warn_of_certificate(chosen)
    if workers == 1:
        _run(chosen, listener, lambda: _log.info("serving %s", address))
    else:
        options = ["--data", str(folder), "--log-format", "json" if as_json else "text"]
        _run_workers(chosen, listener, address, workers, [*options, *(["--access-log"] if access_log else [])])


def _listen(chosen: Settings, bind: str | None, port: int | None) -> tuple[socket.socket, str]:
    from cloud_aug.server import listen

    host, number = chosen.bind if bind is None else bind, chosen.port if port is None else port
    try:
        listener = listen(host, number)
    except OSError as error:
        found = from_os_error(error, f"binding {host}:{number}")
        raise EdgeError(found.message, hint="is another service there? choose another --port") from None
    shown = chosen.hosts[0] if host in ("0.0.0.0", "::") else host  # noqa: S104
    return listener, f"https://{f'[{shown}]' if ':' in shown else shown}:{listener.getsockname()[1]}"


def _warn_of_certificate(chosen: Settings) -> None:
    from cloud_aug import certificates, keys

    pem = keys.server_certificate_pem(keys.KeyFolders(chosen.data / "keys", chosen.offline_folder))
    days = (certificates.expires_at(pem) - time.time()) / 86400
    if days < 30:
        _log.warning("the certificate ends in %.0f days; run 'cloud-aug keys rotate tls'", days)


def _run(chosen: Settings, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    from cloud_aug.app import create_app
    from cloud_aug.keys import KeyFolders
    from cloud_aug.server import serve as run

    certificate = KeyFolders(chosen.data / "keys", chosen.offline_folder).tls
    app, shutdown_s = create_app(chosen), chosen.limits.shutdown_s
    stop = app.state.streams.closing.set
    run(app, listener, certificate, on_ready=on_ready, on_stop=stop, shutdown_s=shutdown_s)


def _serve_inherited(chosen: Settings, given: str) -> None:
    from cloud_aug.workers import Worker

    inherited = Worker(given)
    _run(chosen, inherited.listener, inherited.ready)


def _run_workers(chosen: Settings, listener: socket.socket, address: str, count: int, options: list[str]) -> None:
    from cloud_aug.cloud import open_settings
    from cloud_aug.workers import Workers, command_line

    open_settings(chosen).database.close()  # migrated once, and what cannot be opened is said once
    command = [*command_line(), "serve", *options]
    Workers(command, listener, count=count, shutdown_s=chosen.limits.shutdown_s).run(address)
