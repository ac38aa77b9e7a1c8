"""What the updates of a board reveal, as `edgectl status` shows it."""

from __future__ import annotations

import json

import pytest

from edgectl.rounds import ledger
from edgectl.store import Store
from edgelearn.privacy.accountant import gaussian_epsilon
from tests.board.conftest import Board


def test_updates_with_noise_compose_and_what_went_without_has_no_bound() -> None:
    told = ledger.told([2.0, 2.0, 0.0, 2.0])
    assert told is not None
    assert (told["updates"], told["noised"], told["delta"]) == (4, 3, 1e-5)
    assert told["epsilon"] == pytest.approx(gaussian_epsilon(2.0, 3, 1e-5), abs=1e-4)
    said = "4 updates sent, 3 with noise of this board's own: ε 3.66 at δ 1e-05; nothing bounds what 1 of them reveal"
    assert ledger.line({**told, "epsilon": 3.66}) == said


@pytest.mark.parametrize("noises", [[0.0], [0.001]])
def test_no_noise_and_next_to_none_are_no_bound(noises: list[float]) -> None:
    told = ledger.told(noises)
    assert told is not None
    assert told["epsilon"] is None
    assert "nothing bounds what 1 of them reveal" in ledger.line(told)


def test_tasks_of_one_owner_are_added_up() -> None:
    together = ledger.told_of_all({"one": [3.0], "two": [3.0]})
    assert together is not None
    assert together["epsilon"] == pytest.approx(gaussian_epsilon(3.0, 2, 1e-5), abs=1e-4)
    assert ledger.told_of_all({"one": [3.0, 3.0]}) is None
    assert ledger.told([]) is None


def test_status_shows_what_rounds_cost(board: Board) -> None:
    assert json.loads(board.edgectl("status", "--json").stdout)["rounds"] is None
    with Store.open(board.home.database) as store:
        for number, task in enumerate(("gestures", "gestures", "former")):
            store.note_update(task, f"{number:032x}", "0" * 16, 1, 4.0, 100.0)
    report = json.loads(board.edgectl("status", "--json").stdout)
    rounds = {task["task"]: task["rounds"] for task in report["tasks"]}
    assert rounds["gestures"] == ledger.told([4.0, 4.0])
    assert (rounds["former"]["updates"], report["rounds"]) == (1, ledger.told([4.0] * 3))
    said = board.edgectl("status").stdout.decode()
    assert f"  rounds: {ledger.line(rounds['gestures'])}\n" in said
    assert "rounds of all tasks together: 3 updates sent, 3 with noise" in said
