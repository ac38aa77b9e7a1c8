"""The algorithms by name, and what each of them has to be told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from edgelearn.federated.algorithm import Algorithm
from edgelearn.federated.contribution import FedLeaveOneOut, Judged, Value, nobody_asks
from edgelearn.federated.dp_fedavg import DpFedAvg
from edgelearn.federated.ensemble import Ensemble
from edgelearn.federated.fedavg import FedAvg
from edgelearn.federated.fedbuff import FedBuff
from edgelearn.federated.fedlaavg import FedLaAvg
from edgelearn.federated.fedopt import FedAdam, FedYogi
from edgelearn.federated.fedprox import FedProx
from edgelearn.federated.fedsgd import FedSgd
from edgelearn.federated.fedsubavg import FedSubAvg
from edgelearn.federated.krum import MultiKrum
from edgelearn.federated.median import FedMedian
from edgelearn.federated.mutual import Classroom, FedMutual
from edgelearn.federated.norm_clipping import FedNormClip
from edgelearn.federated.scaffold import Scaffold
from edgelearn.federated.trimmed_mean import FedTrimmedMean

ALGORITHMS: dict[str, type[Algorithm]] = {
    "fedsgd": FedSgd,
    "fedavg": FedAvg,
    "fedprox": FedProx,
    "scaffold": Scaffold,
    "fedadam": FedAdam,
    "fedyogi": FedYogi,
    "fedlaavg": FedLaAvg,
    "fedbuff": FedBuff,
    "fedsubavg": FedSubAvg,
    "ensemble": Ensemble,
    "median": FedMedian,
    "trimmed-mean": FedTrimmedMean,
    "multi-krum": MultiKrum,
    "norm-clipping": FedNormClip,
    "leave-one-out": FedLeaveOneOut,
    "dp-fedavg": DpFedAvg,
    "mutual": FedMutual,
}
_DEFAULTS = {"clip": 1.0, "noise_multiplier": 1.0}  # of what has none in its class


def no_classroom() -> Classroom:
    raise ValueError("there is no large model to learn with")


@dataclass(frozen=True)
class Surroundings:
    """What an algorithm may need to know and a user need not say. boards: how many there are; expected: of a round;
    value: see `contribution.Value`; rng: see `DpFedAvg`; involved, total_samples: see `FedSubAvg` (of a model without
    tables nothing is involved); judged: see `FedLeaveOneOut`; classroom: see `FedMutual`."""

    boards: int
    expected: float
    value: Value
    rng: Callable[[int], np.random.Generator]
    involved: Mapping[str, np.ndarray] = field(default_factory=dict)
    total_samples: float = 0.0
    judged: Judged = nobody_asks
    classroom: Callable[[], Classroom] = no_classroom


def wants(kind: type[Algorithm], name: str) -> bool:
    """Whether it has to be told this of its surroundings, or has this option."""
    return name in getattr(kind, "__dataclass_fields__", {})


def make(kind: type[Algorithm], surroundings: Surroundings, options: Mapping[str, float]) -> Algorithm:
    """An algorithm with these options; what it needs to know besides is taken from its surroundings, by name.

    Raises ValueError for an option that it does not have."""
    takes = {name: field.type for name, field in getattr(kind, "__dataclass_fields__", {}).items()}
    known = {field.name for field in fields(Surroundings)}
    unknown = sorted(set(options) - (takes.keys() - known))
    if unknown:
        offered = ", ".join(sorted(takes.keys() - known)) or "none"
        raise ValueError(f"{kind.__name__} has no option '{unknown[0]}'; it has: {offered}")
    given: dict[str, Any] = {name: value for name, value in _DEFAULTS.items() if name in takes}
    given |= {name: getattr(surroundings, name) for name in known & takes.keys()}
    given |= {name: int(value) if takes[name] in ("int", int) else value for name, value in options.items()}
    return kind(**given)
