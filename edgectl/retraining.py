"""Does a training pay? Decided before torch is imported, because most runs of a timer find that it does not.

It pays after the first samples, when enough new ones came, a new label, drift, other packs or another base, when
samples that were trained on were deleted, when something else is asked for, or when the task's schedule says so.
"Enough" is what the task's trigger says, else a tenth of what the last training had: what fine-tuning gains grows with
the logarithm of the samples (on the Myo armband 85.2 % at 3 per gesture, 89.7 % at 10: 0.4 points for a tenth more), so
fewer would cost energy for what no board can measure.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from edgectl import __version__, checkpoints
from edgectl.budget import CUT_BY, Budget
from edgectl.cache import Cache
from edgectl.governor.governor import Governor
from edgectl.home import Home
from edgectl.models import Models, Slot
from edgectl.retention import dropped
from edgectl.scoring import score_new
from edgectl.standing import drift
from edgectl.store import Run, Store
from edgewire.decoding import encode
from edgewire.errors import CorruptFile, NothingToDo
from edgewire.files import digest
from edgewire.messages import Manifest, Withdrawals
from edgewire.tasks import Task, Trigger

_EVENTS_KEPT = 500
_LIMITS = {"time": "max_seconds", "energy": "max_joules", "memory": "max_memory_mib"}


@dataclass(frozen=True)
class Options:
    """recipe: one of the recipes or 'auto'; stage: install without letting it serve; veto: whether evidence may
    overrule an explicit recipe; force: train although it does not pay; budget: what it may cost; governor: minds the
    board, after each step; head_above: of a model with more weights than that the head alone is trained (None: every
    model whole); batch_rows: the most rows that pass through the model at once (0: any); stop: raises where a stop was
    asked. on_event: one line for people;
    on_progress(done, total). events: what was decided on the way, for the run's record."""

    recipe: str = "auto"
    seed: int = 0
    device: str = "cpu"
    threads: int = 1
    stage: bool = False
    veto: bool = True
    force: bool = False
    budget: Budget = field(default_factory=Budget)
    governor: Governor | None = None
    head_above: int | None = None
    batch_rows: int = 0
    stop: Callable[[], None] = lambda: None
    on_event: Callable[[str], None] = lambda line: None
    on_progress: Callable[[int, int], None] = lambda done, total: None
    events: list[dict[str, Any]] = field(default_factory=list)

    def on_step(self) -> None:
        """After each step of training. Raises Spent if it has to end, and what `stop` raises."""
        self.stop()
        if self.governor is not None:
            self.governor.step()
        else:
            self.budget.check()

    def decide(self, kind: str, line: str, **known: Any) -> None:
        """Tell what was decided, and remember it with what was known: seconds since the training began, and more."""
        self.on_event(line)
        if len(self.events) < _EVENTS_KEPT:
            self.events.append({"at_s": round(self.budget.used().seconds, 1), "kind": kind, "line": line, **known})


@dataclass
class Outcome:
    """shipped: the recipe whose model serves now (or is staged), 'incumbent' if the old one stays; gain: believed
    gain in accuracy over the base, None where nothing is known; skipped: it did not pay. due: why it was done.

    asked, published: digests of what was asked for and of what the cloud had published; newest_sample: the largest id
    trained on. cut: 'time', 'energy', 'memory', 'heat' or 'power' where that ended it; omitted: what was therefore left
    out. joules: drawn by the whole board, joules_above_idle: without what it draws doing nothing (the profile's idle_w,
    or else its draw when the command began), joules_per_step: of that, each of all `steps`, folds and candidates
    included. energy_quality: 'measured', 'modelled' or 'none', of so many readings, the longest time between two of
    them energy_gap_s."""

    task: str
    requested: str
    shipped: str
    reason: str
    changed: bool
    skipped: bool = False
    due: str = ""
    asked: str = ""
    published: str = ""
    newest_sample: int = 0
    version: int | None = None
    staged: bool = False
    mode: str = "directory"
    local_samples: int = 0
    candidates: int = 0
    kept: int = 0
    candidate_samples: int = 0
    outside_samples: int = 0
    gain: float | None = None
    parity: float | None = None
    cut: str = ""
    omitted: list[str] = field(default_factory=list)
    max_seconds: float | None = None
    max_joules: float | None = None
    max_memory_mib: float | None = None
    joules: float | None = None
    joules_above_idle: float | None = None
    joules_per_step: float | None = None
    steps: int = 0
    energy_quality: str = "none"
    energy_readings: int = 0
    energy_gap_s: float = 0.0
    peak_mib: float | None = None
    seconds: float = 0.0
    decisions: list[str] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Due:
    """Why training pays; or, where it does not, the outcome that says so."""

    reason: str
    skipped: Outcome | None = None


