"""Whatever the connection does, a board does a thing once."""

from __future__ import annotations

import hashlib
import os
import platform
import signal
import subprocess
import time
from pathlib import Path

import pytest

from edgectl.fleet.line import script
from tests.fleet.conftest import Fleet, write_program

COUNT = "echo x >> count; cat count"


def operation(home: Path) -> Path:
    """Where the board keeps operation abc."""
    return home / ".local/state/edgectl-fleet" / platform.node() / "abc"


def wait_for(path: Path) -> None:
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} never came")


def test_a_command_runs_once_and_its_output_is_free_of_banners(fleet: Fleet) -> None:
    fleet.trouble("pi-1", 'echo "Welcome to $host"; echo "{}"')
    result = fleet.host("run", "--", COUNT)
    assert (result["status"], result["rc"], result["output"], result["attempts"]) == ("changed", 0, "x\n", 1)


def test_the_same_operation_again_repeats_what_it_said_and_does_nothing(fleet: Fleet) -> None:
    said = [fleet.host("run", "--operation", "abc", "--", COUNT)["output"] for _ in range(2)]
    assert said == ["x\n", "x\n"]
    assert (fleet.home("pi-1") / "count").read_text() == "x\n"


def test_an_id_that_was_for_another_command_is_refused(fleet: Fleet) -> None:
    fleet.host("run", "--operation", "abc", "--", COUNT)
    result = fleet.host("run", "--operation", "abc", "--", "echo other")
    assert (result["status"], result["message"]) == ("failed", "operation abc was for something else")


def test_a_connection_lost_after_the_command_began_does_not_run_it_twice(fleet: Fleet) -> None:
    # the first connection starts the command and dies without a word; the second follows it
    fleet.trouble("pi-1", '[ -e once ] || { touch once; sh -c "$1" >/dev/null 2>&1; exit 255; }')
    result = fleet.host("run", "--", COUNT)
    assert (result["status"], result["output"], result["attempts"]) == ("changed", "x\n", 2)


def test_a_connection_lost_in_the_middle_of_the_answer_is_asked_again(fleet: Fleet) -> None:
    fleet.trouble("pi-1", '[ -e once ] || { touch once; sh -c "$1" | head -c 60; exit 255; }')
    result = fleet.host("run", "--", COUNT)
    assert (result["status"], result["output"], result["attempts"]) == ("changed", "x\n", 2)


def test_a_command_that_still_runs_is_followed(fleet: Fleet) -> None:
    fleet.trouble(
        "pi-1",
        '[ -e once ] || { touch once; (sh -c "$1" >/dev/null 2>&1 &); until [ -e began ]; do :; done; exit 255; }',
    )
    result = fleet.host("run", "--", f"touch began; sleep 1; {COUNT}")
    assert (result["output"], result["attempts"]) == ("x\n", 2)


def test_a_board_that_restarted_in_the_middle_says_so_and_nothing_is_run_again(fleet: Fleet) -> None:
    fleet.host("run", "--operation", "abc", "--", COUNT)
    run = operation(fleet.home("pi-1")) / "run"
    (run / "rc").unlink()
    (run / "boot").write_text("another boot\n")
    result = fleet.host("run", "--operation", "abc", "--", COUNT)
    assert result["status"] == "failed"
    assert "cut off on the board" in result["message"]
    assert (fleet.home("pi-1") / "count").read_text() == "x\n"


def test_who_does_not_wait_hears_of_an_operation_that_was_cut_off(fleet: Fleet) -> None:
    words = ("train", "--detach", "--operation", "abc")
    assert fleet.host(*words)["message"] == "begun; it goes on there"
    run = operation(fleet.home("pi-1")) / "run"
    wait_for(run / "rc")
    (run / "rc").unlink()
    (run / "boot").write_text("another boot\n")
    result = fleet.host(*words)
    assert (result["status"], "cut off on the board" in result["message"]) == ("failed", True)


