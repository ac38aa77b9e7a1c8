"""The command line as scripts see it: exit codes, stdout, stderr."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgectl import cli, enrolment, periods, sharing
from edgectl.store import Store
from edgewire import errors
from edgewire.samples import from_bytes, make
from edgewire.tasks import InputSchema
from tests.board.conftest import GESTURES, ROOT, Board

CSV = b"y,group,a,b,c,d,e,f\nwave,one,1,2,3,4,5,6\npoint,two,6,5,4,3,2,1\n"


def npz(n: int = 4, **columns: np.ndarray) -> bytes:
    x = np.arange(n * 6, dtype=np.float32).reshape(n, 2, 3)
    y = np.asarray(["wave", "point", "fist"])[np.arange(n) % 3]
    file = io.BytesIO()
    np.savez(file, **{"x": x, "y": y, **columns})
    return file.getvalue()


def stored(board: Board) -> int:
    with Store.open(board.home.database) as store:
        assert store.check() == []
        return sum(store.label_counts("gestures").values())


def test_samples_are_added_from_a_file_and_from_stdin(board: Board, tmp_path: Path) -> None:
    (tmp_path / "four.npz").write_bytes(npz())
    first = board.edgectl("data", "add", str(tmp_path / "four.npz"), "--json")
    second = board.edgectl("data", "add", "-", "--json", stdin=CSV)
    assert json.loads(first.stdout) == {
        "schema_version": 1,
        "changed": True,
        "task": "gestures",
        "added": 4,
        "duplicates": 0,
        "expired": 0,
        "total": 4,
        "scored": 0,
        "right": 0,
    }
    assert json.loads(second.stdout)["total"] == 6


def test_adding_the_same_file_again_changes_nothing(board: Board) -> None:
    board.edgectl("data", "add", "-", stdin=CSV)
    again = board.edgectl("data", "add", "-", "--json", stdin=CSV)
    assert (again.returncode, json.loads(again.stdout)["changed"]) == (0, False)


def test_only_the_named_part_is_added(board: Board) -> None:
    parts = np.asarray(["local", "test", "test", "local"])
    done = board.edgectl("data", "add", "-", "--part", "local", "--json", stdin=npz(part=parts))
    assert json.loads(done.stdout)["added"] == 2


WRONG = {
    "another shape": npz(x=np.zeros((4, 3, 3), np.float32)),
    "not numbers": npz(x=np.full((4, 2, 3), "x")),
    "NaN": npz(x=np.full((4, 2, 3), np.nan, np.float32)),
    "infinite": npz(x=np.full((4, 2, 3), np.inf, np.float32)),
    "unknown label": npz(y=np.asarray(["wave", "punch", "fist", "wave"])),
    "zero rows": npz(0),
    "fewer labels than rows": npz(y=np.asarray(["wave"])),
    "objects": npz(y=np.asarray([{"a": 1}] * 4, dtype=object)),
    "empty": b"",
    "half a file": npz()[:200],
    "junk": b"\x00\xff" * 999,
    "CSV with a short row": CSV + b"fist,three,1\n",
    "CSV with words": CSV + b"fist,three,1,2,3,4,5,six\n",
}


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_file_is_a_usage_error_and_adds_nothing(board: Board, content: bytes) -> None:
    done = board.edgectl("data", "add", "-", stdin=content)
    assert done.returncode == 2
    assert done.stderr.startswith(b"edgectl: ")
    assert b"Traceback" not in done.stderr
    assert not board.home.database.exists() or stored(board) == 0


def test_a_file_of_ten_gigabytes_is_refused_at_once(board: Board, tmp_path: Path) -> None:
    with (tmp_path / "huge.npz").open("wb") as file:
        file.truncate(10 << 30)  # sparse: no disk is used
    done = board.edgectl("data", "add", str(tmp_path / "huge.npz"))
    assert done.returncode == 2
    assert b"10.0 GiB, the limit is" in done.stderr


def test_a_missing_file_is_named(board: Board) -> None:
    done = board.edgectl("data", "add", "nowhere.npz")
    assert done.returncode == 1
    assert b"there is no file nowhere.npz" in done.stderr


def test_a_board_that_is_not_enrolled_says_so(newcomer: Board) -> None:
    assert newcomer.edgectl("data", "add", "-", stdin=CSV).returncode == 10
    assert newcomer.edgectl("data", "list").returncode == 10
    assert not newcomer.home.root.exists()


def test_data_list_and_expire(board: Board) -> None:
    board.edgectl("data", "add", "-", stdin=CSV)
    listed = json.loads(board.edgectl("data", "list", "--json").stdout)
    assert listed["labels"] == {"wave": 1, "point": 1}
    number = listed["samples"][0]["id"]
    assert json.loads(board.edgectl("data", "expire", "--id", str(number), "--json").stdout)["deleted"] == 1
    assert board.edgectl("data", "expire").returncode == 2
    assert json.loads(board.edgectl("data", "expire", "--older-than", "1d", "--json").stdout)["changed"] is False
    assert json.loads(board.edgectl("data", "expire", "--all", "--json").stdout)["deleted"] == 1


def test_samples_of_a_task_that_is_no_longer_granted_are_still_the_owners(board: Board) -> None:
    board.edgectl("data", "add", "-", stdin=CSV)
    enrolment.update_tasks(board.home, enrolment.load(board.home), ())
    assert board.edgectl("data", "list", "--task", "postures").returncode == 11
    listed = board.edgectl("data", "list", "--task", "gestures", "--json")
    assert json.loads(listed.stdout)["labels"] == {"wave": 1, "point": 1}
    deleted = board.edgectl("data", "expire", "--task", "gestures", "--all", "--json")
    assert json.loads(deleted.stdout)["deleted"] == 2


def test_training_without_torch_says_what_to_install(board: Board) -> None:
    script = "import sys; sys.modules['torch'] = None; from edgectl.cli import run; sys.exit(run(['train']))"
    done = subprocess.run(
        [sys.executable, "-c", script], env=board.environment, cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == errors.UnsupportedBoard.exit_code
    assert b"edgectl[train]" in done.stderr


def test_nothing_is_shared_without_consent(board: Board) -> None:
    board.edgectl("data", "add", "-", stdin=CSV)
    assert board.edgectl("data", "share", "--until", "30d").returncode == 2
    with Store.open(board.home.database) as store:
        assert list(store.outbox()) == []


def test_what_was_shared_is_withdrawn_once_and_can_be_shared_anew(board: Board) -> None:
    board.edgectl("data", "add", "-", stdin=CSV)
    board.edgectl("data", "share", "--until", "30d", "--yes")
    first = json.loads(board.edgectl("data", "withdraw", "--json").stdout)
    again = json.loads(board.edgectl("data", "withdraw", "--json").stdout)
    assert (first["withdrawn"], again["withdrawn"]) == (len(CSV.splitlines()) - 1, 0)
    with Store.open(board.home.database) as store:
        assert [item.kind for item in store.outbox()] == ["withdrawal"]
    assert board.edgectl("data", "share", "--until", "30d", "--yes").returncode == 0


def test_sharing_queues_values_and_labels_without_metadata_once(board: Board) -> None:
    board.edgectl("data", "add", "-", stdin=CSV)
    first = board.edgectl("data", "share", "--until", "30d", "--group", "one", "--yes", "--json")
    again = board.edgectl("data", "share", "--until", "30d", "--group", "one", "--yes", "--json")
    assert (json.loads(first.stdout)["shared"], json.loads(again.stdout)["shared"]) == (1, 0)
    with Store.open(board.home.database) as store:
        (item,) = store.outbox()
    sent = from_bytes(item.payload, GESTURES, what="contribution", limit_bytes=1 << 20)
    assert (item.kind, item.params["consent"]) == ("contribution", "packs")
    assert (list(sent.group), list(sent.user), bool(np.isnan(sent.time).all())) == ([""], [""], True)
    assert list(sent.y) == [0]


def test_a_large_offer_is_split_into_uploads_that_fit(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "_BATCH_BYTES", 50)  # two samples of 24 bytes
    board.edgectl("data", "add", "-", stdin=npz(5))
    with Store.open(board.home.database) as store:
        offer = sharing.offer(store, GESTURES, group=None)
        assert len(sharing.queue(store, GESTURES, offer, until=9e9, now=1.0)) == 3
        assert len(sharing.offer(store, GESTURES, group=None)) == 0


def test_no_upload_is_larger_than_a_slow_link_brings_up_in_one_sync(board: Board) -> None:
    long = replace(GESTURES, input=InputSchema((1 << 17, 3)))  # 1.5 MiB
    x = np.arange(5 * 3 << 17, dtype=np.float32).reshape(5, 1 << 17, 3)
    with Store.open(board.home.database) as store:
        store.add_samples(long, make(x, np.zeros(5)), now=1.0)
        sharing.queue(store, long, sharing.offer(store, long, group=None), until=9e9, now=1.0)
        sizes = [len(item.payload) for item in store.outbox()]
    assert len(sizes) == 3
    assert max(sizes) < (4 << 20) + 4096


def test_status_tells_what_is_there_and_makes_nothing(newcomer: Board) -> None:
    done = newcomer.edgectl("status", "--json")
    assert json.loads(done.stdout)["enrolled"] is False
    assert not newcomer.home.root.exists()


def test_status_counts_samples_and_uploads(board: Board) -> None:
    board.edgectl("data", "add", "-", stdin=CSV)
    board.edgectl("data", "share", "--until", "30d", "--yes")
    report = json.loads(board.edgectl("status", "--json").stdout)
    assert (report["enrolled"], report["outbox"]) == (True, 1)
    assert report["tasks"][0]["labels"] == {"wave": 1, "point": 1}


def test_data_is_on_stdout_and_talk_on_stderr(board: Board) -> None:
    done = board.edgectl("-v", "data", "list", "--json")
    assert json.loads(done.stdout)["schema_version"] == 1
    assert board.edgectl("data", "list", "--task", "postures").stdout == b""


def test_a_profile_recommends_where_nothing_else_is_set(newcomer: Board) -> None:
    def threads() -> tuple[object, str]:
        report = json.loads(newcomer.edgectl("config", "get", "threads", "--json").stdout)
        return report["value"], report["origin"]

    newcomer.edgectl("config", "set", "profile", "pi-5")
    assert threads() == (4, "profile pi-5")
    newcomer.edgectl("config", "set", "threads", "1")
    assert threads() == (1, str(newcomer.folder / "config" / "edgectl" / "config.toml"))


def test_a_state_folder_can_be_named_anywhere_on_the_line(board: Board, tmp_path: Path) -> None:
    for line in (["--state", str(tmp_path / "x"), "status", "--json"], ["status", "--json", f"--state={tmp_path}/x"]):
        assert json.loads(board.edgectl(*line).stdout)["state"] == str(tmp_path / "x")
    assert board.edgectl("status", "--state").returncode == 2


def test_a_usage_error_is_2_and_an_error_shows_no_traceback_unless_asked(board: Board) -> None:
    assert board.edgectl("bogus").returncode == 2
    assert board.edgectl("data", "list", "--limit", "many").returncode == 2
    board.home.database.write_bytes(b"junk" * 5000)
    plain, asked = board.edgectl("data", "list"), board.edgectl("data", "list", "--debug")
    assert (plain.returncode, b"Traceback" in plain.stderr) == (8, False)
    assert b"Traceback" in asked.stderr


def test_a_reader_that_goes_away_is_no_error(board: Board) -> None:
    command = f"{sys.executable} -m edgectl config list | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], env=board.environment, cwd=ROOT, capture_output=True, check=False)
    assert done.stderr == b""
    assert done.returncode != 255


def heeding() -> None:
    """What a shell starts in the background ignores Ctrl-C, tests and all that they start included."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_is_130(board: Board) -> None:
    command = [sys.executable, "-m", "edgectl", "data", "add", "-"]
    running = subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=board.environment, cwd=ROOT, preexec_fn=heeding
    )
    assert running.stdin is not None
    running.stdin.write(b"," * (1 << 17))  # more than a pipe holds: this returns when its input is being read
    running.stdin.flush()
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=20)
    assert (running.returncode, b"Traceback" in said) == (130, False)


