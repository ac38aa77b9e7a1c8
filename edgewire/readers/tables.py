"""NPZ and CSV files -> raw columns, checked for their kinds and sizes before anything large is made of them."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import tokenize
import zipfile
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

from edgewire.errors import InvalidSamples

Columns = dict[str, np.ndarray]
NAMES = ("y", "user", "group", "time", "part")
_ZIPPED = b"PK\x03\x04"
_PIECE_LIMIT_BYTES = 1 << 30
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


def read_table(file: BinaryIO, name: str, limit_bytes: int) -> Columns:
    """x (n, ...) and what else there is of y, user, group, time and part, all (n,); NPZ is told apart from CSV by its
    first bytes. Raises InvalidSamples, which names the file."""
    zipped = file.read(4) == _ZIPPED
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


def is_npz(path: Path) -> bool:
    """Whether a path is a file that begins as NPZ files do."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == _ZIPPED


def stream_npz(path: Path, rows: int) -> Iterator[Columns]:
    """The columns of an NPZ file, `rows` rows at a time. Raises InvalidSamples, which names the file."""
    try:
        with zipfile.ZipFile(path) as archive, contextlib.ExitStack() as stack:
            yield from _stream_members(archive, stack, path.name, rows)
    except InvalidSamples as error:
        raise InvalidSamples(f"{path.name}: {error.message}", hint=error.hint) from None
    except _UNREADABLE as error:
        raise InvalidSamples(f"{path.name} cannot be read as NPZ: {error}") from None


def _stream_members(archive: zipfile.ZipFile, stack: contextlib.ExitStack, name: str, rows: int) -> Iterator[Columns]:
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    opened: dict[str, tuple[IO[bytes], tuple[int, ...], np.dtype[Any]]] = {}
    for column in ("x", *NAMES):
        if column in members:
            _check_claim(archive, members[column])
            member = stack.enter_context(archive.open(members[column]))
            opened[column] = (member, *_shape_and_dtype(member, column))
    if "x" not in opened:
        raise InvalidSamples("there is no column 'x'", hint="see 'The data file' in the README")
    n = _rows_of(opened, name)
    for start in range(0, n, rows):
        count = min(rows, n - start)
        columns = {
            column: _read_rows(member, count, shape[1:], dtype) for column, (member, shape, dtype) in opened.items()
        }
        _check_columns(columns, name)
        yield columns


def _rows_of(opened: dict[str, tuple[IO[bytes], tuple[int, ...], np.dtype[Any]]], name: str) -> int:
    n = opened["x"][1][0] if opened["x"][1] else 0
    for column, (_, shape, _dtype) in opened.items():
        if not shape or shape[0] != n or (column != "x" and len(shape) != 1):
            raise InvalidSamples(f"column '{column}' has shape {list(shape)}, x has {n} rows")
    if n == 0:
        raise InvalidSamples("it has no rows")
    return n


def _shape_and_dtype(member: IO[bytes], column: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    shape, fortran, dtype = _header(member)
    if dtype.hasobject:
        raise InvalidSamples(f"column '{column}' holds objects, expected numbers or text")
    if fortran and len(shape) > 1:
        raise InvalidSamples(f"column '{column}' is stored column by column", hint="save np.ascontiguousarray of it")
    return shape, dtype


def _read_rows(member: IO[bytes], count: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    size = count * math.prod(shape) * dtype.itemsize
    if size > _PIECE_LIMIT_BYTES:
        raise InvalidSamples(f"{count} of its rows take {size} bytes, the limit is {_PIECE_LIMIT_BYTES}")
    raw = member.read(size)
    if len(raw) != size:
        raise InvalidSamples("it ends before its last row")
    return np.frombuffer(raw, dtype).reshape(count, *shape)


def _check_columns(columns: Columns, name: str) -> None:
    n = len(columns["x"]) if columns["x"].ndim else 0
    for column, values in columns.items():
        if values.ndim < 1 or len(values) != n or (column != "x" and values.ndim != 1):
            raise InvalidSamples(f"{name}: column '{column}' has shape {list(values.shape)}, x has {n} rows")
        if column != "x" and values.dtype.kind not in _KINDS:
            raise InvalidSamples(f"{name}: column '{column}' is {values.dtype}, expected numbers or text")
    if n == 0:
        raise InvalidSamples(f"{name} has no rows")


def _read_npz(file: BinaryIO, limit_bytes: int) -> Columns:
    with zipfile.ZipFile(file) as archive:
        wanted = [info for info in archive.infolist() if info.filename.removesuffix(".npy") in ("x", *NAMES)]
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
        shape, _, dtype = _header(member)
    claimed = math.prod(shape) * dtype.itemsize
    if claimed > info.file_size:
        raise InvalidSamples(f"'{info.filename}' claims {claimed} bytes of values and holds {info.file_size}")


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """shape, whether it is in Fortran's order, dtype."""
    version = np.lib.format.read_magic(member)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(member)
    return shape, fortran, dtype


def _read_csv(file: BinaryIO) -> Columns:
    rows = csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""))
    header = [name.strip() for name in next(rows, [])]
    ours = [("y" if name == "label" else name, i) for i, name in enumerate(header) if name in (*NAMES, "label")]
    named = dict(ours)
    if len(named) < len(ours):  # the first of two would pass for a feature, and a label must never be one
        raise InvalidSamples("its header names a column twice ('label' is another word for 'y')")
    features = [i for i in range(len(header)) if i not in named.values()]
    if not features:
        raise InvalidSamples("its header names no feature column")
    values = array("d")  # a list of Python's numbers would take several times the memory
    text: dict[str, list[str]] = {name: [] for name in named}
    for number, row in enumerate(rows, start=2):
        if not row:
            continue
        if len(row) != len(header):
            raise InvalidSamples(f"line {number} has {len(row)} cells, the header has {len(header)}")
        try:
            values.extend([float(row[i]) if row[i].strip() else math.nan for i in features])
        except ValueError as error:
            raise InvalidSamples(f"line {number}: {error}") from None
        for name, i in named.items():
            text[name].append(row[i].strip())
    columns = {name: np.asarray(column, np.str_) for name, column in text.items()}
    return {"x": np.frombuffer(values, np.float64).reshape(-1, len(features)), **columns}
