"""Train for the round that waits, on this board's own samples, and put the update on disk. Opens no socket; torch."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from edgectl.budget import Spent
from edgectl.enrolment import Enrolment
from edgectl.home import Home
from edgectl.rounds.able import algorithm_of, codec_of
from edgectl.rounds.folder import RoundFolder
from edgectl.rounds.pauses import NEVER_S, RETRY_S
from edgectl.store import Store
from edgelearn.device import use_threads
from edgelearn.federated import turn
from edgelearn.federated.algorithm import LocalSettings, Order, Update
from edgelearn.federated.arrays import Arrays
from edgelearn.learner import OtherRows, TorchLearner, learner_of, part_learner
from edgelearn.metrics import score
from edgelearn.models.build import build
from edgelearn.privacy.noise import randomized
from edgelearn.submodel import touched
from edgewire.errors import Conflict, CorruptFile, NothingToDo, Refused, ResourcesRefused
from edgewire.files import digest
from edgewire.messages import Manifest
from edgewire.rounds import ENERGY_LIMIT_J, Invitation, Parts, UpdateMeta
from edgewire.samples import Samples
from edgewire.tasks import Task


@dataclass
class Trained:
    """series: '' where rows were looked for, and no round was trained for; changed: False if the update was there
    already; score: of the weights that came, on this board's samples; bytes: of the update as it will be sent."""

    task: str
    series: str
    number: int
    changed: bool
    samples: int = 0
    steps: int = 0
    score: float | None = None
    bytes: int = 0


@dataclass(frozen=True)
class Governed:
    """A learner after each of whose gradients `on_step` is called; it may rest, or raise to stop."""

    learner: TorchLearner
    on_step: Callable[[], None]

    @property
    def num_samples(self) -> int:
        return self.learner.num_samples

    def gradient(self, weights: Mapping[str, np.ndarray], rows: np.ndarray) -> Arrays:
        made = self.learner.gradient(weights, rows)
        self.on_step()
        return made


def train(
    home: Home,
    enrolment: Enrolment,
    manifest: Manifest,
    store: Store,
    *,
    threads: int,
    on_step: Callable[[], None],
    energy_j: Callable[[], float | None] = lambda: None,
    monotonic: Callable[[], float] = time.monotonic,
) -> Trained:
    """The caller holds the lock. The same invitation and samples give the same update, but for noise and what it took.
    energy_j: what the whole board drew so far in this turn, None where no sensor tells.

    Raises NotFound where nothing waits, Refused where the signed task does not allow it, NothingToDo without samples,
    UnsupportedBoard for what this version does not know, Conflict for an update that the cloud would refuse,
    ResourcesRefused if budget or governor end it, CorruptFile.
    """
    folder = RoundFolder(home, manifest.task.id)
    check_allowed(manifest)
    if folder.rows_are_wanted():
        return _find_rows(folder, manifest, store)
    invitation = folder.invitation(enrolment)
    if (known := folder.waiting()) is not None:
        meta = known[1]
        return Trained(manifest.task.id, meta.series, meta.number, False, meta.samples, meta.steps, meta.score)
    use_threads(threads)
    mine, before = _samples(store, manifest.task), _remembered(folder, invitation)
    parts, rows = folder.order(invitation), _rows_of(folder, invitation)
    learner = _learner(folder, invitation, manifest.task, parts, rows, mine)
    told, began = score(manifest.task.metric, learner.logits(parts.main), learner.y), monotonic()
    try:
        update, memory = _play(invitation, parts, rows, Governed(learner, on_step), before)
    except Spent as spent:
        raise _given_up(spent) from None
    upload_id = secrets.token_hex(16)
    series, number = invitation.series, invitation.number
    meta = UpdateMeta(series, number, invitation.board, upload_id, update.num_samples, update.steps, told)
    meta = replace(meta, train_s=max(0.0, monotonic() - began), memory=invitation.memory if before.own else "")
    if (joules := energy_j()) is not None and 0 <= joules <= ENERGY_LIMIT_J:
        meta = replace(meta, energy_j=joules)
    size = folder.keep_update(Parts(update.delta, update.extra), meta, memory)
    return Trained(manifest.task.id, series, number, True, meta.samples, meta.steps, told, size)


