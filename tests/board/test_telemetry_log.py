"""The ring on disk, the pace of reading, and the commands."""

from __future__ import annotations

import errno
import io
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from edgectl.telemetry import live, watching
from edgectl.telemetry import ring as ring_module
from edgectl.telemetry.reading import Sensors
from edgectl.telemetry.ring import Ring
from edgectl.telemetry.show import lines, one_line
from tests.board.conftest import ROOT, Board
from tests.board.recorded import recorded


def kept(ring: Ring) -> list[int]:
    return [value["n"] for _, value in ring.read()]


def test_the_newest_readings_stay_and_the_disk_is_bounded(tmp_path: Path) -> None:
    ring = Ring(tmp_path / "ring", limit_bytes=8000)
    for n in range(2000):
        assert ring.append({"n": n}) is None
    assert kept(ring)[-1] == 1999
    assert kept(ring) == list(range(kept(ring)[0], 2000))
    size = sum(path.stat().st_size for path in (tmp_path / "ring").iterdir())
    assert 6000 < size <= 8000


def test_a_new_process_goes_on_in_the_same_file(tmp_path: Path) -> None:
    for n in range(20):
        Ring(tmp_path).append({"n": n})
    assert kept(Ring(tmp_path)) == list(range(20))
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("torn", [b'{"n": 1', b"\xff\xfe\x00", b"[1]\n", b"{" * 3000 + b"\n"])
def test_what_is_torn_is_skipped_and_nothing_after_it_is_lost(torn: bytes, tmp_path: Path) -> None:
    Ring(tmp_path).append({"n": 0})
    with (tmp_path / "00000001.ndjson").open("ab") as file:
        file.write(torn)
    Ring(tmp_path).append({"n": 2})
    assert kept(Ring(tmp_path)) == [0, 2]


def test_reading_goes_on_after_a_place(tmp_path: Path) -> None:
    ring = Ring(tmp_path, limit_bytes=400)
    for n in range(5):
        ring.append({"n": n})
    place = next(place for place, value in ring.read() if value["n"] == 2)
    assert [value["n"] for _, value in ring.read(place)] == [3, 4]


