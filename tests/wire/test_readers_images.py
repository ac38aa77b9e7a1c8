"""Folders of images: modes, sizes, damage, and files made to do harm."""

from __future__ import annotations

import io
import os
import random
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest

from edgewire.errors import InvalidSamples, UnsupportedBoard
from edgewire.readers import draft_task, read
from edgewire.tasks import InputSchema, ModelSpec, Task

PIL = pytest.importorskip("PIL.Image")

GREY = Task("grey", "Grey", InputSchema((8, 8), "uint8"), ("cat", "dog"), ModelSpec("cnn2d"))
COLOUR = Task("colour", "Colour", InputSchema((8, 8, 3), "uint8"), ("cat", "dog"), ModelSpec("cnn2d"))


def pixels(height: int, width: int, value: int = 200) -> np.ndarray:
    return np.full((height, width), value, np.uint8)


def save(path: Path, array: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.fromarray(array).save(path, **options)
    return path


def pets(folder: Path) -> Path:
    save(folder / "cat" / "b.png", pixels(8, 8, 10))
    save(folder / "cat" / "a.PNG", pixels(8, 8, 20))
    save(folder / "dog" / "a.jpg", pixels(8, 8, 30), quality=95)
    return folder


def one(path: Path, task: Task = GREY) -> np.ndarray:
    return read(path, task, labelled=False).x[0]


def test_a_folder_per_label_gives_labelled_samples_in_order_of_names(tmp_path: Path) -> None:
    samples = read(pets(tmp_path / "pets"), GREY)
    assert samples.y.tolist() == [0, 0, 1]
    assert samples.x[:, 0, 0].tolist() == [20, 10, 30]
    assert samples.group.tolist() == ["pets/cat/a.PNG", "pets/cat/b.png", "pets/dog/a.jpg"]


def test_what_is_no_data_is_passed_over(tmp_path: Path) -> None:
    folder = pets(tmp_path / "pets")
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "cat" / "._a.png").write_bytes(b"x")
    (folder / "cat" / "Thumbs.db").write_bytes(b"x")
    (folder / "README.txt").write_text("x")
    (folder / "empty").mkdir()
    assert len(read(folder, GREY)) == 3


def test_to_infer_one_image_a_flat_folder_or_standard_input_will_do(tmp_path: Path) -> None:
    file = save(tmp_path / "flat" / "a.png", pixels(8, 8, 7))
    save(tmp_path / "flat" / "b.png", pixels(8, 8, 9))
    assert read(file, GREY, labelled=False).group.tolist() == ["a.png"]
    assert read(tmp_path / "flat", GREY, labelled=False).x[:, 0, 0].tolist() == [7, 9]
    assert len(read(pets(tmp_path / "pets"), GREY, labelled=False)) == 3
    assert len(read(None, GREY, stdin=io.BytesIO(file.read_bytes()), labelled=False)) == 1
    for unlabelled in (file, tmp_path / "flat"):
        with pytest.raises(InvalidSamples, match="sub-folder per label"):
            read(unlabelled, GREY)


MODES = {
    "grey": ("L", 200, 200),
    "one bit": ("1", 1, 255),
    "palette": ("P", 200, 200),
    "alpha, opaque": ("LA", (200, 255), 200),
    "alpha, transparent": ("LA", (7, 0), 255),
    "colour with alpha": ("RGBA", (200, 200, 200, 255), 200),
    "16 bit": ("I;16", 200 * 257, 200),
    "colour": ("RGB", (200, 200, 200), 200),
}


@pytest.mark.parametrize("name", MODES)
def test_every_mode_becomes_grey_or_colour_of_eight_bits(name: str, tmp_path: Path) -> None:
    mode, value, expected = MODES[name]
    image = PIL.new(mode, (8, 8), value)
    if mode == "P":
        image.putpalette([n for n in range(256) for _ in range(3)])
    image.save(tmp_path / "a.png")
    assert (one(tmp_path / "a.png") == expected).all()
    assert (one(tmp_path / "a.png", COLOUR) == expected).all()
    assert one(tmp_path / "a.png", COLOUR).shape == (8, 8, 3)


