"""What a board keeps of the rounds of one task, so that it may be killed at any point.

rounds/<task>/invitation.json          the signed invitation that is being worked on; written after all that it names
rounds/<task>/order, base              what to start from; the next order may be made of this one
rounds/<task>/short/                   what came of changes to it
rounds/<task>/rows.safetensors         which rows of tables the samples touch, where a series asks; rows.wanted: it does
rounds/<task>/update.safetensors       made, but not acknowledged yet; sending it again changes nothing
rounds/<task>/memory/<upload id>       what the algorithm kept beside that update; it counts if the update does
rounds/<task>/pause.json               until when this board does not ask, because it could not do what it was asked for
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from edgectl.enrolment import Enrolment
from edgectl.home import Home
from edgectl.rounds.pauses import Pause
from edgelearn.federated.turn import Memory
from edgewire import tensors
from edgewire.decoding import convert, decode, encode
from edgewire.errors import CorruptFile, InvalidMessage, NotFound, TooLarge
from edgewire.files import digest_of_file, write_atomic
from edgewire.messages import WEIGHTS_LIMIT_BYTES, BlobRef
from edgewire.rounds import (
    ROWS_LIMIT_BYTES,
    UPDATE_LIMIT_BYTES,
    Invitation,
    Parts,
    RowsMeta,
    UpdateMeta,
    pack_rows,
    pack_update,
    unpack_order,
    unpack_rows,
    unpack_update,
)
from edgewire.signing import open_sealed
from edgewire.tensors import Arrays, of, under

MEMORY_LIMIT_BYTES = 1 << 30


class RoundFolder:
    """The files of one task. The caller holds the lock `rounds`, or, while it trains, `train`."""

    def __init__(self, home: Home, task_id: str) -> None:
        self.path, self.update = home.rounds(task_id), home.round_update(task_id)
        self.task_id = task_id

    def ensure(self) -> None:
        (self.path / "memory").mkdir(mode=0o700, parents=True, exist_ok=True)

    # The invitation

    def blob(self, name: str) -> Path:
        """Where the 'order' or the 'base' lies."""
        return self.path / name

    def clear_other(self, name: str, ref: BlobRef) -> None:
        """Make room for a blob: what lies there of another one is of no use."""
        if self._named(name) != ref.digest:
            for old in self._places(name):
                old.unlink()
            write_atomic(self.path / f"{name}.digest", ref.digest.encode(), mode=0o600)

    def holds(self) -> str | None:
        """Digest of the order that lies here; None where there is none."""
        return self._named("order") if self.blob("order").is_file() else None

    def _named(self, name: str) -> str | None:
        """Digest of the blob that lies there, or is on its way; None where the disk has damaged that, too."""
        path = self.path / f"{name}.digest"
        raw = path.read_bytes() if path.is_file() else b""
        return raw.decode() if re.fullmatch(rb"[0-9a-f]{64}", raw) else None

    def lacking_bytes(self, invitation: Invitation) -> int:
        """How much more disk its order and base take than what lies in their places, whole or in part, which they
        replace or go on with."""
        places = (("order", invitation.order), ("base", invitation.base))
        return sum(max(0, ref.size - sum(path.stat().st_size for path in self._places(name))) for name, ref in places)

    def _places(self, name: str) -> list[Path]:
        """What is there of a blob: itself, or what has come of it."""
        path = self.blob(name)
        return [one for one in (path, path.with_name(path.name + ".part")) if one.is_file()]

    def accept(self, envelope: bytes) -> None:
        """Work on this from now on, and on nothing else."""
        (self.path / "rows.wanted").unlink(missing_ok=True)
        write_atomic(self.path / "invitation.json", envelope, mode=0o600)

    def invitation(self, enrolment: Enrolment) -> Invitation:
        """What is being worked on, its signature verified. Raises NotFound, Forged, CorruptFile."""
        try:
            raw = (self.path / "invitation.json").read_bytes()
        except FileNotFoundError:
            raise NotFound("no round waits for this board", hint="edgectl round join") from None
        keys = enrolment.trust.signing_keys
        statement = open_sealed(raw, keys, type="round", task=self.task_id, now=None)
        return convert(Invitation, statement.body, what="invitation")

    def order(self, invitation: Invitation) -> Parts:
        """Raises CorruptFile, which removes it: the next join brings it again."""
        return unpack_order(self._read("order", invitation.order), limit_bytes=2 * WEIGHTS_LIMIT_BYTES)

    def base(self, invitation: Invitation) -> Arrays:
        raw = self._read("base", invitation.base)
        return tensors.unpack(raw, what="base weights", limit_bytes=WEIGHTS_LIMIT_BYTES)[0]

    def _read(self, name: str, ref: BlobRef) -> bytes:
        path = self.blob(name)
        if not path.is_file() or digest_of_file(path) != ref.digest:
            path.unlink(missing_ok=True)
            raise CorruptFile(f"{path} is missing or corrupt", hint="edgectl round join brings it again")
        return path.read_bytes()

    # A pause

    def pause(self, pause: Pause) -> None:
        """Ask for no round of this task until then."""
        write_atomic(self.path / "pause.json", encode(pause), mode=0o600)

    def paused(self, mark: str, now: float) -> Pause | None:
        """The pause, while it holds."""
        try:
            pause = decode(Pause, (self.path / "pause.json").read_bytes(), what="pause")
        except (FileNotFoundError, InvalidMessage):
            return None
        return pause if pause.holds(mark, now) else None

    # Rows of tables

    def want_rows(self) -> None:
        """Let the next training find out which rows the samples touch, and do nothing else."""
        write_atomic(self.path / "rows.wanted", b"", mode=0o600)

    def rows_are_wanted(self) -> bool:
        return (self.path / "rows.wanted").is_file()

    def keep_rows(self, rows: Arrays, samples: int) -> None:
        write_atomic(self.path / "rows.safetensors", pack_rows(rows, RowsMeta(self.task_id, samples)), mode=0o600)
        (self.path / "rows.wanted").unlink(missing_ok=True)

    def forget_rows(self) -> None:
        (self.path / "rows.safetensors").unlink(missing_ok=True)

    def rows(self) -> tuple[bytes, Arrays, RowsMeta] | None:
        """As they are told, and read; None where there are none, or the disk has damaged them."""
        path = self.path / "rows.safetensors"
        if not path.is_file():
            return None
        raw = path.read_bytes()
        try:
            return raw, *unpack_rows(raw, limit_bytes=ROWS_LIMIT_BYTES)
        except (InvalidMessage, TooLarge):
            return None

    # The update

    def keep_update(self, parts: Parts, meta: UpdateMeta, memory: Memory) -> int:
        """On disk when this returns; its bytes. The memory first: with the update it must be there."""
        self._remember(meta, memory)
        raw = pack_update(parts, meta)
        write_atomic(self.update, raw, mode=0o600)
        return len(raw)

    def waiting(self) -> tuple[bytes, UpdateMeta] | None:
        """The update that has not been acknowledged. One that is unreadable is removed: it will be made again."""
        try:
            raw = self.update.read_bytes()
            return raw, unpack_update(raw, limit_bytes=UPDATE_LIMIT_BYTES)[1]
        except FileNotFoundError:
            return None
        except InvalidMessage:
            self.update.unlink(missing_ok=True)
            return None

    def settle(self, meta: UpdateMeta, *, counts: bool) -> None:
        """The cloud has the update, or will never take it; then what the algorithm kept beside it goes, too."""
        if not counts:
            self._memory(meta.upload_id).unlink(missing_ok=True)
        (self.path / "invitation.json").unlink(missing_ok=True)
        self.update.unlink(missing_ok=True)

    # The memory

    def memory(self, invitation: Invitation) -> Memory:
        """Of the update that the cloud counts; of another series, or lost, there is none. All others are removed."""
        wanted = self._memory(invitation.memory) if invitation.memory else None
        for other in set((self.path / "memory").iterdir()) - {wanted}:
            other.unlink()
        if wanted is None or not wanted.is_file():
            return Memory()
        try:
            arrays, meta = tensors.unpack(wanted.read_bytes(), what=str(wanted), limit_bytes=MEMORY_LIMIT_BYTES)
        except InvalidMessage:  # the disk has damaged it: better without it than never again
            return Memory()
        if not isinstance(meta, Mapping) or meta.get("series") != invitation.series:
            return Memory()
        return Memory(of("own", arrays), of("codec", arrays))

    def _remember(self, meta: UpdateMeta, memory: Memory) -> None:
        arrays = under("own", memory.own) | under("codec", memory.codec)
        write_atomic(self._memory(meta.upload_id), tensors.pack(arrays, {"series": meta.series}), mode=0o600)

    def _memory(self, upload_id: str) -> Path:
        return self.path / "memory" / upload_id
