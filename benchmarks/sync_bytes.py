"""How many bytes does a sync move? Counted on the wire, TLS and headers included, by a proxy between board and
cloud."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from benchmarks.figures import Figure, at_most, exactly, noted, run
from benchmarks.world import World, world
from demo.shell import SCRIPTS, free_port
from edgewire.encryption import OVERHEAD_BYTES


class Wire:
    """Forwards TCP and counts. cut_after: close everything once that many bytes have come down."""

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        self._target = 0
        self.up = self.down = 0
        self.cut_after: int | None = None
        threading.Thread(target=self._serve, daemon=True).start()

    def forward_to(self, port: int) -> None:
        self._target = port

    def reset(self, *, cut_after: int | None = None) -> None:
        self.up = self.down = 0
        self.cut_after = cut_after

    @property
    def total(self) -> int:
        return self.up + self.down

    def _serve(self) -> None:
        while True:
            near, _ = self._listener.accept()
            if self.cut_after is not None and self.down >= self.cut_after:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self._target))
            for source, sink, up in ((near, far, True), (far, near, False)):
                threading.Thread(target=self._pump, args=(source, sink, up), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        try:
            while piece := source.recv(16384):
                if up:
                    self.up += len(piece)
                elif self.cut_after is not None and self.down + len(piece) > self.cut_after:
                    piece = piece[: max(0, self.cut_after - self.down)]
                    self.down += len(piece)
                    sink.sendall(piece)
                    break
                else:
                    self.down += len(piece)
                sink.sendall(piece)
        except OSError:
            pass
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def measure(quick: bool) -> Sequence[Figure]:
    port = free_port()
    wire = Wire(port)
    with world(url_port=port) as place:
        wire.forward_to(place.port)
        place.edgectl("enroll", place.folder / "enrol.json")
        fresh = place.folder / "fresh"
        shutil.copytree(place.state, fresh)
        wire.reset()
        first = place.edgectl("sync")
        first_wire, payload = wire.total, sum(task["fetched_bytes"] for task in first["tasks"])
        wire.reset()
        place.edgectl("sync")
        cached_token = wire.total
        (place.state / "access.json").unlink()
        wire.reset()
        place.edgectl("sync")
        new_token = wire.total
        shutil.rmtree(place.state)
        fresh.rename(place.state)
        kept, again = _interrupted(place, wire, cut_after=first_wire // 2)
    twice = kept + again - payload
    return [
        noted("first sync", first_wire, "bytes", anchor=f"payload {payload} bytes"),
        noted("first sync: beyond its payload", first_wire - payload, "bytes", anchor="TLS, headers, manifest"),
        at_most("second sync, nothing new, new access token", new_token, "bytes", 4096, anchor="goal of 4 KiB"),
        at_most("second sync, nothing new, token still valid", cached_token, "bytes", 4096, anchor="goal of 4 KiB"),
        exactly("cut off half-way and resumed: fetched twice", twice, "bytes", 0, anchor=f"{kept} bytes were kept"),
    ]


def _interrupted(place: World, wire: Wire, *, cut_after: int) -> tuple[int, int]:
    """Payload bytes on disk after a sync that was cut off, and fetched by the sync that went on from there."""
    wire.reset(cut_after=cut_after)
    command = [str(SCRIPTS / "edgectl"), "sync", "--max-seconds", "20"]
    done = subprocess.run(command, capture_output=True, env={**os.environ, **place.env}, check=False)
    if done.returncode == 0:
        raise SystemExit("the sync was not cut off")
    kept = sum(path.stat().st_size + _added_bytes(path) for path in _blobs(place))
    wire.reset()
    again = place.edgectl("sync")
    return kept, sum(task["fetched_bytes"] for task in again["tasks"])


def _added_bytes(path: Path) -> int:
    """A pack that lies there decrypted was longer when it came."""
    return OVERHEAD_BYTES if path.suffix != ".part" and b"samples/1" in path.read_bytes() else 0


def _blobs(place: World) -> list[Path]:
    return [path for path in place.state.glob("tasks/*/blobs/*") if path.is_file()]


if __name__ == "__main__":
    run(str(__doc__), measure)
