"""Bytes that board and cloud must read and write alike: golden digests, attacks, limits."""

from __future__ import annotations

import json
import struct
import tracemalloc
from dataclasses import dataclass, replace

import numpy as np
import pytest

from edgewire import samples as columns
from edgewire import tensors
from edgewire.decoding import convert, decode, encode, plain
from edgewire.errors import BY_CODE, EdgeError, InvalidMessage, InvalidSamples, TooLarge, from_code
from edgewire.files import digest
from edgewire.messages import (
    Base,
    BlobRef,
    FoundMeta,
    Manifest,
    Report,
    SearchMeta,
    Telemetry,
    TelemetryPoint,
    WantedMeta,
    Withdrawals,
    WithdrawReply,
)
from edgewire.tasks import InputSchema, ModelSpec, Privacy, Task, Windows

TASK = Task("points", "Points", InputSchema((2,)), ("a", "b"), ModelSpec("mlp"))


def some_samples() -> columns.Samples:
    x = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
    return columns.make(
        x,
        np.array([0, 1, 0]),
        user=np.array(["u", "v", "u"]),
        group=np.array(["r1", "", "r1"]),
        time=np.array([1.0, np.nan, 3]),
    )


def test_samples_come_back_as_they_were() -> None:
    data = columns.to_bytes(some_samples(), "points")
    back = columns.from_bytes(data, TASK, what="pack", limit_bytes=1 << 20)
    for name in ("x", "y", "user", "group", "time"):
        assert np.array_equal(getattr(back, name), getattr(some_samples(), name), equal_nan=name == "time")


def test_the_bytes_of_samples_are_golden() -> None:
    # wire version 1: a change here is a change of the wire
    assert digest(columns.to_bytes(some_samples(), "points")) == GOLDEN_SAMPLES


def test_the_json_of_withdrawals_is_golden() -> None:
    told = Withdrawals(3, ("a" * 64,))
    assert encode(told) == b'{"number":3,"packs":["' + b"a" * 64 + b'"]}'
    assert encode(WithdrawReply(2, 40)) == b'{"number":2,"samples":40}'


def test_a_manifest_without_withdrawals_has_the_bytes_that_it_always_had() -> None:
    blob = BlobRef("0" * 64, 1)
    quiet = Manifest(TASK, Base(1, blob, blob), blob, 1)
    assert b"withdrawals" not in encode(quiet)
    assert decode(Manifest, encode(quiet), what="manifest") == quiet
    told = replace(quiet, withdrawals=Withdrawals(1, ()))
    assert decode(Manifest, encode(told), what="manifest") == told


def test_the_bytes_of_a_search_and_of_what_it_wants_are_golden() -> None:
    digests, shape = np.arange(64, dtype=np.uint8).reshape(2, 32), (1, 2, 1)
    arrays = {"digests": digests, "rows": np.asarray([1, -1], np.int32).reshape(shape)}
    arrays["scores"] = np.asarray([0.5, 0.0], np.float32).reshape(shape)
    assert digest(tensors.pack(arrays, plain(FoundMeta("found/1", "points")))) == GOLDEN_FOUND
    wanted = plain(WantedMeta("wanted/1", "points", "0" * 64))
    assert digest(tensors.pack({"digests": digests}, wanted)) == GOLDEN_WANTED


def test_the_json_of_telemetry_is_golden() -> None:
    told = Telemetry("a" * 32, (TelemetryPoint(1.5, temperature_c=51.5, throttled=False, power_quality="modelled"),))
    golden = (
        b'{"points":[{"available_mib":null,"cpu_load":null,"cpu_mhz":null,"disk_wear":null,"gpu_load":null,'
        b'"power_quality":"modelled","power_w":null,"temperature_c":51.5,"throttled":false,"total_mib":null,'
        b'"under_voltage":null,"wall_s":1.5}],"upload_id":"' + b"a" * 32 + b'"}'
    )
    assert encode(told) == golden
    assert decode(Telemetry, golden, what="telemetry") == told


def test_the_digest_of_a_sample_is_golden_and_knows_its_label() -> None:
    digests = columns.sample_digests(some_samples())
    assert digests[0] == GOLDEN_SAMPLE
    other = replace(some_samples(), y=np.array([1, 1, 0]))
    assert columns.sample_digests(other)[0] != digests[0]
    assert columns.sample_digests(other)[1] == digests[1]


