"""What a board asks of the cloud in rounds. Over HTTPS it goes the way of everything else, through `edgectl.cloud`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from edgectl.cloud import HttpCloud, taken
from edgewire.decoding import decode, encode
from edgewire.rounds import JoinReply, JoinRequest, RowsReply, Sign, SignReply, UpdateMeta, UpdateReply


class Rounds(Protocol):
    """Every method may raise what `edgewire.errors` lists for the wire, and Offline."""

    def join(self, task_id: str, request: JoinRequest) -> JoinReply:
        """Say that this board could take part; its invitation, if there is one."""
        ...

    def sign(self, task_id: str, series: str, number: int, told: Sign) -> SignReply:
        """Give a sign of life, or give up."""
        ...

    def update(self, task_id: str, meta: UpdateMeta, body: bytes) -> UpdateReply:
        """Send an update; twice changes nothing. Raises Gone if its round is closed."""
        ...

    def rows(self, task_id: str, series: str, body: bytes) -> RowsReply:
        """Tell which rows of tables this board's samples touch; twice changes nothing."""
        ...

    def blob(self, digest: str, size: int, target: Path, *, on_bytes: Callable[[int], None] | None = None) -> int:
        """See `edgectl.cloud.Cloud.blob`. What `on_bytes` raises ends it; what came stays."""
        ...

    def trust(self, after: int) -> list[bytes]:
        """See `edgectl.cloud.Cloud.trust`."""
        ...


class RoundsOverHttp:
    """Rounds of the cloud behind this connection."""

    def __init__(self, cloud: HttpCloud) -> None:
        self._cloud = cloud

    def join(self, task_id: str, request: JoinRequest) -> JoinReply:
        raw = self._cloud.send("POST", f"/v1/tasks/{task_id}/rounds/join", encode(request))
        return decode(JoinReply, raw, what="the answer to joining")

    def sign(self, task_id: str, series: str, number: int, told: Sign) -> SignReply:
        raw = self._cloud.send("POST", f"/v1/tasks/{task_id}/rounds/{series}/{number}/sign", encode(told))
        return decode(SignReply, raw, what="the answer to the sign of life")

    def update(self, task_id: str, meta: UpdateMeta, body: bytes) -> UpdateReply:
        path = f"/v1/tasks/{task_id}/rounds/{meta.series}/{meta.number}/updates/{meta.upload_id}"
        return taken(UpdateReply, self._cloud.send("PUT", path, body), what="the answer to the update")

    def rows(self, task_id: str, series: str, body: bytes) -> RowsReply:
        path = f"/v1/tasks/{task_id}/rounds/{series}/rows"
        return taken(RowsReply, self._cloud.send("PUT", path, body), what="the answer to rows")

    def blob(self, digest: str, size: int, target: Path, *, on_bytes: Callable[[int], None] | None = None) -> int:
        return self._cloud.blob(digest, size, target, on_bytes=on_bytes)

    def trust(self, after: int) -> list[bytes]:
        return self._cloud.trust(after)