def _samples(store: Store, task: Task) -> Samples:
    """This board's own. Raises NothingToDo where there are none."""
    mine = store.samples(task).samples
    if len(mine) == 0:
        raise NothingToDo("there are no labelled samples to train on", hint="edgectl data add FILE")
    return mine


def _remembered(folder: RoundFolder, invitation: Invitation) -> turn.Memory:
    """What the algorithm goes on from. Raises Conflict where the board has lost what its updates must follow from."""
    memory = folder.memory(invitation)
    if invitation.memory and not memory.own and algorithm_of(invitation).remembers:
        raise Conflict(
            "what was kept beside this board's last update is lost, and without it another would count twice",
            hint="it takes part again in the next series",
        )
    return memory


def _learner(
    folder: RoundFolder, invitation: Invitation, task: Task, parts: Parts, rows: Arrays, mine: Samples
) -> TorchLearner:
    """Of the order. Raises NothingToDo for samples of rows that it does not have, CorruptFile if it does not fit."""
    base = folder.base(invitation)
    try:
        if rows:
            return part_learner(task, base, parts.main, rows, mine.x, mine.y)
        return learner_of(task, {**base, **parts.main}, mine.x, mine.y)
    except OtherRows:
        folder.forget_rows()
        raise NothingToDo("the samples touch other rows than were told", hint="the next round asks anew") from None
    except ValueError as error:
        raise CorruptFile(f"the order does not fit task '{task.id}': {error}", hint="edgectl sync") from None


def _given_up(spent: Spent) -> ResourcesRefused:
    passes = spent.kind in ("heat", "power")  # a budget that was too small once is too small the next time
    return ResourcesRefused(
        f"{spent.detail}: this board gives up the round",
        hint="it may join the next" if passes else "it joins again later, or with a larger budget",
        retry_after_s=RETRY_S if passes else NEVER_S,
    )


def _find_rows(folder: RoundFolder, manifest: Manifest, store: Store) -> Trained:
    """Which rows of tables this board's samples touch: kept, so that they can be told."""
    if manifest.task.privacy.rows is not True:
        raise Refused(f"task '{manifest.task.id}' does not allow telling rows", hint="its policy is for its owner")
    mine = _samples(store, manifest.task)
    folder.keep_rows(touched(build(manifest.task), mine.x), len(mine))
    return Trained(manifest.task.id, "", 0, True, len(mine))


def _rows_of(folder: RoundFolder, invitation: Invitation) -> Arrays:
    """Those that the order has; {} where it has all. Raises CorruptFile where they are not those that were told."""
    if not isinstance(invitation.rows, str):
        return {}
    known = folder.rows()
    if known is None or digest(known[0]) != invitation.rows:
        folder.forget_rows()
        raise CorruptFile("the rows that this board told are lost", hint="the next round asks anew")
    return {name: ids.astype(np.int64) for name, ids in known[1].items()}


def check_allowed(manifest: Manifest) -> None:
    """Raises Refused unless the task, as the cloud signed it, allows rounds."""
    if manifest.task.privacy.rounds is not True:
        raise Refused(f"task '{manifest.task.id}' does not allow federated rounds", hint="its policy is for its owner")


def _play(
    invitation: Invitation, parts: Parts, rows: Arrays, learner: Governed, memory: turn.Memory
) -> tuple[Update, turn.Memory]:
    local = invitation.local
    most = invitation.max_steps if isinstance(invitation.max_steps, int) else 0
    settings = LocalSettings(local.epochs, local.batch_size, local.learning_rate, most)
    return turn.play(
        algorithm_of(invitation),
        codec_of(invitation),
        Order(invitation.number - 1, parts.main, settings, parts.extra, rows),
        learner,
        board=invitation.board,
        memory=memory,
        rng=np.random.default_rng(invitation.seed),
        change=lambda update: _noised(invitation, update),
    )


def _noised(invitation: Invitation, update: Update) -> Update:
    """With noise of this board's own, which nobody can guess."""
    if not invitation.noise:
        return update
    if update.extra:
        raise Refused("this algorithm sends more than its update, which would go without noise")
    rng = np.random.default_rng()
    return replace(
        update, delta=randomized(update.delta, clip=invitation.clip, noise_multiplier=invitation.noise, rng=rng)
    )
