"""What decides how a series goes. It never changes once the series is made."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

import numpy as np
from msgspec import Meta

from edgelearn.compression.catalogue import CODECS, DOWN
from edgelearn.federated.algorithm import Algorithm, LocalSettings
from edgelearn.federated.catalogue import ALGORITHMS, Surroundings, make, no_classroom, wants
from edgelearn.federated.contribution import Judged, Value, nobody_asks
from edgelearn.federated.mutual import Classroom
from edgewire.errors import UsageError
from edgewire.messages import Base, Name
from edgewire.rounds import Local, Network
from edgewire.tasks import TaskId

Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Span = Annotated[float, Meta(gt=0, le=30 * 86400)]
Rule = Literal["deadline", "steps", "frequency", "switch"]
RULES: tuple[Rule, ...] = get_args(Rule)
_ANY_SIGN = ("margin",)  # options that mean something below 0, too


@dataclass(frozen=True)
class Plan:
    """algorithm: a key of the catalogue; options: of the algorithm; rounds: how many have to close; peer: the task
    whose base learns with this one's, for algorithms in which two models do.

    Who: cohort: boards in a round at most; quorum: updates without which a round has failed; selection: '' is the
    algorithm's own; profiles, networks: () is any; max_temperature_c: of a board, where it is known; min_samples.
    When: gather_s: how long boards may come before the cohort is drawn; deadline_s: of a round from then on; silence_s:
    who gave no sign of life for so long is not waited for; failures: rounds in a row that fail before the series stops.
    compression: of updates; down: a key of DOWN, what is compressed of the weights on their way to boards.
    What is taken: staleness: rounds that an update may be late, where the algorithm counts late ones; max_norm,
    max_samples: of one update. kept_updates: rounds whose single updates stay on disk.
    adapt: what follows the pace that boards were seen to have (`pacing`): the deadline of a round, the local steps of
    each board, how often boards come where nobody waits for them, and whether anybody does (switch)."""

    algorithm: str = "fedavg"
    options: dict[str, float] = field(default_factory=dict)
    rounds: Count = 10
    cohort: Count = 10
    quorum: Count = 2
    local: Local = field(default_factory=Local)
    seed: Annotated[int, Meta(ge=0, le=1 << 53)] = 0
    compression: str = "none"
    down: str = "none"
    noise: Annotated[float, Meta(ge=0, le=1e6)] = 0.0
    clip: Annotated[float, Meta(gt=0, le=1e6)] = 1.0
    selection: Literal["", "random", "absent"] = ""
    profiles: tuple[Name, ...] = ()
    networks: tuple[Network, ...] = ()
    max_temperature_c: float | None = None
    min_samples: Count = 1
    gather_s: Span = 600.0
    deadline_s: Span = 3600.0
    silence_s: Span = 120.0
    failures: Count = 3
    staleness: Annotated[int, Meta(ge=0, le=1000)] = 4
    max_norm: Annotated[float, Meta(gt=0)] = 1e3
    max_samples: Count = 1_000_000
    kept_updates: Annotated[int, Meta(ge=0, le=1_000_000)] = 3
    adapt: tuple[Rule, ...] = ()
    peer: TaskId | None = None

    def problems(self) -> list[str]:
        """What the field types cannot say; empty when the plan is sound."""
        found = []
        if self.algorithm not in ALGORITHMS:
            found.append(f"there is no algorithm '{self.algorithm}': choose one of {', '.join(ALGORITHMS)}")
        elif wrong := [rule for rule in self.adapt if rule not in rules_of(self.algorithm)]:
            known = ", ".join(rules_of(self.algorithm)) or "nothing"
            found.append(f"with '{self.algorithm}' '{wrong[0]}' cannot follow boards' pace: {known} can")
        if self.compression not in CODECS:
            found.append(f"there is no compression '{self.compression}': choose one of {', '.join(CODECS)}")
        if self.down not in DOWN:
            found.append(f"there is no way down '{self.down}': choose one of {', '.join(DOWN)}")
        elif submodels(self) and (self.down != "none" or self.compression not in ("none", "eight-bit")):
            hint = "updates may be 'eight-bit', weights on their way down nothing else"
            found.append(f"'{self.algorithm}' sends each board other rows, from round to round: {hint}")
        if self.quorum > self.cohort:
            found.append(f"a cohort of {self.cohort} can never reach a quorum of {self.quorum}")
        if self.algorithm == "ensemble":
            found.append("'ensemble' makes no single model that boards could get: see 'cloud-aug simulate'")
        if self.algorithm in ALGORITHMS and learns_with_peer(self) != bool(self.peer):
            found.append(
                f"'{self.algorithm}' learns with no other model: leave out --peer"
                if self.peer
                else f"'{self.algorithm}' needs a task whose base learns with this one's: --peer TASK"
            )
        if not all(map(math.isfinite, (self.max_norm, self.max_temperature_c or 0.0))):
            found.append("max_norm and max_temperature_c must be finite: give a large number for no limit")
        return found + (self._of_counting() if self.algorithm in ALGORITHMS else [])

    def _of_counting(self) -> list[str]:
        """What the algorithm itself does not bear."""
        kind, found = ALGORITHMS[self.algorithm], []
        if self.noise and kind.remembers:
            found.append(f"'{self.algorithm}' goes on from what boards sent before, as it was without noise and clip")
        if self.selection and kind.invites == "coin":
            found.append(f"'{self.algorithm}' draws each board by a coin of its own: there is nothing to select")
        for name, value in self.options.items():
            if not math.isfinite(value) or (value < 0 and name not in _ANY_SIGN):
                found.append(f"'{name}' must be a number{'' if name in _ANY_SIGN else ' from 0 up'}, not {value:g}")
        if found:
            return found
        try:
            algorithm = make(kind, Surroundings(1, 1.0, _unvalued, np.random.default_rng), self.options)
        except (TypeError, ValueError) as error:
            return [*found, f"algorithm '{self.algorithm}': {error}"]
        if few := [count for count in range(self.quorum, self.cohort + 1) if not algorithm.suffices(count)]:
            found.append(f"'{self.algorithm}' makes nothing of {few[0]} updates: change quorum, cohort or its options")
        return found


@dataclass(frozen=True)
class Peer:
    """The base of another task that learns with that of a series, as it was when the series was made."""

    task: str
    base: Base


@dataclass(frozen=True)
class Series:
    """A series as it was made. base: of which the first round starts; boards: how many might take part then; start:
    digest of the weights and the algorithm's state before the first round; tables: how many rows each has, where boards
    are sent those that they touch; peer: what learns with it."""

    id: str
    task: str
    plan: Plan
    base: Base
    boards: int
    start: str
    tables: dict[str, int] = field(default_factory=dict)
    peer: Peer | None = None


def _unvalued(_weights: object) -> float:
    raise ValueError("no weights are judged here")


def submodels(plan: Plan) -> bool:
    """Whether boards are sent the rows of tables that they touch, and no others."""
    return plan.algorithm in ALGORITHMS and ALGORITHMS[plan.algorithm].submodels


def learns_with_peer(plan: Plan) -> bool:
    """Whether two models learn from each other, of which boards train one."""
    return wants(ALGORITHMS[plan.algorithm], "classroom")


def rules_of(algorithm: str) -> tuple[Rule, ...]:
    """What may follow boards' pace with this algorithm; () for one that there is not."""
    kind = ALGORITHMS.get(algorithm)
    # who is drawn by coin may be away for long; what a board of a submodel is sent is known once it asks
    if kind is None or kind.invites == "coin" or kind.submodels:
        return ()
    if kind.takes_late:
        return ("steps", "frequency")
    if algorithm == "fedsgd":  # one step, whatever is ordered
        return ("deadline",)
    # FedBuff's mean of what comes would undo what other algorithms do with a whole round
    return RULES if algorithm in ("fedavg", "fedprox") else ("deadline", "steps")