def test_digests_are_made_without_a_copy_of_the_samples() -> None:
    whole = columns.make(np.zeros((64, 1 << 15), np.float32), np.zeros(64, np.int64))
    tracemalloc.start()
    assert len(set(columns.sample_digests(whole))) == 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < whole.x.nbytes / 8


def test_the_json_of_a_task_is_golden() -> None:
    assert encode(TASK) == (
        b'{"id":"points","input":{"dtype":"float32","missing":false,"shape":[2]},"labels":["a","b"],"metric":"accuracy",'
        b'"model":{"embedding":64,"name":"mlp","width":32},"privacy":{"epsilon":8.0,"epsilon_budget":16.0,'
        b'"fetch_all_below_bytes":16777216,"min_cohort":3,"modes":["directory"],"reports":true},"title":"Points"}'
    )


def test_windows_are_in_the_json_of_a_task_only_where_they_are_said() -> None:
    task = replace(TASK, input=InputSchema((128, 3), windows=Windows(50.0, 64)), model=ModelSpec("cnn1d"))
    golden = b'{"dtype":"float32","missing":false,"shape":[128,3],"windows":{"hop":64,"rate_hz":50.0,"scale":1.0}}'
    assert golden in encode(task)
    assert decode(Task, encode(task), what="task") == task
    assert decode(Task, encode(TASK), what="task") == TASK


@pytest.mark.parametrize(
    "windows", [{"rate_hz": 0, "hop": 1}, {"rate_hz": 50, "hop": 0}, {"rate_hz": 50, "hop": 1, "scale": -1}, None]
)
def test_windows_that_cannot_be_are_refused(windows: dict | None) -> None:
    document = json.loads(encode(TASK))
    document["input"]["windows"] = windows
    with pytest.raises(InvalidMessage, match="windows"):
        convert(Task, document, what="task")


def test_the_same_arrays_give_the_same_bytes_whatever_their_order() -> None:
    one, two = np.zeros(3, np.float32), np.ones((2, 2), np.int64)
    assert tensors.pack({"a": one, "b": two}, {"k": 1}) == tensors.pack({"b": two, "a": one}, {"k": 1})


def _header(length: int, header: bytes, body: bytes = b"") -> bytes:
    return struct.pack("<Q", length) + header + body


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 7,
        _header(1 << 60, b"{}"),
        _header(2, b"{}"),
        _header(4, b"null"),
        _header(9, b'{"a":1}  '),
        _header(5000, b"[" * 5000),
        _header(85, json.dumps({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 1 << 40]}}).encode().ljust(85)),
        tensors.pack({"a": np.zeros(4, np.float32)})[:-1],
        tensors.pack({"a": np.zeros(4, np.float32)}) + b"x",
    ],
)
def test_bytes_that_are_not_arrays_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidMessage):
        tensors.unpack(data, what="something", limit_bytes=1 << 20)


def test_more_bytes_than_the_limit_are_refused_before_they_are_parsed() -> None:
    with pytest.raises(TooLarge):
        tensors.unpack(b"x" * 11, what="something", limit_bytes=10)


@pytest.mark.parametrize(
    "change",
    [
        {"y": np.array([0, 1, 7], np.int16)},
        {"y": np.array([0, 1], np.int16)},
        {"x": np.zeros((3, 5), np.float32)},
        {"x": np.full((3, 2), np.inf, np.float32)},
        {"x": np.zeros((3, 2), np.float64)},
        {"user": np.array([0, 1, 9], np.int32)},
        {"user": np.array([0, 1, -1], np.int32)},
        {"time": np.array([np.nan, 1, 1])},
    ],
)
def test_samples_that_contradict_the_task_or_themselves_are_refused(change: dict) -> None:
    arrays, meta = tensors.unpack(columns.to_bytes(some_samples(), "points"), what="pack", limit_bytes=1 << 20)
    with pytest.raises((InvalidMessage, InvalidSamples)):
        columns.from_bytes(tensors.pack({**arrays, **change}, meta), TASK, what="pack", limit_bytes=1 << 20)


