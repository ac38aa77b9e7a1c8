"""Files people have -> samples of a task: NPZ and CSV with a header. Sizes are checked before anything is read.

NPZ: `x (n, ...)`, `y (n,)` (label names, or numbers whose text is a label name), and optionally `user`, `group`
(recording or session), `time` (seconds since 1970) and `part` (`pool`, `local` or `test`), all (n,).
CSV: the same columns by name; every other column is a feature, in the file's order; an empty cell is missing.
"""

from __future__ import annotations

import csv
import io
import math
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from edgewire import samples as sample_columns
from edgewire.errors import InvalidSamples, NotFound
from edgewire.samples import UNLABELLED, Samples
from edgewire.tasks import InputSchema, ModelSpec, Task

FILE_LIMIT_BYTES = 2 << 30
_COLUMNS = ("y", "user", "group", "time", "part")
_KINDS = "biufUS"  # numpy's letters for truth values, numbers and text

# What zipfile, zlib and numpy raise for files that are damaged, encrypted, or made to do harm.
_UNREADABLE = (
    ValueError,  # a UnicodeDecodeError too
    TypeError,
    LookupError,
    EOFError,
    OSError,
    RuntimeError,  # encrypted; NotImplementedError: an unknown compression
    OverflowError,
    MemoryError,
    SyntaxError,
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,
    csv.Error,
)


def read(
    path: Path | None,
    task: Task,
    *,
    stdin: BinaryIO | None = None,
    part: str | None = None,
    labelled: bool = True,
    limit_bytes: int = FILE_LIMIT_BYTES,
) -> Samples:
    """Samples of `task` from an NPZ or CSV file, or from stdin where path is None (told apart by their first bytes).

    part: keep only rows of that part (rows of a file without the column all count).
    Raises NotFound or InvalidSamples, which says what is wrong and where.
    """
    columns = _read_columns(path, stdin, limit_bytes)
    if part is not None and "part" in columns:
        keep = _decoded(columns["part"]) == part
        columns = {name: column[keep] for name, column in columns.items()}
        if not keep.any():
            raise InvalidSamples(f"no row has part '{part}'")
    samples = sample_columns.make(
        _values(columns["x"], task.input),
        _label_indices(columns.get("y"), len(columns["x"]), task, labelled=labelled),
        user=_text(columns.get("user")),
        group=_text(columns.get("group")),
        time=_times(columns.get("time")),
    )
    sample_columns.check(samples, task, labelled=labelled)
    return samples


def draft_task(path: Path, *, task_id: str, title: str, limit_bytes: int = FILE_LIMIT_BYTES) -> Task:
    """A task that fits a data file: shape, dtype, labels and a model for them. A person then reads and edits it."""
    columns = _read_columns(path, None, limit_bytes)
    x, y = columns["x"], columns.get("y")
    if y is None:
        raise InvalidSamples(f"{path} has no column 'y'", hint="a task needs labelled samples")
    dtype = str(x.dtype) if str(x.dtype) in ("uint8", "int8") else "float32"
    missing = x.dtype.kind == "f" and bool(np.isnan(x).any())
    shape = tuple(int(axis) for axis in x.shape[1:])
    if len(shape) == 1:
        model = ModelSpec("mlp", width=64)
    elif len(shape) == 3 or dtype == "uint8":
        model = ModelSpec("cnn2d", width=16)
    else:
        model = ModelSpec("cnn1d", width=32)
    labels = tuple(sorted({str(label) for label in y.tolist()}, key=_natural))
    task = Task(task_id, title, InputSchema(shape, dtype, missing), labels, model)  # type: ignore[arg-type]
    if problems := task.problems():
        raise InvalidSamples(f"{path}: {problems[0]}")
    return task


def _natural(text: str) -> tuple[int, float, str]:
    return (0, float(text), text) if text.lstrip("-").isdigit() else (1, 0.0, text)


def _read_columns(path: Path | None, stdin: BinaryIO | None, limit_bytes: int) -> dict[str, np.ndarray]:
    if path is None:
        if stdin is None:
            raise InvalidSamples("no file was given")
        data = stdin.read(limit_bytes + 1)
        if len(data) > limit_bytes:
            raise InvalidSamples(f"standard input has more than {limit_bytes} bytes", hint="send it in smaller pieces")
        return _read_open(io.BytesIO(data), "standard input", limit_bytes)
    try:
        size = path.stat().st_size
        if size > limit_bytes:
            raise InvalidSamples(
                f"{path} has {size / 2**30:.1f} GiB, the limit is {limit_bytes / 2**30:.1f} GiB",
                hint="split it into smaller files and add them one by one",
            )
        with path.open("rb") as file:
            return _read_open(file, str(path), limit_bytes)
    except (FileNotFoundError, IsADirectoryError):
        raise NotFound(f"there is no file {path}", hint="give an .npz or .csv file") from None


def _read_open(file: BinaryIO, name: str, limit_bytes: int) -> dict[str, np.ndarray]:
    zipped = file.read(4) == b"PK\x03\x04"
    file.seek(0)
    try:
        columns = _read_npz(file, limit_bytes) if zipped else _read_csv(file)
    except InvalidSamples as error:
        raise InvalidSamples(f"{name}: {error.message}", hint=error.hint) from None
    except _UNREADABLE as error:
        raise InvalidSamples(f"{name} cannot be read as NPZ or CSV: {error}") from None
    if "x" not in columns:
        raise InvalidSamples(f"{name} has no column 'x'", hint="see 'The data file' in the README")
    _check_columns(columns, name)
    return columns


