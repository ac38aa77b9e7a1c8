"""Boards on several processes of this machine: the same bits as in one, sooner."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import ClassVar

import numpy as np

from cloud_aug.simulation.boards import Answer, Asked, Boards
from edgewire.errors import Offline
from edgewire.tensors import Arrays


class Processes:
    """`count` processes, each with all boards of the simulation in memory, until the context ends. They start with the
    first round."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._boards: Boards | None = None
        self._pool: ProcessPoolExecutor | None = None

    def turns(self, boards: Boards, asked: Iterable[Asked]) -> Iterator[tuple[str, Answer]]:
        """See Players. Twice as many turns are under way as there are processes, so memory does not grow with the
        round. Raises Offline if a process was killed."""
        pool, waiting = self._pool_of(boards), deque[tuple[str, Future[Answer]]]()
        try:
            for one in asked:
                waiting.append((one.board, pool.submit(_Worker.turn, one)))
                if len(waiting) >= 2 * self._count:
                    yield _arrived(*waiting.popleft())
            while waiting:
                yield _arrived(*waiting.popleft())
        except BrokenProcessPool:
            raise _killed() from None
        finally:
            for _, turn in waiting:
                turn.cancel()

    def logits(self, boards: Boards, weights: Mapping[str, np.ndarray]) -> np.ndarray:
        """See Players. Raises Offline if a process was killed."""
        pool = self._pool_of(boards)
        count = min(self._count, boards.crowd.test_batches)
        try:
            parts = [pool.submit(_Worker.logits, dict(weights), part, count) for part in range(count)]
            return np.concatenate([part.result() for part in parts])
        except BrokenProcessPool:
            raise _killed() from None

    def _pool_of(self, boards: Boards) -> ProcessPoolExecutor:
        if self._pool is None or self._boards is not boards:
            self._stop()
            # a fork of a process with torch's threads may hang
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._count, context, initializer=_Worker.start, initargs=(boards,))
            self._boards = boards
        return self._pool

    def _stop(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._stop()


class _Worker:
    """What such a process knows."""

    boards: ClassVar[Boards]

    @classmethod
    def start(cls, boards: Boards) -> None:
        from edgelearn.device import use_threads

        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of them: whoever started them ends them
        use_threads(1)  # sums depend on how many there are
        cls.boards = boards

    @classmethod
    def turn(cls, asked: Asked) -> Answer:
        return cls.boards.turn(asked)

    @classmethod
    def logits(cls, weights: Arrays, part: int, of: int) -> np.ndarray:
        return cls.boards.crowd.logits(weights, part, of)


def _killed() -> Offline:
    hint = "if memory ran out, take fewer --processes; with --out the same command goes on after the last round"
    return Offline("a process that played boards was killed", hint=hint)


def _arrived(board: str, turn: Future[Answer]) -> tuple[str, Answer]:
    return board, turn.result()
