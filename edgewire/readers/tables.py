"""NPZ and CSV files -> raw columns, checked for their kinds and sizes before anything large is made of them."""

from __future__ import annotations

import csv
import io
import math
import tokenize
import zipfile
import zlib
from typing import BinaryIO

import numpy as np

from edgewire.errors import InvalidSamples

Columns = dict[str, np.ndarray]
NAMES = ("y", "user", "group", "time", "part")
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
        version = np.lib.format.read_magic(member)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(member)
    claimed = math.prod(shape) * dtype.itemsize
    if claimed > info.file_size:
        raise InvalidSamples(f"'{info.filename}' claims {claimed} bytes of values and holds {info.file_size}")


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