def test_what_has_only_just_begun_is_stopped_all_the_same(tmp_path: Path) -> None:
    """On a slow board the folder is there for a while before the process has a number."""
    run = operation(tmp_path) / "run"
    run.mkdir(parents=True)
    (run / "boot").write_text(Path("/proc/sys/kernel/random/boot_id").read_text())
    with subprocess.Popen([*board(tmp_path), "stop", "n0", "", "abc", "9"], stdout=subprocess.PIPE) as stopping:
        time.sleep(1)
        with subprocess.Popen(["sleep", "60"]) as command:
            began = Path(f"/proc/{command.pid}/stat").read_text().rpartition(")")[2].split()[19]
            (run / "pid").write_text(f"{command.pid} {began}\n")
            code = command.wait(timeout=60)
            (run / "rc").write_text("143\n")
        said, _ = stopping.communicate(timeout=60)
    assert (code, b"end 143 stopped" in said) == (-signal.SIGTERM, True)


def test_a_command_that_takes_too_long_is_ended_on_the_board(fleet: Fleet) -> None:
    result = fleet.host("run", "--timeout", "1", "--", "sleep 60; touch late")
    assert (result["status"], result["rc"]) == ("failed", 124)


def test_what_takes_too_long_has_ended_when_that_is_told(fleet: Fleet) -> None:
    fleet.home("pi-1").mkdir()
    write_program(fleet.home("pi-1") / "slow", "#!/bin/sh\ntrap 'sleep 2; touch ended; exit 1' TERM\nsleep 60 & wait\n")
    result = fleet.host("run", "--timeout", "1", "--", "./slow; touch went-on")
    assert (result["status"], result["rc"]) == ("failed", 124)
    assert (fleet.home("pi-1") / "ended").exists()
    assert not (fleet.home("pi-1") / "went-on").exists()


def test_megabytes_of_output_are_cut_and_counted(fleet: Fleet) -> None:
    result = fleet.host("run", "--", "head -c 5000000 /dev/zero | tr '\\0' 'x'")
    assert (len(result["output"]), result["truncated"]) == (1 << 20, True)


@pytest.mark.parametrize(
    "words",
    [
        ["printf '%s|' \"it's\" 'a \"b\"' '$HOME' 'new\nline' '-n' 'ü'"],
        ["printf", "%s|", "it's", 'a "b"', "$HOME", "new\nline", "-n", "ü"],
    ],
)
def test_quotes_newlines_and_dollars_arrive_as_they_are(fleet: Fleet, words: list[str]) -> None:
    assert fleet.host("run", "--", *words)["output"] == 'it\'s|a "b"|$HOME|new\nline|-n|ü|'


def test_what_a_command_leaves_in_the_background_does_not_hold_the_connection(fleet: Fleet) -> None:
    assert fleet.host("run", "--", "sleep 30 & echo done")["output"] == "done\n"


def test_a_full_disk_there_is_named(fleet: Fleet) -> None:
    fleet.home("pi-1").mkdir()
    (fleet.home("pi-1") / ".local").write_text("no folder")  # what mkdir says of it stands for what it says of any
    result = fleet.host("run", "--", COUNT)
    assert result["status"] == "failed"
    assert "mkdir" in result["message"]


def board(home: Path) -> list[str]:
    """What ssh runs on a board, but for what is asked of it."""
    start = f'cd {home}; script=$1; shift; eval "$script"'
    return ["env", "-u", "XDG_STATE_HOME", f"HOME={home}", "sh", "-c", start, "edgectl-fleet", script()]


def payload_call(home: Path, size: int, digest: str) -> list[str]:
    words = ["do", "n0", "", "abc", "60", "1000", digest, str(size), "no", "cat > got; wc -c < got"]
    return [*board(home), *words]


def test_what_is_half_sent_is_not_sent_again(tmp_path: Path) -> None:
    content = bytes(range(256)) * 1000
    line = payload_call(tmp_path, len(content), hashlib.sha256(content).hexdigest())
    first = subprocess.run(line, input=content[:100_000], capture_output=True, check=True)
    assert b"send 0\n" in first.stdout
    assert b"end 1 cut 100000 of 256000" in first.stdout
    second = subprocess.run(line, input=content[100_000:], capture_output=True, check=True)
    assert b"send 100000\n" in second.stdout
    assert (tmp_path / "got").read_bytes() == content


