"""How the demo and the benchmarks deal data to pool and boards: nobody's test rows anywhere else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import protocols
from demo import data
from demo.report import BoardResult, sentences, table, write


def test_every_digit_is_dealt_to_exactly_one_person() -> None:
    problem = data.load(None, boards=6, seed=0)
    assert len(problem.rows["y"]) == 1797
    assert "SIMULATED" in problem.about
    people = {str(user) for user in problem.rows["user"]}
    assert (len(people), len(problem.boards)) == (24, 6)
    local = problem.rows["part"] == "local"
    for board in problem.boards:
        mine = problem.rows["y"][local & (problem.rows["user"] == board)]
        assert np.bincount(mine).tolist() == [data.SHOTS] * 10


def test_boards_and_pool_never_share_a_user(tmp_path: Path) -> None:
    problem = data.load(None, boards=6, seed=1)
    pool, boards = problem.write(tmp_path)
    with np.load(pool) as file:
        assert not {str(user) for user in file["user"]} & set(boards)
        assert set(file["part"]) == {"pool"}


def test_a_file_without_parts_is_dealt_by_user(tmp_path: Path) -> None:
    user = np.repeat([f"Käthe {i}" for i in range(8)], 60)
    path = tmp_path / "mine.npz"
    np.savez(path, x=np.zeros((480, 3), np.float32), y=np.tile(["a", "b"], 240), user=user)
    problem = data.load(str(path), boards=3, seed=0)
    assert len(problem.boards) == 3
    assert dict(data.counts(problem)) == {"pool": 300, "local": 18, "test": 162}
    assert all(name.isascii() or name.isalnum() or "-" in name for name in problem.boards)


def test_a_file_that_cannot_serve_is_refused_with_what_it_lacks(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 2)), y=np.zeros(4))
    with pytest.raises(ValueError, match="needs columns x, y and user"):
        data.load(str(tmp_path / "a.npz"), boards=2, seed=0)
    with pytest.raises(ValueError, match="no file"):
        data.load(str(tmp_path / "b.npz"), boards=2, seed=0)


def result(board: str, **changes: float) -> BoardResult:
    accuracies = {"base": 0.5, "local": 0.6, "random": 0.55, "mpda": 0.7, "shipped": 0.7, **changes}
    return BoardResult(
        board=board,
        mode="directory",
        **accuracies,
        shipped_recipe="mpda",
        candidates=50,
        kept=20,
        contributors="1 of 3",
        bytes_down=2048,
        seconds=1.5,
        local_samples=30,
        test_samples=40,
    )


def test_the_report_has_the_promised_fields_and_honest_sentences(tmp_path: Path) -> None:
    results = [result("one"), result("two", shipped=0.4)]
    path = write(results, "<Digits>", "About & more.", tmp_path / "out")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    page = path.read_text()
    assert "&lt;Digits&gt;" in page
    assert "About &amp; more." in page
    assert "1 of 2 boards got worse than the base (two)" in page
    assert "//" not in page.replace("<!doctype", "")
    assert report["mean"] == {"base": 0.5, "local": 0.6, "random": 0.55, "mpda": 0.7, "shipped": 0.55}
    promised = {
        "board",
        "mode",
        "base",
        "local",
        "random",
        "mpda",
        "shipped",
        "candidates",
        "kept",
        "bytes_down",
        "seconds",
    }
    assert promised <= report["boards"][0].keys()
    assert "1 of 2 boards got worse than the base (two)" in sentences(results)
    assert "mean" in table(results).splitlines()[-1]


@pytest.mark.parametrize("name", ["wisdm", "myo", "mnist"])
def test_shots_are_nested_and_no_recording_is_on_both_sides(name: str) -> None:
    try:
        fold = next(iter(protocols.folds(name, seed=0)))
    except ValueError as missing:
        pytest.skip(str(missing))
    for board in fold.boards[:5]:
        assert set(board.local(1)) <= set(board.local(3)) <= set(board.local(10))
        assert not set(board.group[board.local(3)]) & set(board.group[board.held_out(3)])
        assert len(board.held_out(3)) >= protocols.MIN_TEST_ROWS