def test_names_from_elsewhere_cannot_steer_a_terminal(board: Board) -> None:
    board.edgectl("data", "add", "-", stdin=CSV.replace(b"one", b"\x1b[31mred"))
    listed = board.edgectl("data", "list").stdout
    assert b"\x1b" not in listed
    assert b"red" in listed


@pytest.mark.parametrize("kind", errors.BY_CODE.values())
def test_every_error_has_the_exit_code_it_promises(
    kind: type[errors.EdgeError], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise kind("it went wrong", hint="do this")

    monkeypatch.setattr("edgectl.commands.status._report", fail)
    assert cli.run(["--state", str(tmp_path), "status"]) == kind.exit_code
    assert capsys.readouterr().err == "edgectl: it went wrong\n  -> do this\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [(OSError(28, "No space left"), 6), (OSError(30, "Read-only"), 6), (MemoryError(), 6), (RuntimeError("bug"), 1)],
)
def test_what_is_not_ours_gets_a_code_too(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr("edgectl.commands.status._report", fail)
    assert cli.run(["--state", str(tmp_path), "status"]) == code


LIGHT = ("torch", "onnxruntime", "numpy", "requests", "pydantic", "rich", "cryptography")


@pytest.mark.parametrize("line", [["--help"], ["status"]])
def test_help_and_status_import_nothing_heavy(board: Board, line: list[str]) -> None:
    board.edgectl("data", "add", "-", stdin=CSV)
    script = (
        "import sys; from edgectl.cli import run; code = run(sys.argv[1:]);"
        f"heavy = [name for name in {LIGHT} if name in sys.modules];"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    command = [sys.executable, "-c", script, *line]
    done = subprocess.run(command, env=board.environment, cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_what_a_personal_model_infers_with_imports_no_cryptography() -> None:
    """Nothing is verified there, and it is a tenth of the memory."""
    script = "import sys, edgectl.inference, edgectl.serving; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0


def test_kill_9_while_adding_leaves_all_or_nothing(board: Board, tmp_path: Path) -> None:
    """Killed at many moments of one add, the store is whole, and the next add completes it."""
    n, seen = 3000, set()
    (tmp_path / "many.npz").write_bytes(npz(n))
    command = [sys.executable, "-m", "edgectl", "data", "add", str(tmp_path / "many.npz")]
    started = time.monotonic()
    subprocess.run(command, env=board.environment, cwd=ROOT, capture_output=True, check=True)
    whole_s = time.monotonic() - started
    for attempt in range(12):
        board.edgectl("data", "expire", "--all")
        running = subprocess.Popen(
            command, env=board.environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(whole_s * (0.35 + 0.7 * attempt / 12))
        running.kill()
        running.wait()
        seen.add(stored(board))
    assert seen <= {0, n}
    assert json.loads(board.edgectl("data", "add", str(tmp_path / "many.npz"), "--json").stdout)["total"] == n


def test_kill_9_inside_the_transaction_leaves_nothing_of_it(board: Board) -> None:
    script = """
import os, sys, numpy as np
from edgectl.store import Store
from edgewire.samples import make
from tests.board.conftest import GESTURES
store = Store.open(__import__("pathlib").Path(sys.argv[1]))
with store.transaction():
    store.add_samples(GESTURES, make(np.zeros((1, 2, 3), np.float32), np.zeros(1)), now=0.0)
    os.kill(os.getpid(), 9)
"""
    command = [sys.executable, "-c", script, str(board.home.database)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    assert stored(board) == 0


def test_a_read_only_state_folder_has_its_own_code(board: Board) -> None:
    if os.geteuid() != 0:
        board.home.root.chmod(0o500)
        assert board.edgectl("data", "add", "-", stdin=CSV).returncode in (1, 6)
        return
    bound = subprocess.run(["mount", "--bind", board.home.root, board.home.root], capture_output=True, check=False)
    if bound.returncode:
        pytest.skip("this machine does not let us mount")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", board.home.root], check=True)
        done = board.edgectl("data", "add", "-", stdin=CSV)
    finally:
        subprocess.run(["umount", board.home.root], check=True)
    assert done.returncode == 6
    assert board.edgectl("data", "add", "-", stdin=CSV).returncode == 0


def test_ages_and_dates() -> None:
    assert [periods.seconds(text) for text in ("90s", "5m", "2h", "3d", "1w")] == [90, 300, 7200, 259200, 604800]
    assert periods.day(periods.moment("2031-01-31", now=0.0)) == "2031-01-31"
    assert periods.moment("1d", now=5.0) == 86405.0
    for wrong in ("1999-01-01", "soon", "5", "2031-13-01"):
        with pytest.raises(errors.UsageError):
            periods.moment(wrong, now=1e9)


def test_another_task_with_the_same_samples_is_not_mixed_up(board: Board) -> None:
    postures = replace(GESTURES, id="postures")
    board.edgectl("data", "add", "-", stdin=CSV)
    with Store.open(board.home.database) as store:
        assert len(store.samples(postures)) == 0
