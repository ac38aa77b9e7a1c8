"""Packs come encrypted, each under a key of its own, which the board asks for and does not keep: what lies in its cache
is what training reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from msgspec import UNSET

from edgectl.cache import Cache
from edgectl.cloud import Cloud
from edgewire.encryption import OVERHEAD_BYTES, decrypt
from edgewire.errors import Gone
from edgewire.messages import MAX_PACK_KEYS, PackRef
from edgewire.tasks import TaskId

OnBlob = Callable[[str, int], Callable[[int], None]]


@dataclass(frozen=True)
class Fetched:
    """files: digests of the packs that are at hand now; received_bytes: this time; withdrawn: how many are not given
    out any more."""

    files: tuple[str, ...]
    received_bytes: int
    withdrawn: int


def fetch(cloud: Cloud, task_id: TaskId, cache: Cache, packs: Sequence[PackRef], on_blob: OnBlob) -> Fetched:
    """Bring what is not at hand of these packs. One that was withdrawn is left out; the others go on.

    Raises DigestMismatch if what came is not the pack, and what `Cloud.blob` raises.
    """
    lacking = [pack for pack in packs if not cache.holds(pack.digest)]
    keys = _keys(cloud, task_id, [str(pack.ciphertext) for pack in lacking if pack.ciphertext is not UNSET])
    received, withdrawn = 0, set()
    for pack in lacking:
        told = on_blob(f"pack of {pack.samples} samples", pack.size)
        try:
            received += _fetch(cloud, cache, pack, keys, told)
        except Gone:
            withdrawn.add(pack.digest)
    return Fetched(tuple(p.digest for p in packs if p.digest not in withdrawn), received, len(withdrawn))


def _keys(cloud: Cloud, task_id: TaskId, names: Sequence[str]) -> dict[str, bytes | None]:
    """The key of each ciphertext, None for one that is not given out."""
    found: dict[str, bytes | None] = {}
    for start in range(0, len(names), MAX_PACK_KEYS):
        some = tuple(names[start : start + MAX_PACK_KEYS])
        found |= zip(some, cloud.pack_keys(task_id, some), strict=True)
    return found


def _fetch(
    cloud: Cloud, cache: Cache, pack: PackRef, keys: dict[str, bytes | None], on_bytes: Callable[[int], None]
) -> int:
    """Bring one pack; the bytes received. Raises Gone."""
    if pack.ciphertext is UNSET:
        return cloud.blob(pack.digest, pack.size, cache.path(pack.digest), on_bytes=on_bytes)
    key, arrived = keys[str(pack.ciphertext)], cache.path(str(pack.ciphertext))
    if key is None:
        raise Gone("the key of a pack is not given out any more")
    received = cloud.blob(str(pack.ciphertext), pack.size + OVERHEAD_BYTES, arrived, on_bytes=on_bytes)
    try:
        cache.write(pack.digest, decrypt(arrived.read_bytes(), key, name=pack.digest))
    finally:
        arrived.unlink(missing_ok=True)
    return received
