"""What is measured, and the files that keep it between runs: a line of JSON each, so that a run that was cut off goes
on."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np


@dataclass(frozen=True)
class Row:
    """One board, number of shots, seed and recipe.

    training: 0, or 1 for the control, the same recipe on the same samples with another training seed; score: the task's
    metric on held-out rows, 0..1; common: the same on the rows that are held out at every rung of the ladder; labels,
    tests: local and held-out rows; units: see `Units`; candidates, kept: contributors looked at and trained on, and
    the samples of both; forwards: rows through the model, a trained row counts three; seconds: of one core; chosen:
    what `auto` shipped; code: digest of all that decides the outcome.
    """

    data: str
    board: str
    shots: int
    seed: int
    recipe: str
    training: int
    metric: str
    score: float
    common: float
    labels: int
    tests: int
    units: str
    candidates: int
    kept: int
    candidate_samples: int
    outside_samples: int
    forwards: int
    seconds: float
    code: str
    chosen: str = ""

    @property
    def key(self) -> tuple[object, ...]:
        return self.data, self.board, self.shots, self.seed, self.recipe, self.training, self.code


@dataclass(frozen=True)
class Spent:
    """Seconds of one core that a job took. what: 'base', 'rehearsal' or a board, its shots and the recipes."""

    data: str
    seed: int
    fold: int
    what: str
    seconds: float
    code: str

    @property
    def key(self) -> tuple[object, ...]:
        return self.data, self.seed, self.fold, self.what, self.code


@dataclass(frozen=True)
class Peak:
    """MiB by which a fresh process grew while it ran a recipe for one board."""

    data: str
    shots: int
    recipe: str
    mib: float
    code: str

    @property
    def key(self) -> tuple[object, ...]:
        return self.data, self.shots, self.recipe, self.code


@dataclass(frozen=True)
class Pair:
    """One board and recipe. https, direct: the task's metric on held-out rows; recipe: of `auto`, with what either
    chose."""

    data: str
    board: str
    shots: int
    recipe: str
    https: float
    direct: float

    @property
    def same(self) -> bool:
        return abs(self.https - self.direct) < 1e-5  # `edgectl eval` rounds


T = TypeVar("T", Row, Spent, Peak)


class Journal(Generic[T]):
    """Records in a file, appended as they come. What other code or data made stays in the file and is not read."""

    def __init__(self, path: Path, kind: type[T]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.found: dict[tuple[object, ...], T] = {}
        self.unreadable = 0
        if path.exists() and not path.read_bytes().endswith(b"\n"):  # cut off while it was written
            with path.open("a") as file:
                file.write("\n")
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                record = kind(**json.loads(line))
            except (ValueError, TypeError):  # cut off while it was written, or of an older form
                self.unreadable += 1
                continue
            self.found[record.key] = record

    def add(self, record: T) -> None:
        if record.key in self.found:
            return
        self.found[record.key] = record
        with self.path.open("a") as file:
            file.write(json.dumps(asdict(record)) + "\n")

    def of(self, codes: set[str]) -> list[T]:
        """The records that this code and data made."""
        return [record for record in self.found.values() if record.code in codes]


@dataclass(frozen=True)
class Units:
    """Held-out scores by unit, the recording that rows came from. id: uint32 (units,), the same for the same recording
    in every seed; total: float32 (units,), sum of its rows' scores; rows: int32 (units,), how many."""

    id: np.ndarray
    total: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(cls, unit: np.ndarray, scores: np.ndarray) -> Units:
        """unit: uint32 (n,); scores: (n,)."""
        found, codes = np.unique(unit, return_inverse=True)
        codes = codes.reshape(-1)
        total = np.bincount(codes, weights=scores).astype(np.float32)
        return cls(found.astype(np.uint32), total, np.bincount(codes).astype(np.int32))

    def text(self) -> str:
        raw = self.id.astype("<u4").tobytes() + self.total.astype("<f4").tobytes() + self.rows.astype("<i4").tobytes()
        return base64.b64encode(zlib.compress(raw)).decode()

    @classmethod
    def read(cls, text: str) -> Units:
        raw = zlib.decompress(base64.b64decode(text))
        n = len(raw) // 12
        return cls(
            np.frombuffer(raw, "<u4", n),
            np.frombuffer(raw, "<f4", n, 4 * n),
            np.frombuffer(raw, "<i4", n, 8 * n),
        )
