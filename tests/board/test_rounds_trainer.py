"""The process that trains turn after turn: it stays, it may be killed, and what it refuses is an answer."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgectl.rounds.trainer import Trainer, serve
from edgewire.errors import Busy, NotEnrolled

ROOT = Path(__file__).parents[2]
ENDLESS = ("data", "add", "-")  # says nothing until its input ends


@pytest.fixture
def trainer(tmp_path: Path) -> Iterator[Trainer]:
    """Of a board that is not enrolled: each turn is refused, without torch."""
    made = Trainer(tmp_path, lambda: False)
    yield made
    made.close()


def process_of(trainer: Trainer) -> subprocess.Popen[bytes]:
    assert trainer._process is not None
    return trainer._process


def test_the_second_turn_is_trained_by_the_process_of_the_first(trainer: Trainer) -> None:
    first, process = trainer.turn("toy", 60.0, lambda: False), process_of(trainer)
    assert (first.code, first.report) == (NotEnrolled.exit_code, {})
    assert "not enrolled" in first.said
    assert trainer.turn("toy", 60.0, lambda: False) == first
    assert process_of(trainer) is process


def test_it_says_whether_the_process_is_there(trainer: Trainer) -> None:
    assert not trainer.running
    trainer.turn("toy", 60.0, lambda: False)
    assert trainer.running
    trainer.close()
    assert not trainer.running


def test_a_process_that_was_killed_is_followed_by_another(trainer: Trainer) -> None:
    first, process = trainer.turn("toy", 60.0, lambda: False), process_of(trainer)
    process.kill()
    process.wait(10)
    assert trainer.turn("toy", 60.0, lambda: False) == first
    assert process_of(trainer) is not process


def test_who_lets_it_go_gets_another_with_the_next_turn(trainer: Trainer) -> None:
    trainer.turn("toy", 60.0, lambda: False)
    process = process_of(trainer)
    trainer.close()
    assert process.returncode == 0
    assert trainer.turn("toy", 60.0, lambda: False).code == NotEnrolled.exit_code


@pytest.mark.parametrize(
    ("stopped", "unwanted", "limit_s"), [(True, False, 60.0), (False, True, 60.0), (False, False, 0.0)]
)
def test_a_turn_that_is_not_wanted_any_more_is_ended(
    tmp_path: Path, stopped: bool, unwanted: bool, limit_s: float
) -> None:
    endless = Trainer(tmp_path, lambda: stopped, command=ENDLESS)
    assert endless.turn("toy", limit_s, lambda: unwanted).code in (0, 130, -signal.SIGTERM)


def test_a_second_signal_does_not_wait_for_the_training(tmp_path: Path) -> None:
    def interrupted() -> bool:
        raise KeyboardInterrupt

    endless = Trainer(tmp_path, lambda: False, command=ENDLESS)
    with pytest.raises(KeyboardInterrupt):
        endless.turn("toy", 60.0, interrupted)
    assert process_of(endless).wait(10) == -signal.SIGKILL
    endless.close()


def test_what_cannot_be_understood_ends_the_process_with_its_last_words(tmp_path: Path) -> None:
    done = Trainer(tmp_path, lambda: False, command=("round", "nothing")).turn("toy", 60.0, lambda: False)
    assert done.code == 2
    assert done.said


def answers(*tasks: str, train: Any) -> list[dict[str, Any]]:
    written = io.StringIO()
    serve((f"{task}\n" for task in tasks), written, train)
    return [json.loads(line) for line in written.getvalue().splitlines()]


def test_what_libraries_print_is_no_answer() -> None:
    script = "from edgectl.rounds.trainer import only_answers; a = only_answers(); print('noise'); a.write('answer')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert (done.stdout, done.stderr) == ("answer", "noise\n")


def test_each_line_is_a_turn() -> None:
    told = answers("one", "two", train=lambda task: {"task": task})
    assert told == [{"code": 0, "report": {"task": task}, "said": "", "retry_s": None} for task in ("one", "two")]


def test_a_refusal_is_answered_and_a_stop_ends_it() -> None:
    def train(task: str) -> dict[str, Any]:
        busy = Busy("another process is at it", hint="wait", retry_after_s=60.0)
        raise busy if task == "busy" else KeyboardInterrupt

    assert answers("busy", train=train) == [
        {"code": Busy.exit_code, "report": {}, "said": "another process is at it; wait", "retry_s": 60.0}
    ]
    with pytest.raises(KeyboardInterrupt):
        answers("stopped", train=train)