def test_samples_of_another_task_are_refused() -> None:
    with pytest.raises(InvalidMessage, match="points"):
        columns.from_bytes(columns.to_bytes(some_samples(), "other"), TASK, what="pack", limit_bytes=1 << 20)


def test_what_leaves_a_contributor_has_no_recording_and_no_time() -> None:
    stripped = some_samples().without_metadata(np.array(["p", "q", "p"]))
    assert stripped.group.tolist() == ["", "", ""]
    assert np.isnan(stripped.time).all()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"labels": ("a", "a")}, "repeat"),
        ({"model": ModelSpec("cnn1d")}, "cannot take"),
        ({"input": InputSchema((2,), "int8", missing=True)}, "missing"),
        ({"privacy": Privacy(modes=("directory", "directory"))}, "repeat"),
        ({"input": InputSchema((10, 28)), "model": ModelSpec("lenet5", embedding=84)}, "at least 12"),
        ({"input": InputSchema((28, 28)), "model": ModelSpec("lenet5")}, "84"),
        ({"input": InputSchema((8000,), "int16"), "model": ModelSpec("audio")}, "needs input.windows"),
        ({"input": InputSchema((8000,), "uint8"), "model": ModelSpec("audio")}, "int16 or float32"),
        ({"input": InputSchema((8000, 2), "int16"), "model": ModelSpec("audio")}, "one channel"),
        ({"input": InputSchema((8000,), windows=Windows(8000.5, 1)), "model": ModelSpec("audio")}, "whole rates"),
        ({"input": InputSchema((799,), windows=Windows(8000, 1)), "model": ModelSpec("audio")}, "tenth"),
    ],
)
def test_what_types_cannot_say_of_a_task_is_a_problem(change: dict, problem: str) -> None:
    assert problem in replace(TASK, **change).problems()[0]
    assert TASK.problems() == []


@pytest.mark.parametrize("task_id", ["", "../etc", "A", "-a", "a/b", "a" * 64])
def test_a_task_id_is_safe_as_a_name_of_a_folder(task_id: str) -> None:
    with pytest.raises(InvalidMessage):
        convert(Task, {**json.loads(encode(TASK)), "id": task_id}, what="task")


def test_a_field_that_is_not_known_yet_is_ignored_and_a_wrong_one_is_named() -> None:
    assert decode(SearchMeta, b'{"task":"t","base":"%s","k":3,"new":1}' % (b"0" * 64), what="search").k == 3
    with pytest.raises(InvalidMessage, match="k"):
        decode(SearchMeta, b'{"task":"t","base":"%s","k":101}' % (b"0" * 64), what="search")
    with pytest.raises(InvalidMessage, match="malformed"):
        decode(SearchMeta, b"\xff{", what="search")


def test_a_report_has_no_room_for_free_text() -> None:
    from typing import get_type_hints

    free = [name for name, kind in get_type_hints(Report, include_extras=True).items() if kind is str]
    assert free == []


def test_every_error_has_a_code_a_status_and_an_exit_code_of_its_own_kind() -> None:
    assert len(BY_CODE) == len({kind.code for kind in BY_CODE.values()})
    for kind in BY_CODE.values():
        assert kind.exit_code in range(1, 14)
        assert 400 <= kind.http_status < 600
    assert type(from_code("from-the-future", "x")) is EdgeError


@dataclass(frozen=True)
class _Small:
    n: int


def test_decoding_has_a_limit_of_its_own() -> None:
    with pytest.raises(TooLarge):
        decode(_Small, b'{"n": 1}', what="x", limit_bytes=3)


GOLDEN_FOUND = "b0da91c043b59746cdb24f11bb1d5e2c430a67e6e598a705ad422406e4b73e02"
GOLDEN_WANTED = "43e09fbc03eb54012f09f375d9bb5c4fd87d953f778e272d44906ab98866c38a"
GOLDEN_SAMPLES = "f7567a80860d81d3529cecb059855ba7bf40c2bda99f4d29014b8b9095a7030f"
GOLDEN_SAMPLE = "167728ac19c8d3496b8da1c3fbb4dd82b26b2bfd130a3052faaffb498bbf8b32"
