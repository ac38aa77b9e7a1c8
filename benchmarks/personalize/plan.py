"""What is to be measured, in which order, and under which digest, so that rows of other code or data are never mixed
in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks.personalize.work import Place
from benchmarks.protocols import MIN_LOCAL_ROWS, MIN_TEST_ROWS, SHARES, Board, Fold, folds
from edgelearn.personalize.recipes import applicable
from edgewire.decoding import encode, plain

ROOT = Path(__file__).resolve().parents[2]
PER_CLASS = (1, 3, 10)
# `local` alone is measured here, too: how many labels would it need to be as good?
LADDER, PERCENT_LADDER = (1, 2, 3, 5, 7, 10, 20, 30), (5, 10, 20, 35, 50, 70)
IN_PERCENT = ("amazon", "movielens")  # shots: the share of the user's rows, the earliest ones, that is local
_WORK = "benchmarks/personalize/work.py"
_DECIDES_BASE = ("edgelearn/*.py", "edgelearn/models/*.py", "edgelearn/retrieval/*.py", "edgewire/samples.py", _WORK)
_DECIDES_ALL = ("edgelearn/personalize/*.py", "edgectl/material.py")


@dataclass(frozen=True)
class Wanted:
    """The choices of whoever asks. shots: None takes the data set's own; boards, folds: at most so many (0: all)."""

    data: tuple[str, ...]
    shots: tuple[int, ...] | None
    seeds: int
    boards: int
    folds: int
    recipes: tuple[str, ...]

    def shots_of(self, data: str) -> tuple[int, ...]:
        return self.shots or (SHARES if data in IN_PERCENT else PER_CLASS)

    def ladder_of(self, data: str) -> tuple[int, ...]:
        rungs = PERCENT_LADDER if data in IN_PERCENT else LADDER
        return tuple(sorted({*rungs, *self.shots_of(data)}))


@dataclass(frozen=True)
class Game:
    """One board at one number of shots. number: in its fold; top: its highest rung; whole: every recipe, or `local`
    only; recipes: those of them that the task has."""

    place: Place
    number: int
    board: str
    shots: int
    top: int
    whole: bool
    recipes: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """games: in the order in which they are played; left_out: (data, seed) -> users with too few rows."""

    games: tuple[Game, ...]
    left_out: dict[tuple[str, int], int]

    @property
    def codes(self) -> set[str]:
        return {game.place.code for game in self.games}


def make_plan(wanted: Wanted) -> Plan:
    """All games, those of the first seed first: what is there when a run is cut off covers all users."""
    games: list[Game] = []
    left_out: dict[tuple[str, int], int] = {}
    base, everything = _code(_DECIDES_BASE), _code((*_DECIDES_BASE, *_DECIDES_ALL))
    for data in wanted.data:
        for seed in range(wanted.seeds):
            for number, fold in enumerate(folds(data, seed)):
                if wanted.folds and number >= wanted.folds:
                    break
                about = _content(fold)
                code = _digest(everything, about, seed, wanted.ladder_of(data))
                place = Place(data, seed, number, _digest(base, about, seed), code)
                left_out[data, seed] = left_out.get((data, seed), 0) + fold.left_out
                games += _games(wanted, place, fold)
    return Plan(tuple(sorted(games, key=lambda game: game.place.seed)), left_out)


def _games(wanted: Wanted, place: Place, fold: Fold) -> Iterator[Game]:
    there = tuple(name for name in wanted.recipes if name in ("auto", *applicable(fold.task)))
    for number, board in enumerate(fold.boards[: wanted.boards or None]):
        rungs = climb(board, wanted.ladder_of(place.data))
        for shots in rungs:
            whole = shots in wanted.shots_of(place.data)
            yield Game(place, number, board.name, shots, rungs[-1], whole, there if whole else ("local",))


def climb(board: Board, ladder: Sequence[int]) -> list[int]:
    """The rungs at which a board has enough local rows, more than at the rung before, and enough rows to test on."""
    rungs: list[int] = []
    most = MIN_LOCAL_ROWS - 1
    for shots in ladder:
        local = len(board.local(shots))
        if local > most and len(board.held_out(shots)) >= MIN_TEST_ROWS:
            rungs.append(shots)
            most = local
    return rungs


def _code(patterns: Sequence[str]) -> str:
    """Digest of source files and of the libraries that compute."""
    files = sorted({path for pattern in patterns for path in ROOT.glob(pattern)})
    parts: list[object] = [version("torch"), version("numpy")]
    return _digest(*parts, *(path.read_bytes() for path in files))


def _content(fold: Fold) -> str:
    """Digest of a fold's task and arrays."""
    whole = hashlib.sha256(encode([plain(fold.task), fold.epochs]))
    group = np.zeros(0) if fold.group is None else fold.group
    arrays = [fold.x, fold.y, fold.user, group]
    for board in fold.boards:
        arrays += [board.x, board.y, board.group, board.test, *(rows for _, rows in sorted(board.order.items()))]
    for array in arrays:
        whole.update(f"{array.dtype}{array.shape}".encode())
        whole.update(np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()


def _digest(*parts: object) -> str:
    whole = hashlib.sha256()
    for part in parts:
        raw = part if isinstance(part, bytes) else str(part).encode()
        whole.update(f"{len(raw)}:".encode() + raw)
    return whole.hexdigest()[:16]
