"""Hundreds of boards in one process: one model, and samples dealt to whoever is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import nn

from edgelearn.federated.arrays import Arrays
from edgelearn.federated.fedsubavg import involvement
from edgelearn.federated.mutual import Classroom
from edgelearn.federated.splits import Part
from edgelearn.learner import TorchLearner, bind, trained, weights_of
from edgelearn.metrics import log_losses, score
from edgelearn.models.build import EVALUATED_ROWS, outputs, tables
from edgelearn.submodel import submodel, touched
from edgewire.tasks import Metric


class Crowd:
    """x (n, *shape), y int64 (n,): everybody's samples, kept once; parts: what each board has of them; test: samples
    that no board has; trusted: others, which the server has; peer: a model that learns with the boards' on those."""

    def __init__(
        self,
        model: nn.Module,
        x: np.ndarray,
        y: np.ndarray,
        parts: Sequence[Part],
        test: tuple[np.ndarray, np.ndarray],
        *,
        trusted: tuple[np.ndarray, np.ndarray] | None = None,
        peer: nn.Module | None = None,
        metric: Metric = "accuracy",
    ) -> None:
        self.boards = [f"board-{number}" for number in range(len(parts))]
        self._parts = dict(zip(self.boards, parts, strict=True))
        self._model, self._x, self._y = model, x, y
        self._test_x, self._test_y = test
        self._trusted, self.peer = trusted, peer
        self._peer_start = weights_of(peer) if peer is not None else {}
        self._metric = metric
        self._rows: dict[str, Arrays] = {}

    def weights(self) -> Arrays:
        """Where the first round starts: the model's own weights, as it was made."""
        return weights_of(self._model)

    def learner(self, board: str, rows: Mapping[str, np.ndarray] | None = None) -> TorchLearner:
        """rows: those of tables that the board holds, by table; none: the whole model."""
        model = submodel(self._model, rows) if rows else self._model
        return TorchLearner(model, *self._parts[board].samples(self._x, self._y))

    def rows(self, board: str) -> Arrays:
        """Which rows of tables the board's samples touch, by table: ids, int64 and ascending."""
        if board not in self._rows:
            self._rows[board] = touched(self._model, self._parts[board].samples(self._x, self._y)[0])
        return self._rows[board]

    def involved(self) -> Arrays:
        """By table, for each row the samples of all boards that touch it; see `federated.fedsubavg`."""
        return {
            name: involvement(((self.rows(b)[name], self.samples(b)) for b in self.boards), rows=len(table))
            for name, table in tables(self._model).items()
        }

    def samples(self, board: str) -> int:
        return len(self._parts[board].rows)

    def mean_label(self, board: str) -> float:
        """Of the board's samples, as all name them: who has low labels may be online when others are not."""
        return float(self._y[self._parts[board].rows].mean())

    @property
    def test_batches(self) -> int:
        """Into how many parts the test can be cut at most."""
        return max(1, -(-len(self._test_x) // EVALUATED_ROWS))

    def logits(self, weights: Mapping[str, np.ndarray], part: int = 0, of: int = 1) -> np.ndarray:
        """On the test samples, or on one part `of` so many, test_batches at most (n, classes). Parts one after the
        other are the bits of the whole."""
        first, end = (EVALUATED_ROWS * (self.test_batches * number // of) for number in (part, part + 1))
        return self._outputs(weights, self._test_x[first:end])

    def score(self, logits: np.ndarray) -> float:
        """The task's metric of such logits, 0..1."""
        return score(self._metric, logits, self._test_y)

    def value(self, weights: Mapping[str, np.ndarray]) -> float:
        """How good weights are by the server's own samples, which are not those of the test: minus the mean log-loss.
        Raises ValueError where it has none."""
        if self._trusted is None:
            raise ValueError("the server has no samples of its own to judge by")
        x, y = self._trusted
        return -float(log_losses(self._outputs(weights, x), y).mean())

    def classroom(self) -> Classroom:
        """See `federated.mutual`. Raises ValueError where there is no peer, or nothing to learn on."""
        if self.peer is None or self._trusted is None:
            raise ValueError("there is no peer to learn with, or nothing to learn on")
        x, y = self._trusted
        return Classroom(TorchLearner(self._model, x, y), TorchLearner(self.peer, x, y), y, self._peer_start)

    def peer_score(self, weights: Mapping[str, np.ndarray]) -> float:
        """The task's metric of the peer with such weights, on the test samples, 0..1."""
        if self.peer is None:
            raise ValueError("there is no peer")
        return self.score(TorchLearner(self.peer, self._test_x, self._test_y).logits(weights))

    def _outputs(self, weights: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
        bind(trained(self._model), {name: np.require(array, requirements="W") for name, array in weights.items()})
        return outputs(self._model, x)[0]