def may_buffer(plan: Plan) -> bool:
    """Whether a round may be one in which nobody is waited for."""
    return ALGORITHMS[plan.algorithm].takes_late or "switch" in plan.adapt


def counts_by(plan: Plan, *, buffered: bool) -> str:
    """The algorithm that counts a round. Where a series has changed over boards train as ever, and FedBuff counts."""
    return "fedbuff" if buffered and not ALGORITHMS[plan.algorithm].takes_late else plan.algorithm


def settings_of(local: Local) -> LocalSettings:
    return LocalSettings(local.epochs, local.batch_size, local.learning_rate)


def algorithm_of(
    series: Series,
    *,
    value: Value,
    rng: Callable[[int], np.random.Generator],
    buffered: bool = False,
    involved: Mapping[str, np.ndarray] | None = None,
    total_samples: float = 0.0,
    judged: Judged = nobody_asks,
    classroom: Callable[[], Classroom] = no_classroom,
) -> Algorithm:
    """The algorithm of a series' round, for the server. involved, total_samples: see `FedSubAvg`; judged: see
    `FedLeaveOneOut`; classroom: see `FedMutual`. Raises UsageError for options that it does not have."""
    plan, name = series.plan, counts_by(series.plan, buffered=buffered)
    expected = float(min(plan.cohort, series.boards))
    surroundings = Surroundings(series.boards, expected, value, rng, involved or {}, total_samples, judged, classroom)
    known = plan.options if name == plan.algorithm else {k: v for k, v in plan.options.items() if k == "server_rate"}
    try:
        return make(ALGORITHMS[name], surroundings, known)
    except (TypeError, ValueError) as error:
        raise UsageError(f"algorithm '{name}': {error}") from None
