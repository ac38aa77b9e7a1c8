"""What goes wrong in the field: a clear error with its exit code, and nothing lost."""

from __future__ import annotations

import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.cloud import toys
from tests.journeys.conftest import Box, Place, synced


@pytest.fixture
def board(_synced_once: Box, tmp_path: Path) -> Box:
    """Enrolled, synced, with twelve samples, at a cloud that is changed by nobody."""
    return _synced_once.copied(tmp_path / "one")


def test_a_used_token_and_a_wrong_file_are_refused(shared: Place) -> None:
    token = shared.token("shared")
    first, second = shared.board("first", enrolled=False), shared.board("second", enrolled=False)
    first.report("enroll", token)
    assert "token" in second.fails(11, "enroll", token)
    assert not first.report("enroll", token)["changed"]
    nonsense = shared.folder / "nonsense.json"
    nonsense.write_text("{}")
    assert "malformed" in second.fails(2, "enroll", nonsense)


def test_commands_of_a_board_that_belongs_nowhere_say_so(shared: Place) -> None:
    stranger = shared.board("stranger", enrolled=False)
    for command in (["sync"], ["train"], ["infer", shared.token("x")]):
        assert "enroll" in stranger.fails(10, *command)


def test_a_server_that_is_down_is_an_error_to_retry_and_the_board_goes_on(place: Place) -> None:
    board = synced(place)
    place.server.process.terminate()
    place.server.process.wait(30)
    assert "try again" in board.fails(3, "sync", "--max-seconds", "5")
    assert board.report("train", "--recipe", "local", "--no-veto")["changed"]
    assert board.report("infer", board.folder / "one.npz")["version"] == 1


def test_a_revoked_board_is_refused_at_once_but_keeps_inferring(place: Place) -> None:
    board = synced(place)
    board_id = place.cloud("boards", "list")["boards"][0]["board"]
    place.cloud("boards", "revoke", board_id)
    assert "revoked" in board.fails(11, "sync")
    assert board.report("infer", board.folder / "one.npz")["predictions"]


def test_training_without_samples_or_without_a_sync_says_what_to_do(shared: Place) -> None:
    empty = shared.board("empty")
    assert "sync" in empty.fails(1, "train")
    empty.report("sync")
    assert "data add" in empty.fails(5, "train")


def test_two_trainings_at_once_are_one_too_many(board: Box) -> None:
    from edgectl.home import Home
    from edgewire.files import exclusive

    with exclusive(Home(board.state).lock("train"), doing="training"):
        assert "another process" in board.fails(9, "train")
        assert "another process" in board.fails(9, "model", "rollback")


def test_a_corrupt_personal_model_is_refused_and_rolled_back(board: Box) -> None:
    board.report("train", "--recipe", "local", "--no-veto")
    model = board.state / "models/toy/current/model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    assert "rollback" in board.fails(8, "infer", board.folder / "one.npz")
    assert board.report("model", "rollback")["version"] is None
    assert board.report("infer", board.folder / "one.npz")["version"] is None


def test_a_forged_manifest_on_disk_is_refused(board: Box) -> None:
    manifest = board.state / "tasks/toy/manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"signature":"', b'"signature":"AAAA', 1))
    assert "signature" in board.fails(8, "train")
    board.report("sync")
    assert board.run("train").returncode == 0


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("text.csv", "a,b,y\n1,x,left\n", "line 2"),
        ("label.csv", "a,b,y\n1,2,nowhere\n", "unknown label"),
        ("nan.csv", "a,b,y\n1,,left\n", "not finite"),
        ("shape.csv", "a,b,c,y\n1,2,3,left\n", "shape"),
        ("empty.csv", "a,b,y\n", "no rows"),
        ("ragged.csv", "a,b,y\n1,left\n", "line 2"),
        ("junk.npz", "PK\x03\x04 and then junk", "cannot be read"),
    ],
)
def test_a_sample_file_that_is_wrong_is_refused_with_its_reason(board: Box, name: str, content: str, says: str) -> None:
    path = board.folder / name
    path.write_text(content)
    assert says in board.fails(2, "data", "add", path)
    assert board.report("data", "list")["labels"] == {"left": 4, "right": 4, "top": 4}


