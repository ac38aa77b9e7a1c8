"""The board's personal models: two slots, lineage, commit and rollback. The base model is kept beside them.

    models/<task>/a/ b/            model.onnx  weights.safetensors  golden.safetensors  lineage.json (signed, written
    last) models/<task>/current -> a     absent: the base model serves

The slot that serves is never written to, and a slot without lineage.json is empty: so a crash at any moment leaves
either the old model or the new one serving, never a half of one.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from edgectl.home import Home
from edgewire.decoding import convert, decode, plain
from edgewire.errors import CorruptFile, InvalidMessage, NothingToDo
from edgewire.files import digest_of_file, point_symlink, sync_path, write_atomic
from edgewire.messages import Digest
from edgewire.tasks import Task

SLOTS = ("a", "b")
MODEL, WEIGHTS, GOLDEN, LINEAGE = "model.onnx", "weights.safetensors", "golden.safetensors", "lineage.json"
_LINEAGE_LIMIT_BYTES = 64 << 20
_NEVER_EXPIRES_S = 100 * 365 * 86400.0


@dataclass(frozen=True)
class Lineage:
    """Where a personal model came from. samples: digests of the local samples it was trained on; packs: digests of the
    retrieved files that were candidates; kept: pseudonyms trained on; gain: believed gain in accuracy over the base;
    release: the release that brought the base, '' where the manifest did."""

    version: Annotated[int, Meta(ge=1)]
    task: Task
    requested: str
    recipe: str
    reason: str
    base: Digest
    base_version: int
    packs: tuple[Digest, ...]
    kept: tuple[str, ...]
    samples: tuple[Digest, ...]
    seed: int
    gain: float | None
    created_at: float
    edgectl: str
    release: str = ""
    files: dict[str, Digest] = field(default_factory=dict)


@dataclass(frozen=True)
class Slot:
    """One installed model. state: 'current' serves, 'staged' is newer than what serves, 'previous' is older."""

    name: str
    folder: Path
    lineage: Lineage
    state: str

    @property
    def model(self) -> Path:
        return self.folder / MODEL


class Models:
    """The slots of one task."""

    def __init__(self, home: Home, task_id: str) -> None:
        self._home, self._task_id = home, task_id
        self.folder = home.models(task_id)

    def slots(self) -> list[Slot]:
        """Installed models, oldest version first."""
        serving = self._serving_name()
        found = [(name, lineage) for name in SLOTS if (lineage := self._read(name)) is not None]
        serving_version = next((lineage.version for name, lineage in found if name == serving), 0)
        slots = [
            Slot(name, self.folder / name, lineage, _state(name == serving, lineage.version > serving_version))
            for name, lineage in found
        ]
        return sorted(slots, key=lambda slot: slot.lineage.version)

    def current(self) -> Slot | None:
        """The model that serves, its files checked against its lineage; None where the base serves.

        Raises CorruptFile if a file is missing or not the one that was installed.
        """
        serving = self._serving_name()
        if serving is None:
            return None
        slot = next((slot for slot in self.slots() if slot.name == serving), None)
        if slot is None:
            raise CorruptFile(f"{self.folder / serving} holds no whole model", hint="edgectl model rollback")
        self.check(slot)
        return slot

    def check(self, slot: Slot) -> None:
        """Raise CorruptFile unless every file of the slot is the one its lineage names."""
        for name, wanted in slot.lineage.files.items():
            path = slot.folder / name
            if not path.is_file() or digest_of_file(path) != wanted:
                raise CorruptFile(f"{path} is not the file that was installed", hint="edgectl model rollback")

    def next_version(self, *, scored: int = 0) -> int:
        """Never one that was given before. scored: the newest version that running scores tell of; its slot may be gone
        (deleted, damaged, or half overwritten), and another model's score must not count for the new one."""
        return 1 + max([scored, *(slot.lineage.version for slot in self.slots())])

    def release_of(self, base: str) -> str:
        """The release that brought this base to this board, '' where the manifest did."""
        from edgectl.releases import overlay

        return overlay.release_of(self._home, self._task_id, base)

    def install(self, lineage: Lineage, files: dict[str, bytes]) -> Slot:
        """Write a model into the slot that does not serve. It serves only after `commit`."""
        from edgewire.signing import SigningKey, Statement, seal

        name = self._free_name()
        folder = self.folder / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / LINEAGE).unlink(missing_ok=True)  # empty from here on
        for leftover in (*folder.glob(".*.tmp"), *self.folder.glob(".*.tmp")):  # a killed install or commit left them
            leftover.unlink()
        sync_path(folder)
        for file_name, data in files.items():
            write_atomic(folder / file_name, data, mode=0o600)
        digests = {file_name: digest_of_file(folder / file_name) for file_name in files}
        whole = convert(Lineage, {**plain(lineage), "files": digests}, what="lineage")
        expires_at = lineage.created_at + _NEVER_EXPIRES_S
        statement = Statement(
            "lineage", lineage.task.id, 0, lineage.version, lineage.created_at, expires_at, plain(whole)
        )
        write_atomic(folder / LINEAGE, seal(SigningKey.load(self._home.key), statement), mode=0o600)
        return next(slot for slot in self.slots() if slot.name == name)

    def commit(self, slot: Slot) -> None:
        """Let a slot serve from now on."""
        self.check(slot)
        point_symlink(self.folder / "current", slot.name)

    def commit_staged(self, *, check: Callable[[Slot], None] = lambda slot: None) -> Slot:
        """Let the staged model serve; the newest, since after a rollback an older one may wait too.

        check: raises if the model should not serve. Raises NothingToDo if none is staged.
        """
        staged = self.staged()
        if staged is None:
            raise NothingToDo("no model is staged", hint="edgectl train --stage makes one")
        check(staged)
        self.commit(staged)
        return staged

    def staged(self) -> Slot | None:
        """The newest model that is newer than what serves: installed with --stage, or rolled back from."""
        return next((slot for slot in reversed(self.slots()) if slot.state == "staged"), None)

    def rollback(self) -> Slot | None:
        """Go back to the previous model, or to the base (None) where there is no older one or it is not whole.

        Raises NothingToDo if the base serves already.
        """
        if self._serving_name() is None:
            raise NothingToDo("the base model serves; there is nothing to roll back to")
        previous = next((slot for slot in self.slots() if slot.state == "previous"), None)
        if previous is not None and self._is_whole(previous):
            self.commit(previous)
            return previous
        (self.folder / "current").unlink()
        sync_path(self.folder)
        return None

    def signed_by_this_board(self, slot: Slot) -> bool:
        """Whether the lineage carries this board's own signature."""
        from edgewire.errors import EdgeError
        from edgewire.signing import SigningKey, open_sealed

        key = SigningKey.load(self._home.key)
        raw = (slot.folder / LINEAGE).read_bytes()
        try:
            open_sealed(raw, {key.id: key.public}, type="lineage", task=slot.lineage.task.id, now=None)
        except EdgeError:
            return False
        return True

    def _is_whole(self, slot: Slot) -> bool:
        try:
            self.check(slot)
        except CorruptFile:
            return False
        return True

    def _serving_name(self) -> str | None:
        link = self.folder / "current"
        target = link.readlink().name if link.is_symlink() else None
        return target if target in SLOTS else None

    def _free_name(self) -> str:
        """Never the serving slot; of two free ones the emptier, then the older."""
        serving = self._serving_name()
        versions = {slot.name: slot.lineage.version for slot in self.slots()}
        return min((name for name in SLOTS if name != serving), key=lambda name: versions.get(name, 0))

    def _read(self, name: str) -> Lineage | None:
        """A slot's lineage, None where it is empty or unreadable. The signature is checked by
        `signed_by_this_board`."""
        try:
            envelope = decode(
                dict[str, Any],
                (self.folder / name / LINEAGE).read_bytes(),
                what=LINEAGE,
                limit_bytes=_LINEAGE_LIMIT_BYTES,
            )
            payload = base64.b64decode(envelope["payload"])
            statement = decode(dict[str, Any], payload, what=LINEAGE, limit_bytes=_LINEAGE_LIMIT_BYTES)
            return convert(Lineage, statement["body"], what=LINEAGE)
        except (FileNotFoundError, NotADirectoryError, InvalidMessage, KeyError, ValueError, TypeError):
            return None


def _state(serves: bool, newer: bool) -> str:
    if serves:
        return "current"
    return "staged" if newer else "previous"