def test_what_was_read_before_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ring may be a GiB, and every sync asks for the last hour of it."""
    ring, parsed, parse = Ring(tmp_path, limit_bytes=400), list[bytes](), ring_module._parsed
    for n in range(30):
        ring.append({"n": n})
    *_, (place, _), _ = ring.read()
    monkeypatch.setattr(ring_module, "_parsed", lambda line: parsed.append(line) or parse(line))
    assert [value["n"] for _, value in ring.read(place)] == [29]
    assert len(parsed) == 1


def test_a_full_disk_costs_the_oldest_readings_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ring = Ring(tmp_path, limit_bytes=160)
    for n in range(6):
        ring.append({"n": n})
    real, full = os.write, iter([True])

    def write(handle: int, data: bytes) -> int:
        if next(full, False):
            real(handle, data[:3])  # the kernel takes what fits
            return 3
        return real(handle, data)

    monkeypatch.setattr(os, "write", write)
    assert ring.append({"n": 6}) is None
    assert (kept(ring)[0], kept(ring)[-1]) == (2, 6)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_disk_that_refuses_is_told_once_and_waited_for(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board, told, ring = recorded("pi-5", tmp_path), list[str](), Ring(tmp_path / "ring")
    real = os.open
    refusing = True

    def refuse(path: object, *arguments: object, **named: object) -> int:
        if refusing and str(path).endswith(".ndjson"):
            raise OSError(number, os.strerror(number), str(path))
        return real(path, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    readings = watching.every(board.sensors(), 1.0, count=5, sleep=lambda _: None, monotonic=lambda: 0.0)

    def recovering():  # type: ignore[no-untyped-def]
        nonlocal refusing
        for n, reading in enumerate(readings):
            refusing = n < 3
            yield reading

    assert watching.keep(recovering(), ring, tell=told.append) == 2
    assert [line.split(":")[0] for line in told] == ["readings are not kept", "readings are kept again"]
    assert os.strerror(number) in told[0]


def test_the_pace_does_not_drift_and_nothing_is_caught_up_with(tmp_path: Path) -> None:
    clock, slept = [0.0], list[float]()

    def sleep(seconds: float) -> None:
        slept.append(round(seconds, 3))
        clock[0] += seconds

    readings = watching.every(
        recorded("pi-5", tmp_path).sensors(), 1.0, count=5, sleep=sleep, monotonic=lambda: clock[0]
    )
    for took in (0.25, 0.25, 7.0, 0.25, 0.25):
        next(readings)
        clock[0] += took
    assert slept == [0.75, 0.75, 0.0, 0.75]


def test_people_are_told_what_is_unknown_and_why(tmp_path: Path) -> None:
    text = lines(recorded("pi-zero-2w", tmp_path).read())
    assert "temperature: 47.2 °C" in text
    assert "under-voltage: unknown (the Zero family has no low-voltage detector)" in text
    assert "power: 1.81 W (modelled)" in lines(recorded("pi-5", tmp_path).read())


def test_one_line_says_what_matters(tmp_path: Path) -> None:
    assert one_line(recorded("pi-4b", tmp_path).read()) == "81.3 °C, throttled, under-voltage, 3130 of 3793 MiB free"
    assert "telemetry once" in one_line(Sensors(tmp_path / "none").read())


def test_the_live_view_shows_every_field(tmp_path: Path) -> None:
    out = io.StringIO()
    live.show([recorded("pi-4b", tmp_path).read()], console=Console(file=out, force_terminal=True, width=120))
    assert "81.3 °C" in out.getvalue()
    assert "unknown" in out.getvalue()


# As a user would


def test_once_prints_every_field(newcomer: Board) -> None:
    done = newcomer.edgectl("telemetry", "once", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["schema_version"]) == (0, 1)
    assert report["reading"]["total_mib"] > 0
    assert not newcomer.home.root.exists()


def test_watch_prints_lines_of_json_where_there_is_no_terminal(newcomer: Board) -> None:
    done = newcomer.edgectl("telemetry", "watch", "--every", "0.2", "--count", "2")
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert second["monotonic_s"] > first["monotonic_s"]


def test_watch_draws_in_a_terminal(newcomer: Board) -> None:
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "edgectl", "telemetry", "watch", "--every", "0.2", "--count", "2"]
    environment = {**newcomer.environment, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, stdout=slave, stderr=slave, stdin=slave, cwd=ROOT, env=environment) as process:
        os.close(slave)
        seen = bytearray()
        while piece := _read(master):
            seen += piece
    os.close(master)
    assert process.returncode == 0
    assert b"edgectl telemetry" in seen
    assert b"schema_version" not in seen


def _read(handle: int) -> bytes:
    try:
        return os.read(handle, 65536)
    except OSError:  # the other end was closed
        return b""


def test_watch_ends_quietly_when_nobody_reads(newcomer: Board) -> None:
    line = f"{sys.executable} -m edgectl telemetry watch --every 0.2 | head -n 1"
    done = subprocess.run(["sh", "-c", line], capture_output=True, cwd=ROOT, env=newcomer.environment, check=False)
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == b""


def test_log_keeps_and_shows(newcomer: Board) -> None:
    done = newcomer.edgectl("telemetry", "log", "--every", "0.2", "--count", "3")
    assert b"3 readings kept" in done.stderr
    assert len(newcomer.edgectl("telemetry", "log", "--show").stdout.splitlines()) == 3


def test_what_was_logged_survives_kill_9(newcomer: Board) -> None:
    command = [sys.executable, "-m", "edgectl", "telemetry", "log", "--every", "0.2"]
    ring = Ring(newcomer.home.telemetry)
    with subprocess.Popen(command, cwd=ROOT, env=newcomer.environment) as process:
        while sum(1 for _ in ring.read()) < 3:
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    before = sum(1 for _ in ring.read())
    assert before >= 3
    assert newcomer.edgectl("telemetry", "log", "--count", "1").returncode == 0  # the lock died with its process
    assert sum(1 for _ in ring.read()) == before + 1


def test_two_logs_at_once_are_refused(newcomer: Board) -> None:
    from edgewire.files import exclusive

    with exclusive(newcomer.home.ensure().lock("telemetry"), doing="testing"):
        assert newcomer.edgectl("telemetry", "log", "--count", "1").returncode == 9


def test_log_goes_on_without_a_disk(newcomer: Board) -> None:
    newcomer.folder.joinpath("state").write_text("a file where the folder should be")
    done = newcomer.edgectl("telemetry", "log", "--every", "0.2", "--count", "2")
    assert done.returncode == 0
    assert done.stderr.count(b"readings are not kept") == 1


def test_status_says_how_the_board_is(newcomer: Board) -> None:
    assert b"MiB free" in newcomer.edgectl("status").stdout
    assert json.loads(newcomer.edgectl("status", "--json").stdout)["board_state"]["total_mib"] > 0
