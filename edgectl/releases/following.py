"""Do what the cloud orders: fetch, judge, switch, make sure, commit; or go back. Part of a sync, after the manifest.

Each step ends with one atomic write of the record (`record.py`), so a sync that is cut off anywhere goes on in the next
one. A step that was begun `ATTEMPTS` times and never ended is taken to be what cuts it off: the release has failed.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from edgectl import __version__
from edgectl.cache import Cache
from edgectl.cloud import Cloud
from edgectl.enrolment import Enrolment
from edgectl.home import Home
from edgectl.inference import Predictor
from edgectl.models import Models
from edgectl.recipes import suits
from edgectl.releases import gate, overlay, record
from edgectl.releases.overlay import InForce
from edgectl.releases.record import Record
from edgectl.store import Store
from edgectl.telemetry.reading import Reading
from edgewire import golden
from edgewire.decoding import convert
from edgewire.errors import (
    Busy,
    Conflict,
    CorruptFile,
    EdgeError,
    Expired,
    Forged,
    InvalidMessage,
    NotFound,
    NotGranted,
    Outdated,
    RetryLater,
    TimedOut,
    TooLarge,
    UsageError,
    WrongClock,
)
from edgewire.files import exclusive, write_atomic
from edgewire.messages import BlobRef, Manifest
from edgewire.releases import BasePayload, Check, Kind, Order, Outcome, Policy, Verdict, proof_of, version_key
from edgewire.signing import open_sealed

_LOG = logging.getLogger(__name__)

ATTEMPTS = 3
_NEVER_TAKEN = (Conflict, NotFound, NotGranted, Outdated, TooLarge, UsageError)
_ETAG = "release.etag"


@dataclass(frozen=True)
class Board:
    """What this board is, for a release: profile: by its name; read: its state; fetch: brings a blob into the cache and
    says how many bytes came; threads: of onnxruntime; reports: whether the cloud is told what the gate measured."""

    home: Home
    enrolment: Enrolment
    store: Store
    profile: str
    read: Callable[[], Reading]
    clock: Callable[[], float]
    fetch: Callable[[Cache, str, BlobRef], int]
    threads: int = 1
    reports: bool = True


@dataclass
class Followed:
    """manifest: with the base that counts now; keep: digests that must stay in the cache; notes: for people."""

    manifest: Manifest
    keep: set[str]
    fetched_bytes: int = 0
    notes: tuple[str, ...] = ()


class Following:
    """One task of one board. epoch: of the manifest, which is the general one."""

    def __init__(self, board: Board, manifest: Manifest, *, epoch: int) -> None:
        self._board, self._general, self._epoch = board, manifest, epoch
        self._task = manifest.task.id
        self._cache = Cache(board.home, self._task)
        self._notes: list[str] = []
        self._fetched = 0

    def follow(self, cloud: Cloud) -> Followed:
        """Ask for orders, carry them out, tell how it went. Raises what the network and the disk refuse; what is wrong
        with a release is told of in the notes, and stands in nobody's way."""
        self.recover()
        answer = cloud.orders(self._task, self._known_etag())
        done = [self._believe(raw) for raw in (answer[0].orders if answer is not None else ())]
        done += [self._carry_out(kind) for kind in record.KINDS]
        self._tell(cloud)
        if answer is not None and all(done):
            write_atomic(self._cache.folder / _ETAG, answer[1].encode(), mode=0o600)
        self._complete()
        return Followed(self.effective(), self.kept(), self._fetched, tuple(self._notes))

    def _known_etag(self) -> str:
        """Of the orders that were carried out; '' where no record says that there were any."""
        believed = any(self._record(kind).floor for kind in record.KINDS)
        return self._cache.etag(_ETAG) if believed else ""

    def recover(self) -> None:
        """Go on where a switch was cut off: commit what answers as it should, else go back. Needs no network."""
        for kind in record.KINDS:
            if self._record(kind).stage == "trial":
                self._make_sure(kind)

    def effective(self) -> Manifest:
        """The manifest with the base that counts now."""
        return overlay.effective(self._board.home, self._board.enrolment, self._general, epoch=self._epoch)

    # Orders

    def _believe(self, raw: str) -> bool:
        """Take an order that is signed, fresh, for this board and newer than all before; else say why not. Whether it
        need not be asked for again."""
        try:
            found = self._verified(raw)
            known = self._record(found.order.kind)
            if found.order.action == "revert":
                self._go_back(found, known)
            elif self._is_known(found, known):
                self._refresh(raw, found, known)
            else:
                self._check_newer(found, known)
                self._put(found.order.kind, self._begun(raw, found, known))
        except (Forged, Expired, WrongClock, Outdated, InvalidMessage) as error:
            _LOG.warning("a release of task '%s' is refused: %s", self._task, error)
            self._notes.append(f"a release is refused: {error.message}")
            return isinstance(error, (Outdated, InvalidMessage))  # clocks and keys are put right
        except Busy as error:
            self._notes.append(f"a release waits: {error.message}")
            return False
        return True

    def _verified(self, raw: str) -> InForce:
        keys = self._board.enrolment.trust.signing_keys
        statement = open_sealed(raw.encode(), keys, type="release", task=self._task, now=self._board.clock())
        order = convert(Order, statement.body, what="order")
        if order.board != self._board.enrolment.board:
            raise Forged("it is for another board")
        if problem := order.problem():
            raise InvalidMessage(problem)
        return InForce(order, statement)

    def _is_known(self, found: InForce, known: Record) -> bool:
        mine = overlay.stored(known.order)  # the key that signed it may be trusted no more: this one vouches anew
        return mine is not None and _identity(mine) == _identity(found)

    def _refresh(self, raw: str, found: InForce, known: Record) -> None:
        """The same order once more, perhaps with packs that were made anew: they are here before they count."""
        if isinstance(found.order.payload, BasePayload) and known.stage in ("trial", "committed"):
            self._fetched += self._board.fetch(self._cache, "directory", found.order.payload.directory)
        self._put(found.order.kind, replace(known, order=raw))

    def _check_newer(self, found: InForce, known: Record) -> None:
        statement = found.statement
        if (statement.epoch, statement.version) <= (known.epoch, known.floor):
            raise Outdated(f"it is order {statement.version}, already known: {known.floor}")

    def _begun(self, raw: str, found: InForce, known: Record) -> Record:
        epoch, floor = found.statement.epoch, found.statement.version
        return Record(raw, known.in_force, "ready", epoch, floor, outcomes=known.outcomes)

    def _go_back(self, found: InForce, known: Record) -> None:
        """Told twice, it changes nothing. What was personalized on the base that is called back goes with it."""
        if (found.statement.epoch, found.statement.version) == (known.epoch, known.floor):
            return
        self._check_newer(found, known)
        release = found.order.release
        slots = {name: overlay.stored(getattr(known, name)) for name in ("order", "before")}
        gone = {name: slot.order for name, slot in slots.items() if slot is not None and slot.order.release == release}
        after = replace(known, epoch=found.statement.epoch, floor=found.statement.version)
        if "order" in gone:
            after = replace(after, stage="reverted", attempts=0, reason="the cloud called it back")
        if "before" in gone:
            after = replace(after, before="")
        told = self._outcome(found, "reverted", ())
        with self._without_personal(gone.values()):
            self._put(found.order.kind, replace(after, outcomes=(*after.outcomes, told)))
        self._notes.append(f"release {release} was called back")

    @contextmanager
    def _without_personal(self, called_back: Iterable[Order]) -> Iterator[None]:
        """Put personal models away that were made on bases that are called back, and let none be trained meanwhile.
        Raises Busy if a training runs: the next sync goes back then."""
        bad = {one.payload.base.onnx.digest for one in called_back if isinstance(one.payload, BasePayload)}
        if not bad:
            yield
            return
        models = Models(self._board.home, self._task)
        with exclusive(self._board.home.lock("train"), doing="training on this board"):
            while any(slot.state == "current" and slot.lineage.base in bad for slot in models.slots()):
                models.rollback()
            yield

    # Steps

    def _carry_out(self, kind: Kind) -> bool:
        """Whether nothing is left to do for now."""
        known = self._record(kind)
        if known.stage != "ready":
            return True
        found = overlay.opened(known.order, self._board.enrolment, self._task)
        if found is None:
            return False
        if found.statement.expires_at < self._board.clock():
            self._notes.append(f"release {found.order.release} waits: its order has expired, and there is no new one")
            return False
        if refused := self._unfit(found.order):
            self._end(kind, found, "failed", [refused], f"this board is not what it is for ({refused.name})")
            return True
        if isinstance(found.order.policy, Policy):
            return self._take_policy(found, found.order.policy)
        return isinstance(found.order.payload, BasePayload) and self._take_base(found, found.order.payload)

    def _unfit(self, order: Order) -> Check | None:
        if order.profiles and self._board.profile not in order.profiles:
            return Check("profile", False)
        if version_key(__version__) < version_key(order.minimum):
            return Check("version", False)
        return None

    def _take_policy(self, found: InForce, policy: Policy) -> bool:
        known = suits(policy.recipe, self._general.task)
        reason = "" if known else f"this edgectl knows no recipe '{policy.recipe}' for this task"
        self._end("policy", found, "committed" if known else "failed", [Check("recipe", known)], reason)
        return True

    def _take_base(self, found: InForce, payload: BasePayload) -> bool:
        try:
            for what, ref in blobs(payload):
                self._fetched += self._board.fetch(self._cache, what, ref)
        except (RetryLater, TimedOut):
            raise
        except EdgeError as error:
            if error.exit_code == 6:  # no room: nothing is wrong with the release
                raise
            self._notes.append(f"release {found.order.release} cannot be fetched: {error.message}")
            return False
        if payload.base.version <= self._general.base.version:  # the manifest has brought it
            self._end("base", found, "committed", [], "")
            return True
        if not self._begin("base", found):
            return True
        verdict = self._judge(found.order, payload)
        if verdict.state == "later":
            self._put("base", replace(self._record("base"), attempts=0, reason=verdict.reason))
            self._notes.append(f"release {found.order.release} waits: {verdict.reason}")
            return False
        if verdict.state == "failed":
            self._end("base", found, "failed", verdict.checks, verdict.reason)
            return True
        switched = replace(self._record("base"), stage="trial", attempts=0, checks=tuple(verdict.checks))
        self._put("base", switched)
        self._make_sure("base")
        return True

    def _judge(self, order: Order, payload: BasePayload) -> gate.Verdict:
        serving = self.effective()
        try:
            self._cache.read(payload.base.onnx.digest)
            expected = golden.from_bytes(self._cache.read(payload.golden.digest))
        except (InvalidMessage, CorruptFile, NotFound) as error:
            return gate.Verdict("failed", error.message, [Check("golden", False)])
        incumbent = self._cache.path(serving.base.onnx.digest)
        bench = gate.Bench(
            task=serving.task,
            expected=expected,
            incumbent=incumbent if incumbent.is_file() else None,
            samples=self._board.store.samples(serving.task).samples,
            limits=order.limits,
            read=self._board.read,
            threads=self._board.threads,
        )
        return gate.judge(self._cache.path(payload.base.onnx.digest), bench)

    def _begin(self, kind: Kind, found: InForce) -> bool:
        """Count one more attempt, before anything that may take the process down. False: there were enough."""
        known = self._record(kind)
        if known.attempts >= ATTEMPTS:
            checks = [*known.checks, Check("ended", False, float(known.attempts), float(ATTEMPTS))]
            self._end(kind, found, "failed", checks, f"it was cut off {known.attempts} times")
            return False
        self._put(kind, replace(known, attempts=known.attempts + 1))
        return True

    def _make_sure(self, kind: Kind) -> None:
        """After the switch: read it from where it serves, and have it answer once more. Then the commit marker."""
        known = self._record(kind)
        found = overlay.opened(known.order, self._board.enrolment, self._task)
        if found is None or not isinstance(found.order.payload, BasePayload):
            self._put(kind, replace(known, stage="ready", attempts=0))  # until it comes under a key that is trusted
            return
        if not self._begin(kind, found):
            return
        payload, answers = found.order.payload, False
        try:
            x, expected = golden.from_bytes(self._cache.read(payload.golden.digest))
            serving = Predictor(self._cache.read(payload.base.onnx.digest), threads=self._board.threads)
            answers = golden.agree(serving.run(x)[0], expected)
        except Exception as error:  # onnxruntime's share no other base
            _LOG.warning("release %s does not answer after the switch: %s", found.order.release, error)
        checks = [*known.checks, Check("switched", answers)]
        verdict: Verdict = "committed" if answers else "failed"
        self._end(kind, found, verdict, checks, "" if answers else "it did not answer after the switch")

    def _end(self, kind: Kind, found: InForce, verdict: Verdict, checks: list[Check], reason: str) -> None:
        """The commit marker, or the way back; and in the same write what the cloud is to be told."""
        known = self._record(kind)
        outcomes = (*known.outcomes, self._outcome(found, verdict, tuple(checks)))
        stage: record.Stage = "committed" if verdict == "committed" else "failed"
        ended = replace(known, stage=stage, attempts=0, reason=reason, checks=tuple(checks), outcomes=outcomes)
        self._put(kind, ended)
        what = "is in force" if verdict == "committed" else f"is refused by this board: {reason}"
        self._notes.append(f"release {found.order.release} {what}")

    def _outcome(self, found: InForce, verdict: Verdict, checks: tuple[Check, ...]) -> Outcome:
        order, counter = found.order, found.statement.version
        checks = checks if self._board.reports else ()
        told = Outcome(secrets.token_hex(16), order.board, order.release, counter, verdict, checks, __version__)
        if verdict == "committed" and isinstance(order.payload, BasePayload):
            return replace(told, proof=proof_of(self._cache.path(order.payload.base.onnx.digest), order.challenge))
        return told

    def _tell(self, cloud: Cloud) -> None:
        """What the cloud will never take is not told again; what something else keeps back is, with the next sync."""
        for kind in record.KINDS:
            for outcome in self._record(kind).outcomes:
                try:
                    cloud.tell_outcome(self._task, outcome)
                except (RetryLater, TimedOut):
                    raise
                except _NEVER_TAKEN as error:
                    _LOG.warning("the cloud does not take how release %s went: %s", outcome.release, error)
                except EdgeError as error:
                    _LOG.warning("the cloud is told later how release %s went: %s", outcome.release, error)
                    continue
                known = self._record(kind)
                self._put(kind, replace(known, outcomes=tuple(one for one in known.outcomes if one != outcome)))

    def _complete(self) -> None:
        """Fetch again what a release brought and what was removed since, because it was damaged."""
        serving = self.effective()
        if serving.base == self._general.base:
            return
        files = {"base weights": serving.base.weights, "base model": serving.base.onnx, "directory": serving.directory}
        for what, ref in files.items():
            if not self._cache.has(ref):
                self._fetched += self._board.fetch(self._cache, what, ref)

    # The record

    def _record(self, kind: Kind) -> Record:
        return record.read(self._board.home, self._task, kind)

    def _put(self, kind: Kind, changed: Record) -> None:
        if changed != self._record(kind):
            record.write(self._board.home, self._task, kind, changed)

    def kept(self) -> set[str]:
        """What either slot names, and what the manifest does: to go back needs no network."""
        known = self._record("base")
        keep = {self._general.base.onnx.digest, self._general.base.weights.digest, self._general.directory.digest}
        slots = [known.before, *([known.order] if known.stage in ("ready", "trial", "committed") else [])]
        for raw in slots:
            found = overlay.opened(raw, self._board.enrolment, self._task)
            if found is not None and isinstance(found.order.payload, BasePayload):
                keep |= {ref.digest for _, ref in blobs(found.order.payload)}
        return keep


def _identity(found: InForce) -> tuple[str, int, int, str]:
    payload = found.order.payload
    base = payload.base.onnx.digest if isinstance(payload, BasePayload) else ""
    return found.order.release, found.statement.epoch, found.statement.version, base


def blobs(payload: BasePayload) -> tuple[tuple[str, BlobRef], ...]:
    base = payload.base
    return (
        ("base weights", base.weights),
        ("base model", base.onnx),
        ("directory", payload.directory),
        ("golden answers", payload.golden),
    )
