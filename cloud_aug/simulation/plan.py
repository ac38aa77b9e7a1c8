"""What decides how a simulation goes, and what it tells of each round."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from edgelearn.compression.catalogue import CODECS
from edgelearn.compression.codec import Codec
from edgelearn.crowd import Crowd
from edgelearn.federated.algorithm import Algorithm, LocalSettings
from edgelearn.federated.attacks import ATTACKS, Attack
from edgelearn.federated.catalogue import ALGORITHMS, Surroundings, make, wants
from edgewire.errors import UsageError


@dataclass(frozen=True)
class Plan:
    """algorithm: a name of ours, or a user's own as 'package.module:Class'; options: of the algorithm; share: of the
    boards that each round invites (at least one); compression: a key of CODECS, of updates on their way up; down: of
    weights on their way to boards: whole, whole in 8 bits, or what changed since the board was last there.

    drop: share of the invited that never answer; late: by up to how many rounds answers are late; turn_rounds: boards
    with low labels are online for so many rounds, then the others (0: all, always); attack, attackers: a key of
    ATTACKS, and the share of boards that do so; noise, clip: boards send clipped updates with noise of their own (0: as
    they are)."""

    algorithm: str = "fedavg"
    options: tuple[tuple[str, float], ...] = ()
    rounds: int = 20
    share: float = 0.1
    settings: LocalSettings = field(default_factory=LocalSettings)
    seed: int = 0
    compression: str = "none"
    down: str = "none"
    drop: float = 0.0
    late: int = 0
    turn_rounds: int = 0
    attack: str = ""
    attackers: float = 0.0
    noise: float = 0.0
    clip: float = 1.0


@dataclass(frozen=True)
class Round:
    """One round as it went. answered: updates that counted; late, refused: that did not; bytes: of all boards together,
    as packed for the way; score: the task's metric of the model after it, on the test samples; peer_score: of the model
    that learns with it, where there is one."""

    number: int
    invited: int
    answered: int
    late: int
    refused: int
    bytes_down: int
    bytes_up: int
    score: float
    peer_score: float | None = None


def algorithm_of(plan: Plan, crowd: Crowd) -> Algorithm:
    """Raises UsageError where there is none of that name, it has no such option, the crowd has no peer for it, or no
    round could ever suffice it."""
    kind = _kind(plan.algorithm)
    surroundings = Surroundings(
        boards=len(crowd.boards),
        expected=max(1.0, plan.share * len(crowd.boards)),
        value=crowd.value,
        classroom=crowd.classroom,
        rng=partial(_noise_of, plan.seed),
        involved=crowd.involved() if kind.submodels else {},
        total_samples=float(sum(map(crowd.samples, crowd.boards))),
    )
    _check_peer(plan, kind, crowd)
    try:
        made = make(kind, surroundings, dict(plan.options))
    except (TypeError, ValueError) as error:
        raise UsageError(f"algorithm '{plan.algorithm}': {error}") from None
    if made.invites != "coin" and not made.suffices(size := cohort_size(plan, crowd)):
        hint = "take more --boards, a larger --share, or other options of it"
        raise UsageError(f"'{plan.algorithm}' makes nothing of {size} updates, all that a round has", hint=hint)
    return made


def _check_peer(plan: Plan, kind: type[Algorithm], crowd: Crowd) -> None:
    """Raises UsageError where a model that learns with the boards' one is missing, or would learn nothing."""
    wanted, there = wants(kind, "classroom"), crowd.peer is not None
    if wanted and not there:
        why = f"algorithm '{plan.algorithm}' needs a model that learns with the boards' one"
        raise UsageError(why, hint="--peer NAME:WIDTH, cnn2d:64 say")
    if there and not wanted:
        raise UsageError(f"algorithm '{plan.algorithm}' learns with no other model", hint="leave out --peer")


def _noise_of(seed: int, number: int) -> np.random.Generator:
    """The server's own of a round: a function that other processes know, too."""
    return np.random.default_rng((seed, number, 5))


def cohort_size(plan: Plan, crowd: Crowd) -> int:
    """Boards that a round invites."""
    return max(1, round(plan.share * len(crowd.boards)))


def judges(plan: Plan) -> bool:
    """Whether the algorithm wants to value weights or to teach, and the server so needs samples of its own."""
    kind = _kind(plan.algorithm)
    return wants(kind, "value") or wants(kind, "classroom")


def codec_of(plan: Plan) -> Codec:
    codec: Codec = known("compression", CODECS, plan.compression)
    return codec


def attack_of(plan: Plan) -> Attack | None:
    """Raises UsageError where nobody would attack, or nobody knows how: figures would look as if all withstood it."""
    found: Attack | None = known("attack", ATTACKS, plan.attack) if plan.attack else None
    if (found is None) != (plan.attackers == 0):
        lacking = "--attackers, the share of boards that do it" if found else "--attack, what they send"
        raise UsageError("an attack needs a kind and a share of boards", hint=f"add {lacking}")
    return found


def _kind(name: str) -> type[Algorithm]:
    module, colon, own = name.partition(":")
    if not colon:
        kind: type[Algorithm] = known("algorithm", ALGORITHMS, name)
        return kind
    try:
        found = getattr(importlib.import_module(module), own, None)
    except ImportError as error:
        raise UsageError(f"cannot import '{module}': {error}", hint="is its folder on PYTHONPATH?") from None
    if not (isinstance(found, type) and issubclass(found, Algorithm)):
        raise UsageError(f"'{name}' is no class that derives from edgelearn.federated.algorithm.Algorithm")
    return found


def known(what: str, choices: dict[str, Any], name: str) -> Any:
    """Raises UsageError that says what could be chosen."""
    if name not in choices:
        raise UsageError(f"there is no {what} '{name}'", hint=f"choose one of {', '.join(choices)}")
    return choices[name]