def seal_network() -> None:
    """From here on this process opens no connection. An audit hook cannot be removed again."""

    def refuse(event: str, arguments: tuple[object, ...]) -> None:
        if event in ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto"):
            raise PermissionError(f"training opens no socket, but something asked for {event}")

    sys.addaudithook(refuse)


def due(home: Home, manifest: Manifest, store: Store, options: Options, *, now: float) -> Due:
    """Whether to train. First puts right what was damaged, and scores new samples before anything is trained on them.

    The caller holds the lock. Raises NothingToDo without samples.
    """
    models = Models(home, manifest.task.id)
    recovered = _recover(models, options)
    had = store.tally(manifest.task.id, 0).new
    if had == 0:
        raise NothingToDo("there are no labelled samples to train on", hint="edgectl data add FILE")
    score_new(home, manifest, store, now=now, threads=options.threads)
    last = store.last_training(manifest.task.id)
    if options.force:
        return Due("it was forced")
    if last is None:
        first = _trigger(manifest.task).first
        if had < first:
            return Due("", _too_few(manifest.task, had, first, options))
        return Due("no training has ended yet")
    reason = recovered or _changed(home, manifest, store, options, last, now=now)
    return Due(reason) if reason else Due("", _skip(home, manifest, store, options, last, models))


def asked_digest(options: Options) -> str:
    """Digest of what was asked for."""
    return digest(encode([options.recipe, options.seed, options.veto, options.head_above, __version__]))


def published_digest(home: Home, manifest: Manifest) -> str:
    """Digest of what the cloud had published: base, directory, packs.

    What an embedding search brought changes with every sample that was asked about, so there the directory stands for
    the pool, and the number of withdrawals for what left it.
    """
    retrieval = Cache(home, manifest.task.id).retrieval()
    in_packs = retrieval is None or retrieval.mode == "directory"
    files = retrieval.files if retrieval is not None and in_packs else ()
    withdrawn = [] if in_packs or retrieval is None or retrieval.withdrawals == 0 else [retrieval.withdrawals]
    return digest(encode([manifest.base.onnx.digest, manifest.directory.digest, files, *withdrawn]))


def _recover(models: Models, options: Options) -> str:
    """What happened if the model that served was damaged: the previous one or the base serves from here on."""
    try:
        models.current()
    except CorruptFile as error:
        previous = models.rollback()
        serves = f"version {previous.lineage.version}" if previous else "the base model"
        options.on_event(f"the model that served is unusable, {serves} serves instead: {error.message}")
        return "the model that served was damaged"
    return ""


def _changed(home: Home, manifest: Manifest, store: Store, options: Options, last: Run, *, now: float) -> str:
    """What is different from the last training and reason enough; '' if nothing is."""
    record = last.record
    if record.get("published") != published_digest(home, manifest):
        serving = Models(home, manifest.task.id).current()
        if serving is not None and trained_on_withdrawn(serving, manifest):
            return "samples that the model may have been trained on were withdrawn"
        return "a new base model, directory or packs arrived"
    if record.get("asked") != asked_digest(options):
        return "something else is asked for than last time"
    if record.get("cut") and _more_generous(options.budget, record):
        return f"{CUT_BY[str(record['cut'])]} that cut the last training is larger now"
    if record.get("cut") and checkpoints.waiting(home, manifest.task.id):
        return f"{CUT_BY[str(record['cut'])]} cut the last training, which can go on"
    trigger = _trigger(manifest.task)
    drifted = _drifted(store, manifest, last) if trigger.drift else ""
    return drifted or _new_samples(store, manifest.task.id, last, trigger, now=now)


