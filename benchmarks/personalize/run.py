"""Play all games on several processes, keep every row as it comes, and say how long it will take."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.personalize.plan import Game, Plan
from benchmarks.personalize.records import Journal, Peak, Row, Spent
from benchmarks.personalize.work import Place, play, prepare, start_worker

SECONDS_BETWEEN_LINES = 20.0


class Progress:
    """A line now and then: what is done, and how long the rest will take at this speed."""

    def __init__(self, total: float) -> None:
        self.total, self.done = total, 0.0
        self.started = self.told = time.monotonic()

    def advance(self, weight: float, what: str) -> None:
        self.done += weight
        now = time.monotonic()
        if now - self.told >= SECONDS_BETWEEN_LINES or self.done >= self.total:
            self.told = now
            left = (now - self.started) * (self.total / self.done - 1)
            share = 100 * self.done / self.total
            say(f"{share:3.0f} % after {now - self.started:.0f} s, about {left:.0f} s left; last: {what}")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Run:
    """folder: where rows and stages are kept between runs."""

    def __init__(self, folder: Path, recipes: tuple[str, ...], processes: int) -> None:
        self.folder, self.recipes, self.processes = folder, recipes, processes
        self.rows = Journal(folder / "rows.jsonl", Row)
        self.spent = Journal(folder / "spent.jsonl", Spent)
        self.peaks = Journal(folder / "peaks.jsonl", Peak)

    def play(self, plan: Plan, *, until: float = math.inf) -> None:
        """Play what is not in the journal yet; begin nothing new after that moment of the monotonic clock."""
        games = [replace(game, recipes=left) for game in plan.games if (left := self._left(game))]
        strangers = len(self.rows.found) - len(self.rows.of(plan.codes)) + self.rows.unreadable
        if strangers:
            say(f"{self.rows.path}: {strangers} rows of other code, data or settings are left alone")
        if not games:
            return
        say(f"{len(games)} of {len(plan.games)} boards and shots to measure on {self.processes} processes")
        os.environ["OMP_NUM_THREADS"] = "1"  # before a worker imports torch
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(self.processes, mp_context=context, initializer=start_worker) as workers:
            left = self._schedule(workers, games, until=until)
        if left:
            say(f"out of time: {left} boards and shots are left; the same command goes on from here")

    def _left(self, game: Game) -> tuple[str, ...]:
        """The recipes that have not been played."""
        place, trainings = game.place, (0, 1) if game.whole else (0,)
        return tuple(
            name
            for name in game.recipes
            if not all(
                (place.data, game.board, game.shots, place.seed, name, training, place.code) in self.rows.found
                for training in trainings
            )
        )

    def _schedule(self, workers: ProcessPoolExecutor, games: Sequence[Game], *, until: float) -> int:
        """In order, but a game waits for its stage, and meanwhile later ones may start. How many did not."""
        waiting = _queue(games)
        progress = Progress(sum(map(_weight, waiting)))
        ready: set[Place] = set()
        running: dict[Future[Any], Place | Game] = {}
        while running or (waiting and time.monotonic() < until):
            for job in [job for job in waiting if isinstance(job, Place) or job.place in ready]:
                if len(running) >= self.processes or time.monotonic() >= until:
                    break
                waiting.remove(job)
                running[self._submit(workers, job)] = job
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                self._keep(future.result())
                if isinstance(job, Place):
                    ready.add(job)
                progress.advance(_weight(job), _name(job))
        return sum(isinstance(job, Game) for job in waiting)

    def _submit(self, workers: ProcessPoolExecutor, job: Place | Game) -> Future[Any]:
        if isinstance(job, Place):
            return workers.submit(prepare, job, self.folder, rehearsed="auto" in self.recipes)
        what = job.number, job.shots, job.top, job.recipes
        return workers.submit(play, job.place, self.folder, *what, control=job.whole)

    def _keep(self, result: list[Spent] | tuple[list[Row], Spent]) -> None:
        if isinstance(result, tuple):
            for row in result[0]:
                self.rows.add(row)
            self.spent.add(result[1])
        else:
            for spent in result:
                self.spent.add(spent)

    def weigh(self, plan: Plan, *, until: float = math.inf) -> None:
        """Peak memory of every recipe on the first board of each data set, at the most shots that it has; none begins
        after that moment of the monotonic clock."""
        jobs: list[tuple[Game, str]] = []
        for data in dict.fromkeys(game.place.data for game in plan.games):
            mine = [game for game in plan.games if game.place.data == data and game.whole and not self._left(game)]
            if mine:
                game = max(
                    (game for game in mine if game.number == mine[0].number and game.place == mine[0].place),
                    key=lambda game: game.shots,
                )
                jobs += [(game, name) for name in game.recipes if not self._weighed(game, name)]
        if jobs and time.monotonic() < until:
            say(f"peak memory of {len(jobs)} recipes, each in a process of its own")
        with ThreadPoolExecutor(self.processes) as threads:
            for peak in threads.map(lambda job: _weigh(*job, self.folder) if time.monotonic() < until else None, jobs):
                if peak:
                    self.peaks.add(peak)

    def _weighed(self, game: Game, name: str) -> bool:
        return (game.place.data, game.shots, name, game.place.code) in self.peaks.found


def _queue(games: Sequence[Game]) -> list[Place | Game]:
    """Each stage one place earlier than its games need it: nothing else could be played while the last one is made."""
    places = list(dict.fromkeys(game.place for game in games))
    queue: list[Place | Game] = [*places[:1]]
    for number, place in enumerate(places, start=1):
        queue += places[number : number + 1]
        queue += [game for game in games if game.place == place]
    return queue


def _weight(job: Place | Game) -> float:
    return 6.0 if isinstance(job, Place) else 4.0 if job.whole else 0.3


def _name(job: Place | Game) -> str:
    if isinstance(job, Place):
        return f"{job.data}: base and rehearsal of fold {job.fold}, seed {job.seed}"
    return f"{job.place.data}: {job.board} with {job.shots}, seed {job.place.seed}"


def _weigh(game: Game, recipe: str, folder: Path) -> Peak:
    what = json.dumps({**asdict(game), "recipe": recipe, "folder": str(folder)})
    command = [sys.executable, "-m", "benchmarks.personalize.memory", what]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise SystemExit(f"measuring the memory of {recipe} failed:\n{done.stderr}")
    return Peak(game.place.data, game.shots, recipe, float(done.stdout), game.place.code)
