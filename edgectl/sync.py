"""The only step that opens a socket: outbox up; trust, task, base, directory and matched packs down.

Everything is fetched by digest into the cache, and what counts is switched last, so that a sync may be cut off
anywhere and run again: what has arrived is not fetched twice, and training meanwhile uses the old, whole set.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from edgectl import packs, searching, suits, tasks
from edgectl.cache import Cache, Retrieval
from edgectl.cloud import Cloud
from edgectl.enrolment import Enrolment, update_tasks, update_trust
from edgectl.home import Home
from edgectl.inference import Predictor
from edgectl.releases.following import Board, Following
from edgectl.store import OutboxItem, Store
from edgectl.store_samples import StoredSamples
from edgectl.telemetry.reading import Reading
from edgelearn.privacy.bits import prototype_bits, randomize_bits
from edgelearn.privacy.response import randomize
from edgelearn.retrieval.directory import Directory, rank_cohorts
from edgewire import tensors
from edgewire.decoding import convert, decode
from edgewire.errors import (
    Conflict,
    EdgeError,
    IntegrityError,
    InvalidMessage,
    NotFound,
    NotGranted,
    NotReady,
    Replayed,
    RetryLater,
    Revoked,
    TimedOut,
    TooLarge,
    Unauthorized,
    UpgradeRequired,
    UsageError,
)
from edgewire.files import write_atomic
from edgewire.messages import BlobRef, DirectoryMeta, Manifest, Report, Withdrawals
from edgewire.signing import Statement, envelope_key_id, open_sealed
from edgewire.tasks import Mode, Task

_LOG = logging.getLogger(__name__)

QUERIES_WANTED = 500
_ETAG = "manifest.etag"
_OF_THE_BOARD = (RetryLater, TimedOut, Unauthorized, Replayed, Revoked, UpgradeRequired)  # not of what it sends
_OF_ONE_TASK = (Conflict, IntegrityError, NotFound, NotGranted, NotReady, UsageError)
_NOTHING_ASKED = "0" * 64  # of no set of samples: the next retrieval asks again
_USED_UP = "the privacy budget is used up; the board goes on with the packs it has"
UNMATCHED = "there are no labelled samples yet to match; add some, then sync again"


@dataclass(frozen=True)
class Options:
    """mode: None takes the task's default; pull, push: which halves to do; threads: for embedding local samples;
    tell_state: tells how the board is and says how many readings that were, None: nobody wants it told; lacks: what the
    board lacks for a task, which it then leaves alone; profile, read_state: of this board, for releases; reports:
    whether the cloud is told what a release's checks measured."""

    mode: Mode | None = None
    pull: bool = True
    push: bool = True
    threads: int = 1
    tell_state: Callable[[Store, Cloud], int] | None = None
    profile: str = "generic"
    reports: bool = True
    read_state: Callable[[], Reading] = lambda: Reading(0.0, 0.0)
    lacks: Callable[[Task], list[str]] = lambda task: []
    on_blob: Callable[[str, int], Callable[[int], None]] = lambda what, size: lambda received: None


@dataclass
class TaskOutcome:
    """What sync did for one task. packs: sample files at hand; fetched_bytes: of blobs and search answers, this
    time; releases: what became of those that the cloud ordered."""

    task: str
    changed: bool = False
    base_version: int = 0
    mode: str = ""
    packs: int = 0
    fetched_bytes: int = 0
    epsilon: float = 0.0
    revealed: str = ""
    note: str = ""
    releases: tuple[str, ...] = ()


@dataclass
class Outcome:
    """sent, refused: uploads of the outbox; readings: of this board's state that were told; bytes: of bodies, both
    ways."""

    sent: int = 0
    refused: int = 0
    readings: int = 0
    tasks: list[TaskOutcome] = field(default_factory=list)
    bytes_up: int = 0
    bytes_down: int = 0

    @property
    def changed(self) -> bool:
        return bool(self.sent or self.refused or any(task.changed for task in self.tasks))