def trained_on_withdrawn(serving: Slot, manifest: Manifest) -> bool:
    """Whether a model was made with packs whose samples their contributors have withdrawn since."""
    withdrawals = manifest.withdrawals
    return isinstance(withdrawals, Withdrawals) and bool(set(serving.lineage.packs) & set(withdrawals.packs))


def _more_generous(budget: Budget, record: dict[str, object]) -> bool:
    kind = str(record["cut"])
    if kind not in _LIMITS:  # heat and power pass by themselves
        return False
    allowed = {"time": budget.seconds, "energy": budget.joules, "memory": budget.memory_mib}[kind]
    before = record.get(_LIMITS[kind])
    if not isinstance(before, (int, float)):  # what cut it was the machine's memory, which no budget makes larger
        return False
    return allowed is None or allowed > before


def _new_samples(store: Store, task_id: str, last: Run, trigger: Trigger, *, now: float) -> str:
    tally = store.tally(task_id, last.newest_sample)
    had = int(last.record.get("local_samples", 0))
    gone = had - tally.old - dropped(store, task_id, last.newest_sample)
    if gone > 0:
        return f"{gone} of the samples that the last training had were deleted"
    if tally.new_labels:
        return f"the first samples of {', '.join(tally.new_labels)} came"
    if tally.new and tally.new >= trigger.new_share * had:
        return f"{tally.new} new samples came, the last training had {had}"
    # a clock that was set back since must not keep the schedule waiting until it has caught up
    waits = 0 <= now - last.started_at < 3600 * trigger.every_hours
    if tally.new and trigger.every_hours and not waits:
        return f"{tally.new} new samples came, and the task wants a training every {trigger.every_hours:g} hours"
    return ""


def _trigger(task: Task) -> Trigger:
    return task.trigger if isinstance(task.trigger, Trigger) else Trigger()


def _drifted(store: Store, manifest: Manifest, last: Run) -> str:
    scores = store.scores(manifest.task.id)
    if not scores:
        return ""
    seen = drift(scores, metric=manifest.task.metric, answered=last.newest_sample)
    return f"drift: {seen.detail}" if seen.state == "drift" else ""


def _too_few(task: Task, had: int, first: int, options: Options) -> Outcome:
    reason = f"the task wants {first} samples before the first training, there are {had} (--force trains anyway)"
    options.on_event(f"skip: {reason}")
    return Outcome(task.id, options.recipe, "base", reason, False, True, local_samples=had)


def _skip(home: Home, manifest: Manifest, store: Store, options: Options, last: Run, models: Models) -> Outcome:
    tally = store.tally(manifest.task.id, last.newest_sample)
    if tally.new:
        share = _trigger(manifest.task).new_share
        few = "a tenth" if share == Trigger().new_share else f"{share:g} ×"
        reason = (
            f"it would not pay: {tally.new} new samples are less than {few} of the {tally.old} of the last training,"
            " there is no drift, and base and packs are the same (--force trains anyway)"
        )
    else:
        reason = "nothing changed since the last training: same samples, base and packs (--force trains anyway)"
    if last.record.get("cut"):
        reason += f"; {CUT_BY[str(last.record['cut'])]} cut the last training"
    if (staged := models.staged()) is not None:
        reason += f"; version {staged.lineage.version} waits for `edgectl model commit`"
    options.on_event(f"skip: {reason}")
    serving = models.current()
    return Outcome(
        manifest.task.id, options.recipe, str(last.outcome), reason, False, True,
        version=serving.lineage.version if serving else None, gain=last.record.get("gain"),
        mode=str(last.record.get("mode", "directory")), local_samples=tally.old + tally.new,
    )  # fmt: skip
