"""A TCP relay on loopback that counts what passes: the same ruler for any two sides that talk through it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from bisect import bisect_right
from collections.abc import Iterator

PIECE_BYTES = 1 << 16


class Relay:
    """Passes on whatever comes to `port` to `target` on this machine, until it is closed. What is counted is what TCP
    carries: TLS and HTTP are in it, headers of TCP and IP are not."""

    def __init__(self) -> None:
        self.port, self.target = 0, 0
        self._seen: list[tuple[float, int, int]] = [(0.0, 0, 0)]  # by the monotonic clock: up and down until then
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)

    def between(self, start: float, end: float) -> tuple[int, int]:
        """Bytes up (to the target) and down from one moment of the monotonic clock to another."""
        times = [moment for moment, _, _ in self._seen]
        first, last = (self._seen[bisect_right(times, moment) - 1] for moment in (start, end))
        return last[1] - first[1], last[2] - first[2]

    def _count(self, up: int, down: int) -> None:
        _, before_up, before_down = self._seen[-1]
        self._seen.append((time.monotonic(), before_up + up, before_down + down))

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._ended.wait()
        server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            there = await asyncio.open_connection("127.0.0.1", self.target)
            up = asyncio.create_task(self._pass(reader, there[1], up=True))
            await asyncio.gather(up, self._pass(there[0], writer, up=False))
        writer.close()

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, up: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := await source.read(PIECE_BYTES):
                self._count(len(piece) * up, len(piece) * (not up))
                sink.write(piece)
                await sink.drain()
        sink.close()


@contextlib.contextmanager
def relaying() -> Iterator[Relay]:
    """A relay; whoever asked for it sets `target` before anybody connects."""
    made = Relay()
    made._thread.start()
    made._ready.wait(10)
    try:
        yield made
    finally:
        made._loop.call_soon_threadsafe(made._ended.set)
        made._thread.join(10)
