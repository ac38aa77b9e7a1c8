"""Staying in rounds: every task has its own time, no failure ends the others, and all that was played is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from edgectl.rounds.joining import Outcome
from edgectl.rounds.staying import Due, Stay, stay


@dataclass
class Board:
    """What comes of each task's turns, one after the other, the last for ever; when it was asked."""

    turns: Mapping[str, Sequence[Callable[[str], Outcome]]]
    now: float = 0.0
    stops_at: float = float("inf")
    asked: list[tuple[float, str]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def take(self, due: Due) -> list[Outcome]:
        made = []
        for task, turns in self.turns.items():
            if due(task) and turns:
                before = sum(name == task for _, name in self.asked)
                self.asked.append((self.now, task))
                made.append(turns[min(before, len(turns) - 1)](task))
        return made

    def pause(self, seconds: float) -> bool:
        self.now += seconds
        return self.now >= self.stops_at

    def stays(self, seconds: float) -> Stay:
        def tell(one: Outcome) -> None:
            self.told.append(one.state)

        return stay(self.take, until=seconds, clock=lambda: self.now, pause=self.pause, tell=tell)


def turn(state: str, wait_s: float, *, code: int = 0, earlier: bool = False) -> Callable[[str], Outcome]:
    return lambda task: Outcome(task, state, wait_s=wait_s, code=code, earlier=earlier)


def test_each_task_is_asked_when_its_own_time_has_come() -> None:
    board = Board({"one": [turn("waiting", 10.0)], "two": [turn("waiting", 25.0)]})
    board.stays(60.0)
    assert [at for at, task in board.asked if task == "one"] == [0, 10, 20, 30, 40, 50]
    assert [at for at, task in board.asked if task == "two"] == [0, 25, 50]


def test_an_outage_ends_nothing_and_no_turn_is_lost() -> None:
    board = Board({"one": [turn("sent", 1.0), turn("failed", 30.0, code=3), turn("sent", 100.0)]})
    stayed = board.stays(60.0)
    assert [one.state for one in stayed.turns] == ["sent", "failed", "sent"]
    assert (stayed.failed, board.told) == (None, ["sent", "failed"])


def test_an_outage_that_lasts_is_the_last_word() -> None:
    stayed = Board({"one": [turn("sent", 1.0), turn("failed", 30.0, code=3)]}).stays(20.0)
    assert [one.state for one in stayed.turns] == ["sent", "failed"]
    assert stayed.failed is not None
    assert stayed.failed.code == 3


def test_one_tasks_bad_data_keeps_no_other_from_its_turns() -> None:
    bad, good = [turn("failed", 60.0, code=8)], [turn("sent", 5.0)]
    board = Board({"one": bad, "two": good})
    stayed = board.stays(20.0)
    assert [one.state for one in stayed.turns if one.task == "two"] == ["sent"] * 4
    assert stayed.failed is not None
    assert (stayed.failed.task, stayed.failed.code) == ("one", 8)


def test_what_tasks_wait_for_is_told_once_and_an_earlier_update_always() -> None:
    first, later = turn("waiting", 10.0, earlier=True), turn("waiting", 10.0)
    stayed = Board({"one": [first, later], "two": [later]}).stays(35.0)
    assert [(one.task, one.earlier) for one in stayed.turns] == [("one", True), ("one", False), ("two", False)]


def test_once_is_one_turn_and_a_stop_ends_it() -> None:
    once = Board({"one": [turn("sent", 0.0)]})
    assert len(once.stays(0.0).turns) == 1
    stopped = Board({"one": [turn("waiting", 10.0)]}, stops_at=20.0)
    stopped.stays(1e9)
    assert stopped.now == 20.0


def test_a_task_that_is_gone_is_not_waited_for() -> None:
    board = Board({"one": []})
    assert board.stays(60.0).turns == []
    gone: dict[str, list[Callable[[str], Outcome]]] = {"one": [turn("sent", 5.0)]}
    leaving = Board(gone)

    def take(due: Due) -> list[Outcome]:
        made = leaving.take(due)
        gone.clear()
        return made

    stayed = stay(take, until=60.0, clock=lambda: leaving.now, pause=leaving.pause, tell=lambda one: None)
    assert [one.state for one in stayed.turns] == ["sent"]
    assert (leaving.now, stayed.next_at) == (5.0, {})