def sync(
    home: Home,
    enrolment: Enrolment,
    store: Store,
    cloud: Cloud,
    options: Options,
    *,
    clock: Callable[[], float],
    rng: np.random.Generator,
) -> Outcome:
    """One sync. The caller holds the lock. rng: for randomized response only; it must not be seeded in the field.

    Raises what `Cloud` raises; whatever was finished before stays finished. What is wrong with one task is raised only
    after the others had their turn.
    """
    outcome = Outcome()
    session = _Session(home, enrolment, store, cloud, options, clock, rng)
    session.recover()
    try:
        if options.push:
            _push(store, cloud, outcome, clock)
            _tell_state(store, cloud, options, outcome)
        if options.pull:
            session.pull_all(outcome)
    except InvalidMessage as error:  # of the cloud, or of what stands between: no wrong usage of the board
        raise IntegrityError(error.message, hint=error.hint or "sync again later") from None
    finally:
        outcome.bytes_up, outcome.bytes_down = cloud.bytes_up, cloud.bytes_down
    return outcome


def _push(store: Store, cloud: Cloud, outcome: Outcome, clock: Callable[[], float]) -> None:
    """Send what waits. What the cloud will never take leaves the outbox with its reason; other failures keep it
    there."""
    for item in store.outbox():
        try:
            _send(item, store, cloud)
        except _OF_THE_BOARD:
            raise
        except EdgeError as error:
            if error.exit_code not in (2, 11) and error.http_status not in (404, 409, 410, 413):
                raise
            _LOG.warning("the cloud refused a %s: %s", item.kind, error)
            store.refused(item.upload_id, error.code, clock())
            outcome.refused += 1
        else:
            store.sent(item.upload_id, clock())
            outcome.sent += 1


def _tell_state(store: Store, cloud: Cloud, options: Options, outcome: Outcome) -> None:
    """Nothing else waits for it: a cloud that does not want it (an older one) is no failure of the sync."""
    if options.tell_state is None:
        return
    try:
        outcome.readings = options.tell_state(store, cloud)
    except (Conflict, NotFound, UsageError, TooLarge) as error:
        _LOG.warning("the cloud takes no telemetry: %s", error)


def _send(item: OutboxItem, store: Store, cloud: Cloud) -> None:
    if item.kind == "report":
        cloud.report(decode(Report, item.payload, what="report"))
    elif item.kind == "withdrawal":
        store.withdrawn(item.task, cloud.withdraw(item.task).number)
    else:
        consent, until = str(item.params["consent"]), float(item.params["until"])
        # what waits was consented to after the last withdrawal: an earlier contribution would have left the outbox then
        after = store.withdrawals(item.task)
        cloud.contribute(item.task, item.upload_id, item.payload, consent=consent, until=until, after=after)


