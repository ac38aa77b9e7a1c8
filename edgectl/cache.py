"""What sync brought for a task: base model, directory, packs. Files lie under their digest; small JSON files say
which count.

tasks/<task>/manifest.json     the signed manifest (written after all that it names)
tasks/<task>/retrieval.json    what the last retrieval brought, and what it revealed (written last)
tasks/<task>/blobs/<digest>    base weights, base ONNX, directory, packs (decrypted)
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from edgectl.home import Home
from edgectl.partial import Parts
from edgelearn.retrieval.directory import Directory
from edgewire import tensors
from edgewire.decoding import convert, decode, encode
from edgewire.errors import Conflict, CorruptFile, EdgeError, NotFound
from edgewire.files import digest_of_file, write_atomic
from edgewire.messages import (
    DIRECTORY_LIMIT_BYTES,
    SAMPLES_LIMIT_BYTES,
    WEIGHTS_LIMIT_BYTES,
    BlobRef,
    Digest,
    DirectoryMeta,
    Manifest,
)
from edgewire.samples import Samples, from_bytes
from edgewire.tasks import Mode

_ETAG = re.compile(r"[!-~]{1,130}")


@dataclass(frozen=True)
class Retrieval:
    """What the last retrieval brought. base, directory: what it was made with; samples: digest over the local samples
    it matched; files: digests of sample files to train on; epsilon: what the question cost; revealed: in words;
    withdrawals: how many there had been."""

    mode: Mode
    base: Digest
    directory: Digest
    samples: Digest
    files: tuple[Digest, ...]
    epsilon: float
    revealed: str
    withdrawals: int = 0


class Cache:
    """The files of one task."""

    def __init__(self, home: Home, task_id: str) -> None:
        self.folder = home.task(task_id)

    def ensure(self) -> None:
        (self.folder / "blobs").mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        return self.folder / "blobs" / digest

    def has(self, ref: BlobRef) -> bool:
        """Whether the file is there in its full size; its digest is checked when it is read."""
        path = self.path(ref.digest)
        return path.is_file() and path.stat().st_size == ref.size

    def holds(self, digest: str) -> bool:
        """Whether the file is there, undamaged."""
        path = self.path(digest)
        return path.is_file() and digest_of_file(path) == digest

    def parts(self) -> Parts:
        """Where what comes along with a manifest goes."""
        retrieval = self.retrieval()
        return Parts(self.folder / "blobs", frozenset(retrieval.files if retrieval else ()))

    def read(self, digest: str) -> bytes:
        """The bytes, checked against their digest. Raises NotFound or CorruptFile (which removes the file: sync
        brings it again)."""
        path = self.path(digest)
        self.size(digest)  # raises NotFound
        if digest_of_file(path) != digest:
            path.unlink()
            raise CorruptFile(f"{path} was corrupt and has been removed", hint="run: edgectl sync")
        return path.read_bytes()

    def size(self, digest: str) -> int:
        """How many bytes it has. Raises NotFound."""
        path = self.path(digest)
        if not path.is_file():
            raise NotFound(f"{path} is missing", hint="run: edgectl sync")
        return path.stat().st_size

    def write(self, digest: str, data: bytes) -> None:
        write_atomic(self.path(digest), data, mode=0o600)

    def directory(self, manifest: Manifest) -> tuple[Directory, DirectoryMeta]:
        """The directory, checked: shapes against the task, packs against its cohorts. Raises InvalidMessage or
        Conflict."""
        raw = self.read(manifest.directory.digest)
        arrays, raw_meta = tensors.unpack(raw, what="directory", limit_bytes=DIRECTORY_LIMIT_BYTES)
        classes = len(manifest.task.labels)
        means = tensors.require(arrays, "global_means", dtype="float32", shape=(classes, None), what="directory")
        counts = tensors.require(arrays, "cohort_counts", dtype="int64", shape=(None, classes), what="directory")
        shape = (len(counts), *means.shape)
        residuals = tensors.require(arrays, "cohort_residuals", dtype="float32", shape=shape, what="directory")
        meta = convert(DirectoryMeta, raw_meta, what="directory")
        outside = any(pack.cohort >= len(counts) for pack in meta.packs)
        if meta.task != manifest.task.id or meta.base != manifest.base.onnx.digest or outside:
            raise Conflict("the directory does not belong to this base model", hint="sync again later")
        return Directory(means, residuals, counts), meta

    def weights(self, manifest: Manifest) -> tensors.Arrays:
        """The base model's weights, by name."""
        raw = self.read(manifest.base.weights.digest)
        return tensors.unpack(raw, what="base weights", limit_bytes=WEIGHTS_LIMIT_BYTES)[0]

    def retrieved(self, manifest: Manifest, retrieval: Retrieval) -> list[Samples]:
        """The samples of each retrieved file; `user` is the contributor's pseudonym in that file."""
        return [
            from_bytes(self.read(name), manifest.task, what=f"pack {name[:12]}", limit_bytes=SAMPLES_LIMIT_BYTES)
            for name in retrieval.files
        ]

    def retrieval(self) -> Retrieval | None:
        """The last retrieval, None before the first (or if its record is unreadable: sync makes it again)."""
        try:
            return decode(Retrieval, (self.folder / "retrieval.json").read_bytes(), what="retrieval.json")
        except (FileNotFoundError, EdgeError):
            return None

    def etag(self, name: str) -> str:
        """An etag that a sync noted; '' where there is none, or a disk damaged it: the cloud then sends it all anew."""
        try:
            noted = (self.folder / name).read_text(encoding="ascii")
        except (FileNotFoundError, UnicodeDecodeError):
            return ""
        return noted if _ETAG.fullmatch(noted) else ""

    def record_retrieval(self, retrieval: Retrieval) -> None:
        write_atomic(self.folder / "retrieval.json", encode(retrieval), mode=0o600)

    def drop_unused(self, manifest: Manifest | None, keep: Collection[str] = ()) -> None:
        """Remove files that neither the manifest, if there is one, nor the retrieval names, nor `keep`."""
        retrieval, used = self.retrieval(), {*keep}
        if manifest is not None:
            used |= {manifest.base.weights.digest, manifest.base.onnx.digest, manifest.directory.digest}
        used |= set(retrieval.files) if retrieval else set()
        for path in (self.folder / "blobs").iterdir():
            if path.name.removesuffix(".part") not in used:
                path.unlink()