def test_cmyk_jpeg_is_read(tmp_path: Path) -> None:
    PIL.new("CMYK", (8, 8), (0, 0, 0, 0)).save(tmp_path / "a.jpg")
    assert (one(tmp_path / "a.jpg", COLOUR) > 250).all()


def test_an_image_of_another_size_keeps_its_middle_and_its_proportions(tmp_path: Path) -> None:
    wide = np.zeros((16, 64), np.uint8)
    wide[:, 24:40] = 250  # the middle square
    assert (one(save(tmp_path / "a.png", wide)) > 200).all()
    assert one(save(tmp_path / "b.png", pixels(1, 1, 5))).tolist() == [[5] * 8] * 8
    tall = Task("t", "T", InputSchema((4, 2), "float32"), ("a", "b"), ModelSpec("cnn2d"))
    assert one(save(tmp_path / "c.png", pixels(40, 20, 99)), tall).tolist() == [[99.0] * 2] * 4


def test_a_large_photograph_is_decoded_at_a_fraction_of_its_size(tmp_path: Path) -> None:
    file = save(tmp_path / "a.jpg", pixels(4000, 6000))
    script = (
        "import resource, sys; from pathlib import Path; from tests.wire.test_readers_images import one, GREY; "
        "one(Path(sys.argv[2])); before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; one(Path(sys.argv[1])); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    small = save(tmp_path / "small.jpg", pixels(100, 100))
    done = subprocess.run([sys.executable, "-c", script, file, small], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 16 << 10  # KiB; as a whole it takes 24 MB


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    array = np.zeros((8, 8), np.uint8)
    array[:, :4] = 255  # left half
    exif = PIL.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to the right
    found = one(save(tmp_path / "a.jpg", array, exif=exif, quality=100))
    assert (found[:4] > 200).all()
    assert (found[4:] < 50).all()


def claiming(path: Path, width: int, height: int) -> Path:
    """A PNG of a few hundred bytes whose header claims that size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 4096)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("side", [6000, 12_000, 2**31 - 1])
def test_an_image_that_claims_to_be_huge_is_refused_unread(side: int, tmp_path: Path) -> None:
    file = claiming(tmp_path / "a.png", side, side)
    one(save(tmp_path / "warm.png", pixels(8, 8)))
    tracemalloc.start()
    with pytest.raises(InvalidSamples, match=r"a\.png: the image has more than 32 million pixels"):
        one(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_damaged_images_are_refused_by_name(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whole = save(tmp_path / "whole.png", rng.integers(0, 255, (64, 64)).astype(np.uint8)).read_bytes()
    folder = pets(tmp_path / "pets")
    for content in (b"", b"\x89PNG\r\n\x1a\n", whole[: len(whole) // 2], b"GIF89a" + whole, b"<svg/>"):
        (folder / "dog" / "bad.png").write_bytes(content)
        with pytest.raises(InvalidSamples, match=r"pets/dog/bad\.png cannot be read as PNG or JPEG"):
            read(folder, GREY)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_spoilt_image_is_read_or_refused_but_never_a_surprise(suffix: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (24, 24, 3)).astype(np.uint8)
    exif = PIL.Exif()
    exif[0x0112] = 6
    whole, rng, refused = save(tmp_path / f"a.{suffix}", noise, exif=exif).read_bytes(), random.Random(0), 0
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 6)):
            damaged[rng.randrange(12, min(len(damaged), 400))] = rng.randrange(256)
        try:
            assert one_of(bytes(damaged)).shape == (8, 8, 3)
        except InvalidSamples:
            refused += 1
    assert refused > 50


def one_of(content: bytes) -> np.ndarray:
    return read(None, COLOUR, stdin=io.BytesIO(content), labelled=False).x[0]


def test_links_pipes_and_folders_in_folders_are_not_followed(tmp_path: Path) -> None:
    folder = pets(tmp_path / "pets")
    link = folder / "cat" / "link.png"
    link.symlink_to(folder / "dog" / "a.jpg")
    with pytest.raises(InvalidSamples, match=r"link\.png is not a plain file"):
        read(folder, GREY)
    link.unlink()
    os.mkfifo(folder / "cat" / "pipe.png")
    with pytest.raises(InvalidSamples, match=r"pipe\.png is not a plain file"):
        read(folder, GREY)
    (folder / "cat" / "pipe.png").unlink()
    (folder / "cat" / "deeper").mkdir()
    with pytest.raises(InvalidSamples, match="folder inside a label's folder"):
        read(folder, GREY)


def test_folders_without_sense_are_refused_with_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "empty" / "cat").mkdir(parents=True)
    with pytest.raises(InvalidSamples, match="holds no data"):
        read(tmp_path / "empty", GREY)
    folder = pets(tmp_path / "pets")
    save(folder / "horse" / "a.png", pixels(8, 8))
    with pytest.raises(InvalidSamples, match="unknown label 'horse'"):
        read(folder, GREY)
    (folder / "horse" / "a.png").rename(folder / "a.png")
    with pytest.raises(InvalidSamples, match=r"pets/a\.png lies in no label's folder"):
        read(folder, GREY)
    (folder / "a.png").rename(folder / "cat" / "a.wav")
    with pytest.raises(InvalidSamples, match="different kinds"):
        read(folder, GREY)


def test_more_images_than_the_limit_are_refused_before_any_is_decoded(tmp_path: Path) -> None:
    folder = pets(tmp_path / "pets")
    (folder / "cat" / "a.PNG").write_bytes(b"")
    with pytest.raises(InvalidSamples, match="3 images are more than 100 bytes"):
        read(folder, GREY, limit_bytes=100)


@pytest.mark.parametrize(
    ("schema", "model"),
    [
        (InputSchema((8,)), "mlp"),
        (InputSchema((8, 3)), "cnn1d"),
        (InputSchema((8, 8, 4), "uint8"), "cnn2d"),
        (InputSchema((8, 8), "int8"), "cnn2d"),
    ],
)
def test_a_task_that_takes_no_images_says_so(schema: InputSchema, model: str, tmp_path: Path) -> None:
    task = Task("t", "T", schema, ("cat", "dog"), ModelSpec(model))  # type: ignore[arg-type]
    with pytest.raises(InvalidSamples, match="task 't' takes"):
        read(pets(tmp_path / "pets"), task)


def test_without_pillow_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pets(tmp_path / "pets")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(UnsupportedBoard, match=r"edgectl\[images\]"):
        read(folder, GREY)


def test_pillow_is_not_imported_for_other_files(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("u,v,y\n1,2,a\n")
    script = (
        "import sys; from pathlib import Path; from edgewire.readers import read; "
        "from edgewire.tasks import *; "
        "read(Path(sys.argv[1]), Task('t', 'T', InputSchema((2,)), ('a', 'b'), ModelSpec('mlp'))); "
        "print([name for name in ('PIL', 'wave') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "a.csv"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_a_task_is_drafted_from_a_folder_of_images(tmp_path: Path) -> None:
    task = draft_task(pets(tmp_path / "pets"), task_id="t", title="T")
    assert (task.input, task.labels, task.model.name) == (InputSchema((8, 8), "uint8"), ("cat", "dog"), "cnn2d")
    save(tmp_path / "pets" / "dog" / "b.png", np.zeros((100, 300, 3), np.uint8))
    assert draft_task(tmp_path / "pets", task_id="t", title="T").input == InputSchema((32, 32, 3), "uint8")