def _check_columns(columns: dict[str, np.ndarray], name: str) -> None:
    n = len(columns["x"]) if columns["x"].ndim else 0
    for column, values in columns.items():
        if values.ndim < 1 or len(values) != n or (column != "x" and values.ndim != 1):
            raise InvalidSamples(f"{name}: column '{column}' has shape {list(values.shape)}, x has {n} rows")
        if column != "x" and values.dtype.kind not in _KINDS:
            raise InvalidSamples(f"{name}: column '{column}' is {values.dtype}, expected numbers or text")
    if n == 0:
        raise InvalidSamples(f"{name} has no rows")


def _read_npz(file: BinaryIO, limit_bytes: int) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        wanted = [info for info in archive.infolist() if info.filename.removesuffix(".npy") in ("x", *_COLUMNS)]
        total = sum(info.file_size for info in wanted)
        if total > limit_bytes:  # what it claims to unpack to; zipfile stops reading at the claimed size
            raise InvalidSamples(f"it unpacks to {total} bytes, the limit is {limit_bytes}", hint="split it")
        columns = {}
        for info in wanted:
            _check_claim(archive, info)
            with archive.open(info) as member:
                columns[info.filename.removesuffix(".npy")] = np.lib.format.read_array(member, allow_pickle=False)
        return columns


def _check_claim(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    """Refuse an array whose header claims more than its file holds: numpy makes room for all of it before it reads."""
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(member)
    claimed = math.prod(shape) * dtype.itemsize
    if claimed > info.file_size:
        raise InvalidSamples(f"'{info.filename}' claims {claimed} bytes of values and holds {info.file_size}")


def _read_csv(file: BinaryIO) -> dict[str, np.ndarray]:
    rows = csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""))
    header = [name.strip() for name in next(rows, [])]
    ours = [("y" if name == "label" else name, i) for i, name in enumerate(header) if name in (*_COLUMNS, "label")]
    named = dict(ours)
    if len(named) < len(ours):  # the first of two would pass for a feature, and a label must never be one
        raise InvalidSamples("its header names a column twice ('label' is another word for 'y')")
    features = [i for i in range(len(header)) if i not in named.values()]
    if not features:
        raise InvalidSamples("its header names no feature column")
    values: list[list[float]] = []
    text: dict[str, list[str]] = {name: [] for name in named}
    for number, row in enumerate(rows, start=2):
        if not row:
            continue
        if len(row) != len(header):
            raise InvalidSamples(f"line {number} has {len(row)} cells, the header has {len(header)}")
        try:
            values.append([float(row[i]) if row[i].strip() else math.nan for i in features])
        except ValueError as error:
            raise InvalidSamples(f"line {number}: {error}") from None
        for name, i in named.items():
            text[name].append(row[i].strip())
    columns = {name: np.asarray(column, np.str_) for name, column in text.items()}
    return {"x": np.asarray(values, np.float64).reshape(len(values), len(features)), **columns}


def _values(x: np.ndarray, schema: InputSchema) -> np.ndarray:
    """x in the task's dtype, if every value survives the change."""
    if x.shape[1:] != schema.shape and math.prod(x.shape[1:]) == schema.values and x.ndim == 2:
        x = x.reshape(len(x), *schema.shape)  # a CSV row holds an image or a window flat
    if str(x.dtype) == schema.dtype:
        return x
    if x.dtype.kind not in "biuf":
        raise InvalidSamples(f"x is {x.dtype}, expected numbers")
    if schema.dtype == "float32":
        # errstate: what does not fit float32 becomes infinite and is refused with its row by the check that follows
        with np.errstate(over="ignore", invalid="ignore"):
            return x.astype(np.float32)
    with np.errstate(invalid="ignore"):
        cast = x.astype(schema.dtype)
    if not np.array_equal(cast, x):
        raise InvalidSamples(f"x is {x.dtype} with values that {schema.dtype} cannot hold")
    return cast


def _label_indices(y: np.ndarray | None, n: int, task: Task, *, labelled: bool) -> np.ndarray:
    if y is None:
        if labelled:
            raise InvalidSamples("there is no column 'y'", hint="samples to learn from need labels")
        return np.full(n, UNLABELLED, np.int64)
    index = {name: i for i, name in enumerate(task.labels)}
    names = [_label_text(value) for value in y.tolist()]
    unknown = sorted({name for name in names if name not in index and not (name == "" and not labelled)})
    if unknown:
        shown = ", ".join(repr(name) for name in unknown[:5])
        raise InvalidSamples(f"unknown label {shown}", hint=f"task '{task.id}' has {', '.join(task.labels[:20])}")
    return np.asarray([index.get(name, UNLABELLED) for name in names], np.int64)


def _label_text(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _text(column: np.ndarray | None) -> np.ndarray | None:
    if column is None:
        return None
    text = _decoded(column)
    if text.size and np.char.str_len(text).max() > 200:
        raise InvalidSamples("a name in 'user' or 'group' is longer than 200 characters")
    return text


def _decoded(column: np.ndarray) -> np.ndarray:
    try:
        return column.astype(np.str_)
    except UnicodeDecodeError:
        raise InvalidSamples("a name is in bytes that are not ASCII", hint="store names as text") from None


def _times(column: np.ndarray | None) -> np.ndarray | None:
    if column is None:
        return None
    try:
        if column.dtype.kind == "U":
            column = np.where(column == "", "nan", column)
        times = column.astype(np.float64)
    except ValueError:
        raise InvalidSamples("'time' holds something that is not seconds since 1970") from None
    if np.isinf(times).any():
        raise InvalidSamples("'time' holds something that is not seconds since 1970")
    return times
