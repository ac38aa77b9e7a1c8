"""Bring what a round starts from. Where the cloud offers a shorter way to the order, it is made of what changed since
the order that this board holds; only with the digest that was signed is it the order. Without torch."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from msgspec import UNSET

from edgectl.cache import Cache
from edgectl.home import Home
from edgectl.rounds.folder import RoundFolder
from edgectl.rounds.service import Rounds
from edgelearn.compression.broadcast import followed
from edgelearn.compression.catalogue import CODECS
from edgelearn.federated.arrays import Arrays
from edgewire.errors import CorruptFile, IntegrityError, InvalidMessage, NotFound, TooLarge
from edgewire.files import digest, write_atomic
from edgewire.messages import WEIGHTS_LIMIT_BYTES, BlobRef
from edgewire.rounds import Invitation, OrderMeta, Shortcut, pack_order, unpack_order, unpack_short

Brings = Callable[[BlobRef, Path], None]


class CutOff(Exception):
    """A fetch was ended before its end; the next one goes on."""


def fetch(home: Home, folder: RoundFolder, rounds: Rounds, invitation: Invitation, *, ends: Callable[[], bool]) -> None:
    """The order and the base into the folder. ends: whether to end; it is asked with each piece that comes.

    Raises CutOff, and what `Rounds.blob` raises; what came is gone on with."""

    def look(_received: int) -> None:
        if ends():
            raise CutOff

    def brings(ref: BlobRef, target: Path) -> None:
        rounds.blob(ref.digest, ref.size, target, on_bytes=look)

    _bring(home, folder, brings, "base", invitation.base)
    if not isinstance(invitation.short, Shortcut) or not _made(folder, brings, invitation, invitation.short):
        _bring(home, folder, brings, "order", invitation.order)


def _bring(home: Home, folder: RoundFolder, brings: Brings, name: str, ref: BlobRef) -> None:
    """A blob as it is; the base is usually here already."""
    folder.clear_other(name, ref)
    cached = Cache(home, folder.task_id)
    if name == "base" and cached.has(ref) and not folder.blob(name).exists():
        with contextlib.suppress(NotFound, CorruptFile):  # damaged, or replaced by a sync: then it is fetched
            write_atomic(folder.blob(name), cached.read(ref.digest), mode=0o600)
    brings(ref, folder.blob(name))


def _made(folder: RoundFolder, brings: Brings, invitation: Invitation, short: Shortcut) -> bool:
    """Whether the order is here now, made of what came by the shorter way. A cloud, or a disk, that damaged it, and a
    codec that this version does not know, are no reason to stay away from the round."""
    if folder.holds() == invitation.order.digest:
        return True
    if short.codec not in CODECS or (short.held and folder.holds() != short.held):
        return False
    place = folder.path / "short"
    place.mkdir(mode=0o700, exist_ok=True)
    wanted = {ref.digest for ref in short.blobs}
    for other in place.iterdir():
        if other.name.partition(".")[0] not in wanted:
            other.unlink()
    try:
        for ref in short.blobs:
            brings(ref, place / ref.digest)
        raw = _order_of(folder, invitation, short, [(place / ref.digest).read_bytes() for ref in short.blobs])
    except (InvalidMessage, IntegrityError, NotFound, TooLarge, ValueError):
        return False
    if digest(raw) != invitation.order.digest:
        return False
    folder.clear_other("order", invitation.order)
    write_atomic(folder.blob("order"), raw, mode=0o600)
    shutil.rmtree(place)
    return True


def _order_of(folder: RoundFolder, invitation: Invitation, short: Shortcut, blobs: list[bytes]) -> bytes:
    """The order's own bytes. Raises InvalidMessage, TooLarge or ValueError for what does not fit."""
    came = [unpack_short(raw, limit_bytes=WEIGHTS_LIMIT_BYTES) for raw in blobs]
    codec, (last, meta) = CODECS[short.codec], came[-1]
    if short.held:
        held = unpack_order(folder.blob("order").read_bytes(), limit_bytes=2 * WEIGHTS_LIMIT_BYTES).main
        weights = followed(held, [parts.main for parts, _ in came], codec)
    else:
        weights = codec.decode(last.main, _like(folder, invitation, meta))
    return pack_order(replace(last, main=weights), meta.task)


def _like(folder: RoundFolder, invitation: Invitation, meta: OrderMeta) -> Arrays:
    """Arrays of the names and shapes that were compressed: those of the base."""
    base = folder.base(invitation)
    names = meta.names if meta.names is not UNSET else []
    if unknown := [name for name in names if name not in base]:
        raise ValueError(f"the base has no '{unknown[0]}'")
    return {name: base[name] for name in names}
