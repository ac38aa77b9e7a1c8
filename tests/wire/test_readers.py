"""Files people have: what is read, what is refused and how it is said."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgewire.errors import InvalidSamples, NotFound
from edgewire.readers import draft_task, read
from edgewire.tasks import InputSchema, ModelSpec, Task

POINTS = Task("points", "Points", InputSchema((2,)), ("a", "b"), ModelSpec("mlp"))
IMAGES = Task("images", "Images", InputSchema((2, 2), "uint8"), ("0", "1"), ModelSpec("cnn2d"))


def npz(path: Path, **columns: np.ndarray) -> Path:
    np.savez(path, **columns)
    return path


def test_an_npz_file_gives_its_columns(tmp_path: Path) -> None:
    file = npz(
        tmp_path / "a.npz",
        x=np.array([[1.0, 2], [3, 4]]),
        y=np.array(["b", "a"]),
        user=np.array(["u", "v"]),
        group=np.array([7, 8]),
        time=np.array([1.5, np.nan]),
    )
    samples = read(file, POINTS)
    assert samples.x.dtype == np.float32
    assert samples.y.tolist() == [1, 0]
    assert (samples.user.tolist(), samples.group.tolist()) == (["u", "v"], ["7", "8"])
    assert samples.time[0] == 1.5


def test_numbers_as_labels_are_read_by_their_text(tmp_path: Path) -> None:
    file = npz(tmp_path / "a.npz", x=np.zeros((2, 2, 2), np.uint8), y=np.array([1.0, 0.0]))
    assert read(file, IMAGES).y.tolist() == [1, 0]


def test_labels_in_bytes_are_text_like_other_names(tmp_path: Path) -> None:
    file = npz(tmp_path / "a.npz", x=np.eye(2), y=np.array([b"b", b"a"]), part=np.array([b"test", b"test"]))
    assert read(file, POINTS, part="test").y.tolist() == [1, 0]
    with pytest.raises(InvalidSamples, match="ASCII"):
        read(npz(tmp_path / "b.npz", x=np.eye(2), y=np.array([b"\xff", b"a"])), POINTS)


@pytest.mark.parametrize("y", [np.array([1.0, 0.0]), np.array([b"1", b"0"]), np.array([1, 0], np.uint8)])
def test_a_drafted_task_has_the_labels_that_are_read_from_the_same_file(tmp_path: Path, y: np.ndarray) -> None:
    file = npz(tmp_path / "a.npz", x=np.eye(2), y=y)
    task = draft_task(file, task_id="points", title="Points")
    assert task.labels == ("0", "1")
    assert read(file, task).y.tolist() == [1, 0]


def test_only_rows_of_the_named_part_are_read(tmp_path: Path) -> None:
    file = npz(tmp_path / "a.npz", x=np.eye(2), y=np.array(["a", "b"]), part=np.array(["local", "test"]))
    assert read(file, POINTS, part="test").y.tolist() == [1]
    with pytest.raises(InvalidSamples, match="no row has part 'pool'"):
        read(file, POINTS, part="pool")


def test_a_csv_file_takes_little_more_memory_than_its_numbers(tmp_path: Path) -> None:
    file, task = tmp_path / "a.csv", replace(POINTS, input=InputSchema((50,)))
    line = ",".join(["0.25"] * 50)
    file.write_text(",".join([f"f{i}" for i in range(50)]) + ",y\n" + f"{line},a\n" * 4000)
    tracemalloc.start()
    samples = read(file, task)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert samples.x.shape == (4000, 50)
    assert peak < 3 * 8 * samples.x.size


def test_a_csv_row_holds_an_image_flat(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("p0,p1,label,p2,p3\n0,1,1,2,255\n")
    samples = read(file, IMAGES)
    assert samples.x.tolist() == [[[0, 1], [2, 255]]]
    assert samples.y.tolist() == [1]


def test_standard_input_is_told_apart_by_its_first_bytes() -> None:
    assert len(read(None, POINTS, stdin=io.BytesIO(b"u,v,y\n1,2,a\n"))) == 1
    buffer = io.BytesIO()
    np.savez(buffer, x=np.eye(2), y=np.array(["a", "b"]))
    assert len(read(None, POINTS, stdin=io.BytesIO(buffer.getvalue()))) == 2


def test_an_empty_cell_is_missing_where_the_task_allows_it(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("u,v,y\n1,,a\n")
    allowed = replace(POINTS, input=InputSchema((2,), "float32", missing=True))
    assert np.isnan(read(file, allowed).x[0, 1])
    with pytest.raises(InvalidSamples, match="row 0 has values that are not finite"):
        read(file, POINTS)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"x": np.zeros((2, 3)), "y": np.array(["a", "b"])}, "shape"),
        ({"x": np.array([["p", "q"]]), "y": np.array(["a"])}, "expected numbers"),
        ({"x": np.eye(2), "y": np.array(["a", "c"])}, "unknown label 'c'"),
        ({"x": np.eye(2), "y": np.array(["a"])}, "column 'y' has shape"),
        ({"x": np.eye(2)}, "no column 'y'"),
        ({"y": np.array(["a"])}, "no column 'x'"),
        ({"x": np.zeros((0, 2)), "y": np.zeros(0)}, "no rows"),
        ({"x": np.full((1, 2), 1e300), "y": np.array(["a"])}, "not finite"),
        ({"x": np.eye(2), "y": np.array(["a", "b"]), "time": np.array(["noon", ""])}, "seconds since 1970"),
        ({"x": np.eye(2), "y": np.array(["a", "b"]), "user": np.array(["u" * 201, ""])}, "longer than 200"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_its_reason(tmp_path: Path, columns: dict, says: str) -> None:
    with pytest.raises(InvalidSamples, match=says):
        read(npz(tmp_path / "a.npz", **columns), POINTS)


def test_values_that_the_dtype_cannot_hold_are_refused(tmp_path: Path) -> None:
    file = npz(tmp_path / "a.npz", x=np.full((1, 2, 2), 0.5), y=np.array([0]))
    with pytest.raises(InvalidSamples, match="uint8 cannot hold"):
        read(file, IMAGES)


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    file = npz(tmp_path / "a.npz", x=np.array([{"a": 1}], dtype=object), y=np.array(["a"]))
    with pytest.raises(InvalidSamples, match="cannot be read"):
        read(file, POINTS)


def test_an_archive_that_unpacks_to_more_than_the_limit_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "bomb.npz"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", b"\0" * (4 << 20))
    assert file.stat().st_size < 1 << 16
    with pytest.raises(InvalidSamples, match="unpacks to"):
        read(file, POINTS, limit_bytes=1 << 20)


def test_a_large_file_and_a_missing_one_are_named(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("u,v,y\n1,2,a\n")
    with pytest.raises(InvalidSamples, match="limit"):
        read(file, POINTS, limit_bytes=4)
    with pytest.raises(NotFound, match=r"b\.csv"):
        read(tmp_path / "b.csv", POINTS)


@pytest.mark.parametrize(
    ("shape", "dtype", "model"),
    [((5,), "float32", "mlp"), ((20, 3), "int8", "cnn1d"), ((8, 8), "uint8", "cnn2d"), ((8, 8, 3), "float32", "cnn2d")],
)
def test_a_task_is_drafted_from_a_file(tmp_path: Path, shape: tuple[int, ...], dtype: str, model: str) -> None:
    file = npz(tmp_path / "a.npz", x=np.zeros((12, *shape), dtype), y=np.arange(12))
    task = draft_task(file, task_id="t", title="T")
    assert (task.model.name, task.input.shape, task.input.dtype) == (model, shape, dtype)
    assert task.labels == tuple(str(i) for i in range(12))  # by number, not by text: 2 before 10