def test_what_arrives_damaged_is_refused_and_sent_anew(tmp_path: Path) -> None:
    line = payload_call(tmp_path, 5, "0" * 64)
    for _ in range(2):
        said = subprocess.run(line, input=b"other", capture_output=True, check=True).stdout
        assert b"send 0\n" in said
        assert b"end 1 damaged" in said
    assert not (tmp_path / "got").exists()


def test_the_receiver_of_a_dead_connection_makes_room_for_the_next(tmp_path: Path) -> None:
    content = bytes(range(256)) * 1000
    line = payload_call(tmp_path, len(content), hashlib.sha256(content).hexdigest())
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as dead:
        assert dead.stdin is not None
        dead.stdin.write(content[:100_000])
        dead.stdin.flush()
        part = operation(tmp_path) / "part"
        wait_for(part)
        while part.stat().st_size < 4096:
            time.sleep(0.05)
        with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as second:
            assert second.stdin is not None
            assert second.stdout is not None
            sent = next(line for line in second.stdout if b" send " in line)
            have = int(sent.split()[-1])
            second.stdin.write(content[have:])
            second.stdin.close()
            assert b"did" in second.stdout.read()
        dead.stdin.close()
    assert 4096 <= have <= 100_000
    assert (tmp_path / "got").read_bytes() == content


def test_a_payload_leaves_the_disk_as_soon_as_it_is_read(tmp_path: Path) -> None:
    line = payload_call(tmp_path, 6, hashlib.sha256(b"secret").hexdigest())
    subprocess.run(line, input=b"secret", capture_output=True, check=True)
    (tmp_path / "got").unlink()
    left = [path for path in tmp_path.rglob("*") if path.is_file() and b"secret" in path.read_bytes()]
    assert left == []
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.rglob("edgectl-fleet/**/*"))


def test_what_runs_there_has_the_mask_of_who_logs_in(fleet: Fleet) -> None:
    fleet.trouble("pi-1", "umask 027")
    assert fleet.host("run", "--", "umask")["output"] == "0027\n"


def test_an_operation_of_long_ago_is_not_done_again_and_others_of_then_go(fleet: Fleet) -> None:
    for name in ("abc", "old"):
        fleet.host("run", "--operation", name, "--", COUNT)
    for path in operation(fleet.home("pi-1")).parent.iterdir():
        os.utime(path, (0, 0))
    assert fleet.host("run", "--operation", "abc", "--", COUNT)["output"] == "x\n"
    assert sorted(path.name for path in operation(fleet.home("pi-1")).parent.iterdir()) == ["abc"]


def test_a_process_that_only_has_the_same_number_is_not_stopped(fleet: Fleet) -> None:
    fleet.host("run", "--operation", "abc", "--", COUNT)
    run = operation(fleet.home("pi-1")) / "run"
    (run / "rc").unlink()
    with subprocess.Popen(["sleep", "60"]) as innocent:
        (run / "pid").write_text(f"{innocent.pid} 1\n")
        words = [*board(fleet.home("pi-1")), "stop", "n0", "", "abc", "2"]
        said = subprocess.run(words, capture_output=True, check=True).stdout
        assert b"end 1 broken" in said
        assert innocent.poll() is None
        innocent.terminate()


def test_what_came_in_twice_at_once_is_sent_anew(tmp_path: Path) -> None:
    line = payload_call(tmp_path, 5, hashlib.sha256(b"whole").hexdigest())
    operation(tmp_path).mkdir(parents=True)
    (operation(tmp_path) / "part").write_bytes(b"whole and more")
    assert b"send 0\n" in subprocess.run(line, input=b"whole", capture_output=True, check=True).stdout
    assert (tmp_path / "got").read_bytes() == b"whole"
