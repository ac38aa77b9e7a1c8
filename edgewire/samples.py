"""Samples in columns, their check against a task, and their bytes: of packs, contributions and search answers alike."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgewire import tensors
from edgewire.errors import InvalidMessage, InvalidSamples, TooLarge
from edgewire.messages import MAX_SEARCH_RESULTS, SAMPLES_LIMIT_BYTES
from edgewire.tasks import InputSchema, Task

UNLABELLED = -1
DIGEST_BYTES = 32
_BYTES_BESIDE_VALUES = 64  # per sample: label, codes, names


@dataclass(frozen=True)
class Samples:
    """n samples. x: (n, *task.input.shape); y: int64 (n,), index of the label or -1; user, group: str (n,), '' if
    unknown; time: float64 (n,), seconds since 1970 or NaN. In a pack `user` is the contributor's pseudonym."""

    x: np.ndarray
    y: np.ndarray
    user: np.ndarray
    group: np.ndarray
    time: np.ndarray

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: np.ndarray | Sequence[int] | slice) -> Samples:
        """The given rows (indices, a boolean mask, or a slice, which copies nothing), in that order."""
        rows = rows if isinstance(rows, slice) else np.asarray(rows)
        return Samples(self.x[rows], self.y[rows], self.user[rows], self.group[rows], self.time[rows])

    def without_metadata(self, user: np.ndarray) -> Samples:
        """What may leave a contributor: values and labels under a pseudonym; recordings and times are dropped."""
        return replace(self, user=user, group=_blank(len(self)), time=np.full(len(self), np.nan))


def make(
    x: np.ndarray,
    y: np.ndarray | None = None,
    *,
    user: np.ndarray | None = None,
    group: np.ndarray | None = None,
    time: np.ndarray | None = None,
) -> Samples:
    """Samples with the columns that are not given filled by "unknown"."""
    n = len(x)
    return Samples(
        x=x,
        y=np.full(n, UNLABELLED, np.int64) if y is None else np.asarray(y, np.int64),
        user=_blank(n) if user is None else np.asarray(user, np.str_),
        group=_blank(n) if group is None else np.asarray(group, np.str_),
        time=np.full(n, np.nan) if time is None else np.asarray(time, np.float64),
    )


def concatenate(parts: Sequence[Samples], schema: InputSchema) -> Samples:
    """All parts in order; none at all gives zero samples of the schema's shape."""
    if not parts:
        return make(np.zeros((0, *schema.shape), schema.dtype))
    columns = ("x", "y", "user", "group", "time")
    return Samples(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in columns})


def check(samples: Samples, task: Task, *, labelled: bool) -> None:
    """Raise InvalidSamples, naming the first row that is wrong, unless every sample fits the task."""
    schema = task.input
    if samples.x.shape[1:] != schema.shape:
        raise InvalidSamples(
            f"samples have shape {list(samples.x.shape[1:])}, task '{task.id}' takes {list(schema.shape)}"
        )
    if str(samples.x.dtype) != schema.dtype:
        raise InvalidSamples(f"samples are {samples.x.dtype}, task '{task.id}' takes {schema.dtype}")
    if len(samples) == 0:
        raise InvalidSamples("there are no samples in it", hint="a file needs at least one row")
    if schema.dtype == "float32":
        _check_finite(samples.x, missing_allowed=schema.missing)
    if isinstance(schema.items, int):
        _check_items(samples.x, schema.items)
    known = (samples.y >= 0) & (samples.y < len(task.labels))
    wrong = ~known if labelled else ~known & (samples.y != UNLABELLED)
    if wrong.any():
        raise InvalidSamples(f"row {int(np.argmax(wrong))} has no label of task '{task.id}'")


def _check_finite(x: np.ndarray, *, missing_allowed: bool) -> None:
    bad = np.isinf(x) if missing_allowed else ~np.isfinite(x)
    if bad.any():
        row = int(np.argmax(bad.reshape(len(x), -1).any(axis=1)))
        hint = "" if missing_allowed else "fill missing values, or publish the task with input.missing = true"
        raise InvalidSamples(f"row {row} has values that are not finite numbers", hint=hint)


def _check_items(x: np.ndarray, items: int) -> None:
    """Candidates are 1..items, histories may have 0 for no item: an id from elsewhere never points outside a table."""
    bad = (x < 0) | (x > items)
    bad[:, 0] |= x[:, 0] == 0
    if bad.any():
        row, column = (int(place) for place in np.argwhere(bad)[0])
        what = "candidate" if column == 0 else "history"
        raise InvalidSamples(
            f"row {row} has the {what} item {int(x[row, column])}, the task knows 1 to {items}",
            hint="a sample is the candidate, then the history, most recent first; 0 fills up a short history",
        )


