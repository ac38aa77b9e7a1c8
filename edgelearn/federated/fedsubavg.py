"""FedSubAvg: a board pulls and pushes only the rows of tables that its samples touch, and each row's mean is corrected
by how many samples touch it (Ding et al., "Federated submodel optimization for hot and cold data features", NeurIPS
2022; submodels: Niu et al., "Billion-scale federated learning on mobile clients", MobiCom 2020)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from edgelearn.federated.algorithm import LocalSettings, Order, Server, Update
from edgelearn.federated.arrays import Arrays, EmptyRound, plus
from edgelearn.federated.fedavg import FedAvg


@dataclass(frozen=True, kw_only=True)
class FedSubAvg(FedAvg):
    """Row m of a table: x_m ← x_m + η_g · coef_m · Σ_{i∈C} |D_i| Δ_{i,m} / Σ_{i∈C} |D_i|, where coef_m = Σ_all |D_i| /
    Σ_{i involving m} |D_i|. All else is averaged as in FedAvg (coef 1). Plain averaging would move a rare row only by
    the share of the boards that know it.

    involved: by table, for each row the samples of all boards that touch it, Σ_{i involving m} |D_i|, float64 (rows,);
    total_samples: Σ_all |D_i|. With `corrected=False` coef is 1 everywhere: plain averaging, to compare with.

    Two boards of two samples each; only the first knows row 1, so its mean 1 counts double:

    >>> algorithm = FedSubAvg(involved={"t": np.array([4.0, 2.0])}, total_samples=4)
    >>> server = algorithm.start({"t": np.zeros((2, 1), np.float32)})
    >>> both = Update("one", 0, 2, 1, {"t": np.float32([[1], [2]])}, rows={"t": np.array([0, 1])})
    >>> first = Update("two", 0, 2, 1, {"t": np.float32([[3]])}, rows={"t": np.array([0])})
    >>> algorithm.server_update(server, [both, first]).weights["t"].tolist()  # row 0: (1 + 3)/2; row 1: 2 · (2/2)
    [[2.0], [2.0]]
    """

    submodels = True

    involved: Mapping[str, np.ndarray]
    total_samples: float
    corrected: bool = True

    def order(self, server: Server, settings: LocalSettings, rows: Arrays | None = None) -> Order:
        """The submodel: all of what is no table, and of each table the rows asked for.

        Raises ValueError for rows that are not ascending ids of the table, and where a table is not asked for."""
        asked = {name: self._checked(name, (rows or {}).get(name)) for name in self.involved}
        weights = {name: array[asked[name]] if name in asked else array for name, array in server.weights.items()}
        return Order(server.round, weights, settings, rows=asked)

    def _checked(self, name: str, ids: np.ndarray | None) -> np.ndarray:
        count = len(self.involved[name])
        if ids is None or ids.ndim != 1 or ids.dtype.kind != "i":
            raise ValueError(f"which rows of table '{name}' are asked for? Give their ids")
        if len(ids) and (ids[0] < 0 or ids[-1] >= count or bool((np.diff(ids) <= 0).any())):
            raise ValueError(f"the ids of table '{name}' must ascend from 0 up and stay below {count}")
        return ids.astype(np.int64)

    def server_update(self, server: Server, updates: Iterable[Update]) -> Server:
        """Sums of one array per weight, whatever the number of updates."""
        sums = {name: np.zeros(array.shape, np.float64) for name, array in server.weights.items()}
        samples = 0
        for update in updates:
            samples += update.num_samples
            for name, delta in update.delta.items():
                share = update.num_samples * delta.astype(np.float64)
                if name in self.involved:
                    sums[name][self._known(name, update)] += share
                else:
                    sums[name] += share
        if not samples:
            raise EmptyRound("no update arrived, or none with samples")
        moved = {name: self._coefficient(name, total) * total / samples for name, total in sums.items()}
        return replace(server, round=server.round + 1, weights=plus(server.weights, moved, times=self.server_rate))

    def _known(self, name: str, update: Update) -> np.ndarray:
        """Rows of an update. Raises ValueError for one that is said to be touched by no samples at all."""
        rows = self._checked(name, update.rows.get(name))
        if bool((self.involved[name][rows] <= 0).any()):
            raise ValueError(f"board '{update.board}' touches rows of '{name}' that nobody is counted to touch")
        return rows

    def _coefficient(self, name: str, like: np.ndarray) -> np.ndarray:
        if name not in self.involved or not self.corrected:
            return np.ones(())
        touched = self.involved[name]
        with np.errstate(divide="ignore"):
            coefficient = np.where(touched > 0, self.total_samples / touched, 0.0)
        return coefficient.reshape(-1, *[1] * (like.ndim - 1))


def involvement(boards: Iterable[tuple[np.ndarray, int]], *, rows: int) -> np.ndarray:
    """Σ |D_i| over the boards that touch a row, float64 (rows,). boards: ids touched, and number of samples, of each.

    >>> involvement([(np.array([0, 2]), 3), (np.array([2]), 1)], rows=3).tolist()
    [3.0, 0.0, 4.0]
    """
    counted = np.zeros(rows, np.float64)
    for ids, samples in boards:
        counted[ids] += samples
    return counted
