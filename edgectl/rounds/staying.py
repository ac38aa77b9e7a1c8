"""Stay in rounds for a while: each task is asked again when its own time has come, and no failure ends the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from edgectl.rounds.joining import Outcome

Due = Callable[[str], bool]


@dataclass
class Stay:
    """played: turns that came to something, in their order; last: the last word on each task, and next_at: when it may
    be asked again, by the clock."""

    played: list[Outcome] = field(default_factory=list)
    last: dict[str, Outcome] = field(default_factory=dict)
    next_at: dict[str, float] = field(default_factory=dict)

    @property
    def turns(self) -> list[Outcome]:
        """All that came to something, and what the other tasks wait for."""
        there = {id(one) for one in self.played}
        return [*self.played, *(one for one in self.last.values() if id(one) not in there)]

    @property
    def failed(self) -> Outcome | None:
        """The first task whose last turn failed."""
        return next((one for one in self.last.values() if one.code), None)

    def wait_s(self, now: float) -> float:
        """Until the next task is due; infinite where there is none."""
        return max(0.0, min(self.next_at.values(), default=float("inf")) - now)

    def due(self, task: str, now: float) -> bool:
        return now >= self.next_at.get(task, now)

    def hear(self, made: list[Outcome], asked: float, now: float) -> None:
        """Turns of the tasks that were due when they were asked; one that is not among them has gone."""
        self.next_at = {task: at for task, at in self.next_at.items() if at > asked}
        for one in made:
            self.last[one.task], self.next_at[one.task] = one, now + one.wait_s
            if one.state != "waiting" or one.earlier:
                self.played.append(one)


def stay(
    take: Callable[[Due], list[Outcome]],
    *,
    until: float,
    clock: Callable[[], float],
    pause: Callable[[float], bool],
    tell: Callable[[Outcome], None],
) -> Stay:
    """Turns until then, by the clock, one of each task at the least. take: turns of the tasks that are due; pause:
    sleep that long, and say whether to stop; tell: of a turn after which it goes on."""
    stayed = Stay()
    while True:
        asked = clock()
        made = take(partial(stayed.due, now=asked))
        stayed.hear(made, asked, clock())
        wait_s = stayed.wait_s(clock())
        if clock() + wait_s >= until:
            return stayed
        for one in made:
            if one.state != "waiting":
                tell(one)
        if pause(wait_s):
            return stayed