def sample_digests(samples: Samples) -> list[str]:
    """sha256 of each sample's dtype, shape, values and label: equal samples are equal digests, whoever holds them."""
    return [raw.hex() for raw in raw_digests(samples)]


def raw_digests(samples: Samples) -> list[bytes]:
    """The same as 32 bytes each. Nothing is copied: all samples of a board may take most of its memory."""
    n = len(samples)
    begun = hashlib.sha256(f"{samples.x.dtype}{list(samples.x.shape[1:])}".encode())
    values = np.ascontiguousarray(samples.x).reshape(n, -1).view(np.uint8) if n else np.zeros((0, 0), np.uint8)
    labels = np.ascontiguousarray(samples.y.astype("<i8")).view(np.uint8).reshape(n, 8)
    return [_digest(begun.copy(), *row) for row in zip(values, labels, strict=True)]


def _digest(running: hashlib._Hash, *parts: np.ndarray) -> bytes:
    for part in parts:
        running.update(part.data)
    return running.digest()


def most_at_once(task: Task) -> int:
    """How many samples fit an answer with samples that a search found."""
    values_bytes = task.input.values * np.dtype(task.input.dtype).itemsize
    return max(1, min(MAX_SEARCH_RESULTS, SAMPLES_LIMIT_BYTES // (values_bytes + _BYTES_BESIDE_VALUES)))


def to_bytes(samples: Samples, task_id: str) -> bytes:
    """Samples as safetensors; strings as codes into lists in the metadata."""
    users, user_codes = _codes(samples.user)
    groups, group_codes = _codes(samples.group)
    arrays = {"x": samples.x, "y": samples.y.astype(np.int16), "user": user_codes, "group": group_codes}
    known = ~np.isnan(samples.time)
    if known.any():
        arrays |= {"time": np.where(known, samples.time, 0.0), "time_known": known.astype(np.uint8)}
    return tensors.pack(arrays, {"format": "samples/1", "task": task_id, "users": users, "groups": groups})


def from_bytes(
    data: bytes, task: Task, *, what: str, limit_bytes: int, limit_rows: int | None = None, labelled: bool = True
) -> Samples:
    """Read and check samples from elsewhere. Raises TooLarge, InvalidMessage or InvalidSamples."""
    arrays, meta = tensors.unpack(data, what=what, limit_bytes=limit_bytes)
    if not isinstance(meta, dict) or meta.get("format") != "samples/1" or meta.get("task") != task.id:
        raise InvalidMessage(f"{what} does not hold samples of task '{task.id}'")
    x = arrays.get("x")
    if x is None or x.ndim < 1:
        raise InvalidMessage(f"{what} lacks 'x'")
    n = len(x)
    if limit_rows is not None and n > limit_rows:
        raise TooLarge(f"{what} has {n} samples, the limit is {limit_rows}")
    columns = {
        "y": tensors.require(arrays, "y", dtype="int16", shape=(n,), what=what),
        "user": _names(arrays, meta, "user", n, what),
        "group": _names(arrays, meta, "group", n, what),
    }
    if "time" in arrays:
        known = tensors.require(arrays, "time_known", dtype="uint8", shape=(n,), what=what)
        time = tensors.require(arrays, "time", dtype="float64", shape=(n,), what=what)
        columns["time"] = np.where(known == 1, time, np.nan)
    samples = make(x, **columns)
    if n:
        check(samples, task, labelled=labelled)
    return samples


def _codes(column: np.ndarray) -> tuple[list[str], np.ndarray]:
    names, codes = np.unique(column, return_inverse=True)
    return [str(name) for name in names], codes.astype(np.int32).reshape(-1)


def _names(arrays: tensors.Arrays, meta: dict[str, object], column: str, n: int, what: str) -> np.ndarray:
    codes = tensors.require(arrays, column, dtype="int32", shape=(n,), what=what)
    names = meta.get(f"{column}s")
    if not isinstance(names, list) or not all(isinstance(name, str) and len(name) <= 200 for name in names):
        raise InvalidMessage(f"{what}: '{column}s' is not a list of names")
    # as an array each name takes as much room as the longest: a few megabytes would become gigabytes
    if len(names) > n:
        raise InvalidMessage(f"{what}: '{column}s' lists more names than there are samples")
    if n and (codes.min() < 0 or codes.max() >= len(names)):
        raise InvalidMessage(f"{what}: '{column}' points outside its list of names")
    return np.asarray(names, np.str_)[codes] if n else _blank(0)


def _blank(n: int) -> np.ndarray:
    return np.full(n, "", np.str_)


def by_user(samples: Samples) -> Iterable[tuple[str, Samples]]:
    """Each user's samples, users in sorted order."""
    for user in np.unique(samples.user):
        yield str(user), samples.take(samples.user == user)
