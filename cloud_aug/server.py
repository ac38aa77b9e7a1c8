"""uvicorn with TLS as we want it: short handshakes, new certificates without a restart, an address once it is ready."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from edgewire.errors import EdgeError

CERTIFICATE_CHECK_TICKS = 20  # ticks of 0.1 s
KEEP_ALIVE_S = 30
REQUEST_HEAD_S = 30.0  # for a request's line and headers
FAREWELL_S = 2.0  # when the service ends: for the last bytes of an answer to arrive, and the other side to close

_log = logging.getLogger(__name__)


class Connection(H11Protocol):
    """Closes a connection on which no whole request came for a while: each idle one holds a file descriptor. And waits
    briefly when the service ends: TLS closes on both sides, but who is idle may not look for minutes."""

    _timer: asyncio.TimerHandle | None = None
    _farewell: asyncio.TimerHandle | None = None
    _ending = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_request()

    def data_received(self, data: bytes) -> None:
        if self._idle:
            self._await_request()
        super().data_received(data)
        if not self._idle:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        if self._farewell is not None:
            self._farewell.cancel()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        self._ending = True
        super().shutdown()
        if self._idle:
            self._leave_soon()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._ending:
            self._leave_soon()

    def _leave_soon(self) -> None:
        self._farewell = self.loop.call_later(FAREWELL_S, self._leave)

    def _leave(self) -> None:
        if self.transport.get_write_buffer_size():
            self._leave_soon()  # the line is slow, and the answer still on its way
        else:
            self.transport.abort()

    @property
    def _idle(self) -> bool:
        return bool(getattr(self.cycle, "response_complete", True))  # None before the first request

    def _await_request(self) -> None:
        if self._timer is None:  # data that drips does not start it anew
            self._timer = self.loop.call_later(REQUEST_HEAD_S, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Server(uvicorn.Server):
    """Tells when it serves, and takes a new certificate when the file changes."""

    def __init__(
        self, config: uvicorn.Config, certificate: Path, on_ready: Callable[[], None], on_stop: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._certificate = certificate
        self._on_ready, self._on_stop = on_ready, on_stop
        self._seen = certificate.stat().st_mtime_ns

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_stop()
        await super().shutdown(sockets)

    async def on_tick(self, counter: int) -> bool:
        if counter % CERTIFICATE_CHECK_TICKS == 0:
            self._take_new_certificate()
        return await super().on_tick(counter)

    def _take_new_certificate(self) -> None:
        try:
            changed = self._certificate.stat().st_mtime_ns
            if changed != self._seen and self.config.ssl is not None:
                self.config.ssl.load_cert_chain(self._certificate)
                _log.info("took the new certificate")
                self._seen = changed
        except (OSError, ssl.SSLError) as error:
            _log.warning("the certificate cannot be read, the old one stays: %s", error)


def serve(
    app: ASGIApp,
    listener: socket.socket,
    certificate: Path,
    *,
    on_ready: Callable[[], None],
    on_stop: Callable[[], None],
    shutdown_s: float,
) -> None:
    """Serve until a signal comes; requests that are being answered may end within shutdown_s. on_stop: called before
    that, so that answers without an end come to one."""
    config = uvicorn.Config(
        app,
        http=Connection,
        ssl_certfile=str(certificate),
        log_config=None,  # what it logs goes where ours goes, and requests are logged by middleware.Watch
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(shutdown_s),
    )
    config.load()
    if config.ssl is None:
        raise EdgeError("uvicorn made no TLS context")
    config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    config.ssl.num_tickets = 0  # boards rarely resume a session, and two tickets are half a kilobyte of each handshake
    Server(config, certificate, on_ready, on_stop).run(sockets=[listener])


def listen(bind: str, port: int) -> socket.socket:
    """A bound socket. Raises OSError (port in use, not allowed)."""
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((bind, port))
    except OSError:
        listener.close()
        raise
    listener.set_inheritable(True)
    return listener
