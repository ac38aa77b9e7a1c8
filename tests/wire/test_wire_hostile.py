"""Input made to do harm: refused with a code, in bounded time and memory."""

from __future__ import annotations

import base64
import io
import json
import random
import struct
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgewire import readers, tensors
from edgewire.decoding import decode
from edgewire.errors import Forged, InvalidMessage, InvalidSamples, TooLarge
from edgewire.samples import from_bytes, make, to_bytes
from edgewire.signing import SigningKey, unverified
from edgewire.tasks import InputSchema, ModelSpec, Task
from edgewire.trust import Trust, public_text, seal_trust, walk

TASK = Task("toy", "Toy", InputSchema((2,)), ("left", "right"), ModelSpec("mlp", width=8, embedding=8))
ROWS = 12


def columns() -> dict[str, np.ndarray]:
    return {
        "x": np.random.default_rng(0).normal(size=(ROWS, 2)).astype(np.float32),
        "y": np.asarray(["left", "right"] * (ROWS // 2)),
        "user": np.asarray(["ann"] * ROWS),
    }


def npz(path: Path, **changed: np.ndarray) -> Path:
    np.savez_compressed(path, **{**columns(), **changed})
    return path


def claiming(path: Path, header: str) -> Path:
    """An NPZ whose only array has this header and no values."""
    padded = header.encode().ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded)
    return path


@pytest.mark.parametrize(
    "change",
    [
        {"x": np.float32(3)},
        {"user": np.asarray([b"\xff"] * ROWS)},
        {"part": np.asarray([b"\xff"] * ROWS)},
        {"time": np.full(ROWS, np.inf)},
        {"time": np.full(ROWS, 1j)},
        {"time": np.asarray(["2026-01-01"] * ROWS, "datetime64[ns]")},
        {"user": np.zeros(ROWS, [("a", "i4")])},
    ],
    ids=["scalar", "bytes", "part", "infinite", "complex", "date", "record"],
)
def test_columns_of_the_wrong_kind_are_refused(tmp_path, change):
    with pytest.raises(InvalidSamples):
        readers.read(npz(tmp_path / "x.npz", **change), TASK, part="pool" if "part" in change else None)


@pytest.mark.parametrize("shape", [f"({10**15}, 2)", f"({10**30}, 2)", f"({10**9}, 2)", "(True, 2)", "(-5, 2)"])
def test_an_array_that_claims_more_than_its_file_holds_is_refused_before_room_is_made(tmp_path, shape):
    path = claiming(tmp_path / "x.npz", f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}")
    tracemalloc.start()
    with pytest.raises(InvalidSamples):
        readers.read(path, TASK)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


def test_a_header_that_is_no_python_is_refused(tmp_path):
    with pytest.raises(InvalidSamples):
        readers.read(claiming(tmp_path / "x.npz", "(" * 100), TASK)


def test_a_damaged_file_is_read_or_refused_but_never_a_surprise(tmp_path):
    path = npz(tmp_path / "x.npz")
    whole, rng, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(4, len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zipfile warns of some before it fails
            try:
                readers.read(path, TASK)
            except InvalidSamples:
                refused += 1
    assert refused > 100


def test_a_label_under_two_names_never_becomes_a_feature():
    text = io.BytesIO(b"label,y,a\n1,left,2\n")
    with pytest.raises(InvalidSamples, match="twice"):
        readers.read(None, TASK, stdin=text)


def test_json_that_is_nested_too_deeply_is_refused():
    body = b'{"a":' * 6000 + b"1" + b"}" * 6000
    statement = b'{"type":"x","task":"","epoch":0,"version":0,"issued_at":1,"expires_at":2,"body":' + body + b"}"
    envelope = {"payload": base64.b64encode(statement).decode(), "key_id": "x", "signature": "x"}
    with pytest.raises(InvalidMessage, match="deeply"):
        unverified(json.dumps(envelope).encode())
    with pytest.raises(InvalidMessage, match="deeply"):
        decode(dict, body, what="it")


def test_a_long_list_of_names_is_refused_before_it_becomes_an_array():
    arrays = {"x": np.zeros((1, 2), np.float32), "y": np.zeros(1, np.int16)}
    codes = {"user": np.zeros(1, np.int32), "group": np.zeros(1, np.int32)}
    names = ["n" * 200, *["a"] * 300_000]
    meta = {"format": "samples/1", "task": "toy", "users": names, "groups": [""]}
    raw = tensors.pack({**arrays, **codes}, meta)
    tracemalloc.start()
    with pytest.raises(InvalidMessage, match="more names"):
        from_bytes(raw, TASK, what="it", limit_bytes=64 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20


def test_more_rows_than_wanted_are_refused():
    raw = to_bytes(make(np.zeros((3, 2), np.float32), np.zeros(3, np.int64)), "toy")
    assert len(from_bytes(raw, TASK, what="it", limit_bytes=1 << 20, limit_rows=3)) == 3
    with pytest.raises(TooLarge):
        from_bytes(raw, TASK, what="it", limit_bytes=1 << 20, limit_rows=2)


def test_what_is_known_of_the_chain_is_passed_over_whoever_signed_it():
    first, second = SigningKey.generate(), SigningKey.generate()
    old, new = public_text(first.public), public_text(second.public)
    steps = [
        Trust(1, (old,), (old,), ("ca",)),
        Trust(2, (new, old), (old,), ("ca",)),
        Trust(3, (new,), (old,), ("ca",)),
    ]
    chain = [seal_trust(key, step, now=0.0) for key, step in zip((first, first, second), steps, strict=True)]
    assert walk((old,), chain, now=0.0) == steps[2]
    assert walk((old,), chain, now=0.0, known=steps[2]) == steps[2]
    with pytest.raises(Forged):
        walk((old,), [seal_trust(first, Trust(4, (old,), (old,), ("ca",)), now=0.0)], now=0.0, known=steps[2])
