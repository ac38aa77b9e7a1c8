"""`cloud-aug serve`: the service, until a signal ends it."""

from __future__ import annotations

from typing import Annotated

import typer

from cloud_aug.commands.options import Data
from cloud_aug.output import say

Bind = Annotated[str | None, typer.Option("--bind", help="The address to listen on. [default: settings.toml]")]
Port = Annotated[int | None, typer.Option("--port", help="The port; 0 takes a free one. [default: settings.toml]")]
Log = Annotated[bool, typer.Option("--access-log", help="Write a line per request to stderr.")]


def serve(data: Data = None, bind: Bind = None, port: Port = None, access_log: Log = False) -> None:
    """Serve boards over HTTPS. The address appears on stderr once requests are answered."""
    from cloud_aug import certificates, keys, settings
    from cloud_aug.app import create_app
    from cloud_aug.keys import KeyFolders
    from cloud_aug.server import listen
    from cloud_aug.server import serve as run
    from edgewire.errors import EdgeError, from_os_error

    chosen = settings.load(data or settings.default_data_folder())
    app = create_app(chosen)
    folders = KeyFolders(chosen.data / "keys", chosen.offline_folder)
    days = (certificates.expires_at(keys.server_certificate_pem(folders)) - app.state.clock()) / 86400
    if days < 30:
        say(f"warning: the certificate ends in {days:.0f} days; run 'cloud-aug keys rotate tls'")
    host = chosen.bind if bind is None else bind
    try:
        listener = listen(host, chosen.port if port is None else port)
    except OSError as error:
        found = from_os_error(error, f"binding {host}:{chosen.port if port is None else port}")
        raise EdgeError(found.message, hint="is another service there? choose another --port") from None
    shown = chosen.hosts[0] if host in ("0.0.0.0", "::") else host  # noqa: S104
    address = f"https://{f'[{shown}]' if ':' in shown else shown}:{listener.getsockname()[1]}"
    run(
        app,
        listener,
        folders.tls,
        address=address,
        shutdown_s=chosen.limits.shutdown_s,
        log=access_log,
    )