def test_a_file_of_ten_gigabytes_is_refused_unread(board: Box) -> None:
    path = board.folder / "huge.csv"
    with path.open("wb") as file:
        file.truncate(10 << 30)
    assert "GiB" in board.fails(2, "data", "add", path)


def _after_kills(board: Box, command: list[str | Path], *, kills: int = 6, longest_s: float) -> None:
    """Kill a command at `kills` moments, then run it to its end."""
    rng = random.Random(0)
    for number in range(kills):
        process = board.start(*command)
        time.sleep(longest_s * (number + rng.random()) / kills)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert board.run("status", "--json").returncode == 0
    done = board.run(*command)
    assert done.returncode == 0, done.stderr


def test_a_sync_killed_at_many_points_ends_whole(shared: Place) -> None:
    board = shared.board("killed")
    _after_kills(board, ["sync"], longest_s=1.2)
    assert not list(board.state.glob("tasks/toy/blobs/*.part"))
    assert not board.report("sync")["changed"]


def test_a_training_killed_at_many_points_leaves_a_model_that_serves(board: Box) -> None:
    board.report("train", "--recipe", "local", "--no-veto")
    for kill in range(6):
        process = board.start("train", "--recipe", "matched", "--no-veto", "--force", "--seed", str(kill))
        time.sleep(1.0 + 0.4 * kill)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert board.report("infer", board.folder / "one.npz")["version"] >= 1
    assert board.report("train", "--recipe", "matched", "--no-veto", "--force")["changed"]


def test_a_commit_killed_at_many_points_leaves_one_of_the_two_models_serving(board: Box) -> None:
    board.report("train", "--recipe", "local", "--no-veto")
    board.report("train", "--recipe", "matched", "--no-veto", "--stage")
    started = time.monotonic()
    board.report("model", "commit")
    whole_s = time.monotonic() - started
    serving = 2
    for kill in range(8):
        process = board.start("model", "rollback" if serving == 2 else "commit")
        time.sleep(whole_s * (0.5 + 0.5 * kill / 8))  # before that Python starts
        process.send_signal(signal.SIGKILL)
        process.communicate()
        serving = board.report("infer", board.folder / "one.npz")["version"]
        assert serving in (1, 2)


def test_a_full_disk_while_training_keeps_the_old_model(board: Box, tmp_path: Path) -> None:
    import subprocess

    board.report("train", "--recipe", "local", "--no-veto")
    small = tmp_path / "small"
    small.mkdir()
    pages = sum(-(-path.stat().st_size // 4096) + 1 for path in board.state.rglob("*"))
    size = 4096 * (pages + 24)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    try:
        shutil.copytree(board.state, small / "state", symlinks=True)
        cramped = Box(small)
        free = shutil.disk_usage(small).free
        (small / "filler").write_bytes(b"\0" * (free - (12 << 10)))
        done = cramped.run("train", "--recipe", "matched", "--no-veto")
        assert done.returncode == 6, done.stderr
        assert "full" in done.stderr
        assert cramped.report("infer", board.folder / "one.npz")["version"] == 1
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_token_that_expired_is_refused(shared: Place) -> None:
    done = toys.run("boards", "token", "--task", "toy", "--valid-for", "1s", data=shared.data)
    assert done.returncode == 0, done.stderr
    token = shared.folder / "short.json"
    token.write_text(done.stdout)
    time.sleep(1.1)
    late = shared.board("late", enrolled=False)
    assert "expired" in late.fails(11, "enroll", token)


def test_a_staged_model_that_answers_otherwise_than_when_it_was_made_is_not_committed(board: Box) -> None:
    from edgectl.home import Home
    from edgectl.models import GOLDEN, Models
    from edgectl.serving import check_golden
    from edgewire import tensors
    from edgewire.errors import IntegrityError

    board.report("train", "--recipe", "local", "--no-veto", "--stage")
    staged = Models(Home(board.state), "toy").staged()
    assert staged is not None
    check_golden(staged)
    path = staged.folder / GOLDEN
    arrays, meta = tensors.unpack(path.read_bytes(), what=GOLDEN, limit_bytes=1 << 20)
    path.write_bytes(tensors.pack({**arrays, "logits": arrays["logits"] + 1}, meta))
    with pytest.raises(IntegrityError, match="no longer answers"):
        check_golden(staged)
    assert board.fails(8, "model", "commit")
    assert board.report("model", "list")["base_serves"]
