"""What the robust rules share: all updates are looked at together, and each counts the same, whatever it claims."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from edgelearn.federated.algorithm import Server, Update
from edgelearn.federated.arrays import Arrays, EmptyRound, plus
from edgelearn.federated.fedavg import FedAvg


@dataclass(frozen=True)
class Robust(FedAvg):
    """FedAvg on the boards. A rule needs the whole cohort in memory: its size times the model."""

    at_once = True

    def server_update(self, server: Server, updates: Iterable[Update]) -> Server:
        cohort = list(updates)
        if not cohort:
            raise EmptyRound("no update arrived")
        weights = plus(server.weights, self.combine(cohort), times=self.server_rate)
        return replace(server, round=server.round + 1, weights=weights)

    @abstractmethod
    def combine(self, cohort: Sequence[Update]) -> Arrays:
        """One delta for all of them (at least one). Raises EmptyRound where they are too few for the rule."""