@dataclass
class _Session:
    """The pull half, for one task after the other."""

    home: Home
    enrolment: Enrolment
    store: Store
    cloud: Cloud
    options: Options
    clock: Callable[[], float]
    rng: np.random.Generator

    def pull_all(self, outcome: Outcome) -> None:
        failures, seen = dict[str, EdgeError](), set[str]()
        while waiting := [task for task in self._granted() if task not in seen]:
            for task_id in waiting:
                try:
                    outcome.tasks.append(self.pull(task_id))
                except _OF_ONE_TASK as error:
                    _LOG.warning("task '%s' was not synced: %s", task_id, error)
                    failures[task_id] = error
            seen.update(waiting)  # their answers may have told of more
        # a task that was recalled meanwhile failed for that
        if wrong := [error for task_id, error in failures.items() if task_id in self.enrolment.tasks]:
            raise wrong[0]

    def _granted(self) -> tuple[str, ...]:
        self.enrolment = update_tasks(self.home, self.enrolment, self.cloud.tasks())
        return self.enrolment.tasks

    def pull(self, task_id: str) -> TaskOutcome:
        outcome = TaskOutcome(task_id)
        cache = Cache(self.home, task_id)
        cache.ensure()
        found = self._manifest(task_id, cache, outcome)
        if found is None:
            return outcome
        followed = self._following(*found).follow(self.cloud)
        manifest, outcome.releases = followed.manifest, followed.notes
        outcome.base_version = manifest.base.version
        outcome.fetched_bytes += followed.fetched_bytes
        outcome.changed = outcome.changed or bool(followed.notes)
        self._forget_withdrawn(manifest, cache, outcome)
        self._retrieve(manifest, cache, outcome)
        cache.drop_unused(manifest, followed.keep)
        return outcome

    def recover(self) -> None:
        """Put right, before anything asks the network, what a power cut left of a release."""
        for task_id in self.enrolment.tasks:
            if (known := self._known(task_id)) is not None:
                self._following(known[0], known[1][0]).recover()

    def _following(self, manifest: Manifest, epoch: int) -> Following:
        my = self.options
        known = (self.home, self.enrolment, self.store, my.profile, my.read_state, self.clock, self._fetch)
        return Following(Board(*known, threads=my.threads, reports=my.reports), manifest, epoch=epoch)

    # The task, its base and its directory

    def _manifest(self, task_id: str, cache: Cache, outcome: TaskOutcome) -> tuple[Manifest, int] | None:
        """The newest manifest, with all that it names in the cache, and its epoch; None: the task does not suit this
        board."""
        known = self._known(task_id)
        whole = known is not None and all(cache.has(ref) for ref in _blobs(known[0]))
        etag = cache.etag(_ETAG) or None if whole else None
        parts = None if suits.noted(self.home, task_id) else cache.parts()  # what does not suit brings nothing along
        answer = self.cloud.manifest(task_id, etag, parts)
        if answer is None and known is not None:
            return known[0], known[1][0]
        if answer is None:
            raise NotFound("the cloud says that nothing changed, but nothing is known here", hint="sync again")
        raw, new_etag = answer
        manifest, statement = self._open(raw, task_id, at_least=known[1] if known else (0, 0))
        self._follow_trust(manifest.trust_version)
        missing = self.options.lacks(manifest.task)
        suits.note(self.home, task_id, missing)
        if missing:
            keep = self._following(known[0], known[1][0]).kept() if known else ()
            cache.drop_unused(known[0] if known else None, keep)
            outcome.note = f"left alone: the task needs {', '.join(missing)}"
            return None
        outcome.fetched_bytes += parts.received_bytes if parts else 0
        for what, ref in zip(("base weights", "base model", "directory"), _blobs(manifest), strict=True):
            outcome.fetched_bytes += self._fetch(cache, what, ref)
        write_atomic(self.home.manifest(task_id), raw, mode=0o600)
        write_atomic(cache.folder / _ETAG, new_etag.encode(), mode=0o600)
        outcome.changed = known is None or (statement.epoch, statement.version) != known[1]
        return manifest, statement.epoch

    def _known(self, task_id: str) -> tuple[Manifest, tuple[int, int]] | None:
        try:
            statement = tasks.stored_manifest(self.home, self.enrolment, task_id)
            return convert(Manifest, statement.body, what="manifest"), (statement.epoch, statement.version)
        except EdgeError:  # none yet, or one that no longer verifies: the cloud sends a new one
            return None

    def _open(self, raw: bytes, task_id: str, *, at_least: tuple[int, int]) -> tuple[Manifest, Statement]:
        if envelope_key_id(raw) not in self.enrolment.trust.signing_keys:
            self._follow_trust(self.enrolment.trust.version + 1)
        keys = self.enrolment.trust.signing_keys
        statement = open_sealed(raw, keys, type="manifest", task=task_id, now=self.clock(), at_least=at_least)
        manifest = convert(Manifest, statement.body, what="manifest")
        if manifest.task.id != task_id or manifest.task.problems():
            raise NotFound(f"the cloud's manifest does not describe task '{task_id}' soundly")
        return manifest, statement

    def _follow_trust(self, version: int) -> None:
        known = self.enrolment.trust.version
        if version > known:
            self.enrolment = update_trust(self.home, self.enrolment, self.cloud.trust(known), self.clock())

    def _fetch(self, cache: Cache, what: str, ref: BlobRef) -> int:
        return self.cloud.blob(
            ref.digest, ref.size, cache.path(ref.digest), on_bytes=self.options.on_blob(what, ref.size)
        )

    # Retrieval

    def _forget_withdrawn(self, manifest: Manifest, cache: Cache, outcome: TaskOutcome) -> None:
        """Remove what contributors took back: packs by their digest; an answer to a search whenever anybody withdrew
        since, for only the cloud knows whose samples are in it."""
        known, withdrawals = cache.retrieval(), manifest.withdrawals
        if known is None or not isinstance(withdrawals, Withdrawals):
            return
        if known.mode == "directory":
            gone = set(known.files) & set(withdrawals.packs)
            kept = replace(known, files=tuple(name for name in known.files if name not in gone))
        else:
            gone = set(known.files) if known.withdrawals < withdrawals.number else set()
            kept = replace(known, files=(), samples=_NOTHING_ASKED) if gone else known
        if gone:
            cache.record_retrieval(kept)
            for name in gone:
                cache.path(name).unlink(missing_ok=True)
            outcome.changed = True
            outcome.note = "samples were withdrawn by their contributor; what held them was removed"

    def _retrieve(self, manifest: Manifest, cache: Cache, outcome: TaskOutcome) -> None:
        mode, base = self._mode(manifest), manifest.base.onnx.digest
        mine = None if mode == "directory" else self.store.samples(manifest.task)  # memory: packs rarely need them
        own = self.store.digests(manifest.task.id) if mine is None else mine.digests
        wanted = Retrieval(mode, base, manifest.directory.digest, _fingerprint(own), (), 0.0, "")
        withdrawn = manifest.withdrawals.number if isinstance(manifest.withdrawals, Withdrawals) else 0
        wanted = replace(wanted, withdrawals=withdrawn)
        known = cache.retrieval()
        if (
            known is not None
            and replace(known, files=(), epsilon=0.0, revealed="", withdrawals=wanted.withdrawals) == wanted
            and all(cache.path(name).is_file() for name in known.files)
        ):
            _describe(outcome, known)
            return
        directory, meta = cache.directory(manifest)
        if mine is None:
            found = self._packs(wanted, manifest, cache, directory, meta, outcome, matches=bool(own))
        elif mode == "embedding":
            found = self._search(wanted, manifest, cache, mine, outcome)
        else:
            found = self._search_bits(wanted, manifest, cache, mine, directory, outcome)
        if found is None:
            return
        cache.record_retrieval(found)
        outcome.changed = outcome.changed or known is None or known.files != found.files
        _describe(outcome, found)

    def _mode(self, manifest: Manifest) -> Mode:
        allowed = manifest.task.privacy.modes
        mode = self.options.mode or allowed[0]
        if mode not in allowed:
            raise UsageError(
                f"task '{manifest.task.id}' does not allow mode '{mode}'", hint=f"it allows: {', '.join(allowed)}"
            )
        return mode

    def _packs(
        self,
        wanted: Retrieval,
        manifest: Manifest,
        cache: Cache,
        directory: Directory,
        meta: DirectoryMeta,
        outcome: TaskOutcome,
        *,
        matches: bool,
    ) -> Retrieval | None:
        """All packs where they are small, which reveals nothing; else those of one cohort, asked for through noise.
        matches: whether there is anything to match."""
        privacy = manifest.task.privacy
        if sum(pack.size for pack in meta.packs) <= privacy.fetch_all_below_bytes or directory.cohorts == 1:
            chosen, epsilon, revealed = list(meta.packs), 0.0, "nothing: all packs were fetched"
        elif not matches:
            outcome.note = UNMATCHED
            return None
        elif not self._affordable(manifest, _question(manifest)):
            outcome.note = _USED_UP
            return None
        else:
            cohort, epsilon = self._ask_cohort(manifest, cache, directory)
            chosen = [pack for pack in meta.packs if pack.cohort == cohort]
            spent = self.store.epsilon_spent(manifest.task.id)
            revealed = f"one of {directory.cohorts} cohorts, randomized (ε {epsilon:g}; ε {spent:g} spent in all)"
        got = packs.fetch(self.cloud, manifest.task.id, cache, chosen, self.options.on_blob)
        outcome.fetched_bytes += got.received_bytes
        outcome.note = "a pack was withdrawn: somebody's consent to it has ended" if got.withdrawn else outcome.note
        return replace(wanted, files=got.files, epsilon=epsilon, revealed=revealed)

    def _affordable(self, manifest: Manifest, question: str) -> bool:
        """Whether a question is free (asked before) or within the budget."""
        task = manifest.task
        if self.store.remembered_answer(task.id, question) is not None:
            return True
        return self.store.epsilon_spent(task.id) + task.privacy.epsilon <= task.privacy.epsilon_budget * (1 + 1e-9)

    def _ask_cohort(self, manifest: Manifest, cache: Cache, directory: Directory) -> tuple[int, float]:
        """The cohort to ask for: the most alike one through k-ary randomized response, the same answer for the same
        directory ever after. Its cost is in the ledger before anything is sent."""
        task = manifest.task
        question = _question(manifest)
        remembered = self.store.remembered_answer(task.id, question)
        if remembered is not None:
            return remembered, self.store.answer_epsilon(task.id, question)
        mine = self.store.samples(task)
        _, embedding = self._embed(manifest, cache, mine)
        truth = int(rank_cohorts(directory, embedding, mine.samples.y).argmax())
        answer = randomize(truth, directory.cohorts, task.privacy.epsilon, self.rng)
        epsilon, budget = task.privacy.epsilon, task.privacy.epsilon_budget
        return self.store.spend(task.id, question, epsilon, answer, budget, self.clock()), epsilon

    def _search(
        self, wanted: Retrieval, manifest: Manifest, cache: Cache, mine: StoredSamples, outcome: TaskOutcome
    ) -> Retrieval | None:
        """Query vectors go up, samples come down. Not private: an embedding says much about the sample."""
        if len(mine) == 0:
            outcome.note = UNMATCHED
            return None
        task = manifest.task
        _, embedding = self._embed(manifest, cache, mine)
        queries = embedding[_spread(len(embedding), QUERIES_WANTED)].astype(np.float32)
        name = self._ask(task, wanted, {"queries": queries}, cache, outcome)
        revealed = f"the embeddings of {len(queries)} local samples (not private)"
        return replace(wanted, files=(name,), revealed=revealed)

    def _search_bits(
        self,
        wanted: Retrieval,
        manifest: Manifest,
        cache: Cache,
        mine: StoredSamples,
        directory: Directory,
        outcome: TaskOutcome,
    ) -> Retrieval | None:
        """Randomized signs of the class prototypes go up, samples come down. The ledger counts the whole answer, before
        it is sent; for the same samples and directory the same bits are sent ever after."""
        task, privacy = manifest.task, manifest.task.privacy
        # the directory is part of it: with other class means the same noise would show which signs have changed
        question = f"bits of directory {wanted.directory} for samples {wanted.samples}"
        if len(mine) == 0:
            outcome.note = UNMATCHED
            return None
        if not self._affordable(manifest, question):
            outcome.note = _USED_UP
            return None
        _, embedding = self._embed(manifest, cache, mine)
        truth = prototype_bits(embedding, mine.samples.y, directory.global_means)
        seed = int(self.rng.integers(1 << 62))
        seed = self.store.spend(task.id, question, privacy.epsilon, seed, privacy.epsilon_budget, self.clock())
        epsilon = self.store.answer_epsilon(task.id, question)  # by another ε the same noise would tell more bits
        bits = randomize_bits(truth, epsilon, seed)
        name = self._ask(task, wanted, {"bits": np.packbits(bits, axis=1)}, cache, outcome)
        spent = self.store.epsilon_spent(task.id)
        revealed = f"{bits.size} sign bits, randomized (ε {epsilon:g} for all of them; ε {spent:g} spent in all)"
        return replace(wanted, files=(name,), epsilon=epsilon, revealed=revealed)

    def _ask(self, task: Task, wanted: Retrieval, queries: tensors.Arrays, cache: Cache, outcome: TaskOutcome) -> str:
        """Search; the digest of the file with the samples found, which is in the cache then."""
        known = cache.retrieval()
        before = known.files if known is not None and known.mode != "directory" else ()
        found = searching.ask(self.cloud, cache, task, wanted.base, queries, before)
        outcome.fetched_bytes += found.fetched_bytes
        return found.name

    def _embed(self, manifest: Manifest, cache: Cache, mine: StoredSamples) -> tuple[np.ndarray, np.ndarray]:
        base = Predictor(cache.read(manifest.base.onnx.digest), threads=self.options.threads)
        return base.run(mine.samples.x)


def _spread(n: int, most: int) -> np.ndarray:
    """At most that many of n rows, evenly spaced: a request has a size limit, and more queries find no better."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))


def _blobs(manifest: Manifest) -> tuple[BlobRef, BlobRef, BlobRef]:
    return manifest.base.weights, manifest.base.onnx, manifest.directory


def _question(manifest: Manifest) -> str:
    return f"cohort of directory {manifest.directory.digest}"


def _fingerprint(digests: Iterable[str]) -> str:
    """Digest over the set of local samples: as long as it stays, the same question would be asked again."""
    return hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()


def _describe(outcome: TaskOutcome, retrieval: Retrieval) -> None:
    outcome.mode, outcome.packs = retrieval.mode, len(retrieval.files)
    outcome.epsilon, outcome.revealed = retrieval.epsilon, retrieval.revealed
