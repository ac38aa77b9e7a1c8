"""The story of a personal model: what is on disk -> recipes -> evidence -> choice -> train -> export -> parity ->
commit.

Opens no socket: `retraining.seal_network` makes sure of it. One sample per class is a normal case: then the rehearsal
decides.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from edgectl import __version__
from edgectl.board import memory
from edgectl.budget import CUT_BY, Cost, Spent
from edgectl.checkpoints import Checkpoints
from edgectl.home import Home
from edgectl.inference import Predictor
from edgectl.material import Material, prepare
from edgectl.models import GOLDEN, MODEL, WEIGHTS, Lineage, Models, Slot
from edgectl.retraining import Options, Outcome, asked_digest, published_digest, trained_on_withdrawn
from edgectl.standing import measured_gain
from edgectl.store import Score, Store
from edgelearn.device import what_computes
from edgelearn.export import PARITY_TOLERANCE, parity, patch_onnx
from edgelearn.metrics import scores_by_fold
from edgelearn.models.build import Weights, load, outputs
from edgelearn.personalize.choose import Choice, can_tell, choose, shortlist, veto
from edgelearn.personalize.recipes import RECIPES, applicable, choices
from edgelearn.personalize.setting import Personal, Setting
from edgelearn.personalize.veto import Evidence, gather
from edgewire import golden, tensors
from edgewire.errors import IntegrityError, ResourcesRefused, UsageError
from edgewire.messages import Manifest
from edgewire.samples import Samples

ENOUGH_UNSEEN = 3  # samples that the incumbent must not have seen before it is scored on them
HEAD_RECIPES = ("auto", "base", "local")
BELIEF_RECORDINGS = 10  # how many new recordings weigh as much as what was believed when a model was made


def train(
    home: Home, manifest: Manifest, store: Store, options: Options, *, now: float, due: str = "asked for"
) -> Outcome:
    """Make the personal model that the evidence supports, and let it serve. The caller holds the lock, and has asked
    `retraining.due`, which gives the reason.

    Raises NothingToDo, NotFound, CorruptFile, UnsupportedBoard, IntegrityError (parity), TimedOut or ResourcesRefused
    (the budget ended before anything was trained), or what the disk refuses; whatever happens, the model that served
    before still serves.
    """
    started = time.monotonic()
    options.on_event(f"why: {due}")
    try:
        outcome = _train(home, manifest, store, options, now=now)
    except Spent as spent:
        options.decide("stop", f"stop: {spent.detail}", budget=spent.kind)
        raise spent.refusal() from None
    outcome.due, outcome.peak_mib = due, memory.peak_mib()
    outcome.seconds = round(time.monotonic() - started, 3)
    outcome.events = options.events
    if options.governor is not None:
        energy = options.governor.energy()
        outcome.joules = None if energy.joules is None else round(energy.joules, 1)
        outcome.joules_above_idle = None if energy.above_idle_j is None else round(energy.above_idle_j, 1)
        outcome.steps = options.governor.steps
        per_step = energy.per(outcome.steps)
        outcome.joules_per_step = None if per_step is None else round(per_step, 4)
        outcome.energy_quality, outcome.energy_readings = energy.quality, energy.readings
        outcome.energy_gap_s = round(energy.largest_gap_s, 1)
    return outcome


def _train(home: Home, manifest: Manifest, store: Store, options: Options, *, now: float) -> Outcome:
    if options.recipe not in ("auto", *(there := applicable(manifest.task))):
        raise UsageError(f"task '{manifest.task.id}' has no recipe '{options.recipe}'", hint=f"use {', '.join(there)}")
    published = published_digest(home, manifest)
    material = prepare(
        home, manifest, store, seed=options.seed, device=options.device, threads=options.threads, budget=options.budget,
        batch_rows=options.batch_rows, head_above=options.head_above, on_step=options.on_step,
    )  # fmt: skip
    omitted = [f"memory: {line}" for line in material.omitted]
    for line in omitted:
        options.decide("memory", line, limit_mib=options.budget.memory_mib)
    if material.setting.settings.head_only:
        options.decide("scope", "scope: this board trains the head of this model alone")
        _check_scope(options.recipe)
    kept = Checkpoints(
        home, manifest.task.id, computed_by=f"{__version__}, {what_computes(material.setting.device)}",
        tell=options.decide,
    )  # fmt: skip
    material = replace(material, setting=replace(material.setting, keeper=kept))
    work = _Work(material, options, store.scores(manifest.task.id), omitted)
    models = Models(home, manifest.task.id)
    incumbent = models.current()
    evidence = work.gather(incumbent)
    choice, stays, personal = work.settle(incumbent, evidence)
    outcome = _outcome(work, choice, published)
    if stays is not None:
        outcome.shipped, outcome.reason = "incumbent", stays
        options.on_event(f"keep: the model that serves stays; {stays}")
    elif personal is None:
        options.on_event("ship: the base model serves as before")
    else:
        _count(personal, outcome, options)
        scored = max((score.version or 0 for score in work.scores), default=0)
        _ship(models, material, personal, choice, outcome, options, scored=scored, now=now)
    if not work.cut:
        kept.clear()
    return outcome


def _check_scope(recipe: str) -> None:
    """Where the head alone may be trained."""
    if recipe not in HEAD_RECIPES:
        raise ResourcesRefused(
            f"recipe '{recipe}' trains more than the head, which is all that this board may train",
            hint="use --recipe auto, or allow more: edgectl config set train_scope all, or --max-memory-mib",
        )


@dataclass
class _Work:
    """Trainings within a budget, in the order in which they are worth most.

    With a limit of time or energy, what the rehearsal alone would choose (`local`, where it would choose the base) is
    trained first, so that there is something to ship; then the evidence is gathered, recipe by recipe, while as much is
    left as a training takes; then the choice is trained, if it is another. Without one, only the choice is trained. A
    training that is cut off is not shipped, no evidence speaks for a half-trained model; the next one goes on with it.
    """

    material: Material
    options: Options
    scores: Sequence[Score]
    omitted: list[str]
    cut: str = ""
    done: dict[str, Personal] = field(default_factory=dict)
    most: Cost = field(default_factory=Cost)  # of one training so far

    def gather(self, incumbent: Slot | None) -> Evidence | None:
        """Evidence about every recipe in question, as far as the budget goes. Raises Spent if not even a first recipe
        could be trained."""
        if incumbent is None and self.options.recipe == "auto" and self._rehearsed_well():
            self.options.on_event(_data_line(self.material.setting))
            self.options.on_event("evidence: the cloud's rehearsal is surer than so few samples could make it")
            return None
        if not self.options.budget.may_end_early:
            return _evidence(self.material.setting, self.options, _names(self.material, self.options))
        first = self._first()
        self.train(first)
        found: Evidence | None = None
        names = [name for name in _names(self.material, self.options) if name != "base"]
        names.sort(key=lambda name: name != first)  # what would be shipped now is doubted first
        for number, name in enumerate(names):
            try:
                with self.options.budget.leaving(self.most):
                    part = _evidence(self.material.setting, self.options, ("base", name), quiet=number > 0)
            except Spent as spent:
                self._cut(spent, [f"evidence for {name}" for name in names[number:]])
                break
            if part is None:
                return None
            found = part if found is None else found.joined(part)
        return found

    def _rehearsed_well(self) -> bool:
        """Whether folds could not change the choice. An incumbent is always judged by them."""
        setting, names = self.material.setting, _names(self.material, self.options)
        shots = setting.local.shots(setting.n_classes)
        return not can_tell(names, self.material.prior, recordings=setting.local.recordings, shots=shots)

    def settle(self, incumbent: Slot | None, evidence: Evidence | None) -> tuple[Choice, str | None, Personal | None]:
        """The choice, why the incumbent stays (None: it does not), and what was trained (None: the base)."""
        names: Sequence[str] = _names(self.material, self.options)
        if self.cut in ("memory", "heat", "power"):  # not a moment longer
            names = self._ready(names)
        try:
            return self._settle(incumbent, evidence, names)
        except Spent as spent:
            if not self.done.keys() - {"base"}:
                raise
            wanted = _choose(self.material, evidence, self.options, names).recipe
            self._cut(spent, [f"training of {wanted}"])
            return self._settle(incumbent, evidence, self._ready(names))

    def _settle(
        self, incumbent: Slot | None, evidence: Evidence | None, names: Sequence[str]
    ) -> tuple[Choice, str | None, Personal | None]:
        choice = _choose(self.material, evidence, self.options, names)
        stays = _incumbent_stays(incumbent, self.material, evidence, choice, self.options, self.scores)
        if self.cut and choice.recipe == "base" and incumbent is not None and evidence is None and stays is None:
            stays = f"{CUT_BY[self.cut]} ended it before anything spoke against it"
        if stays is not None or (choice.recipe == "base" and incumbent is None):
            _tell_beliefs(choice, self.options)
            return choice, stays, None
        personal = self.train(choice.recipe)
        _tell_beliefs(choice, self.options)
        return choice, None, personal

    def train(self, name: str) -> Personal:
        """The recipe's result; the same one again if it was trained before. Raises Spent."""
        if name not in self.done:
            before = self.options.budget.used()
            self.done[name] = RECIPES[name](self.material.setting)
            self.most = self.most.at_least(self.options.budget.used() - before)
        return self.done[name]

    def _first(self) -> str:
        if self.options.recipe != "auto":
            return self.options.recipe
        chosen = _choose(self.material, None, self.options, _names(self.material, self.options)).recipe
        return "local" if chosen == "base" else chosen

    def _ready(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if name == "base" or name in self.done]

    def _cut(self, spent: Spent, omitted: Sequence[str]) -> None:
        self.cut = self.cut or spent.kind
        self.omitted += omitted
        line = f"cut: {spent.detail}; left out: {', '.join(omitted)}"
        self.options.decide("cut", line, budget=spent.kind)


def _names(material: Material, options: Options) -> tuple[str, ...]:
    """The recipes in question, simplest first."""
    if options.recipe == "auto":
        setting = material.setting
        return shortlist(choices(setting), material.prior, shots=setting.local.shots(setting.n_classes))
    return tuple(dict.fromkeys(("base", "local", options.recipe)))


def compare(
    material: Material, recipes: Sequence[str], held_out: Samples
) -> dict[str, tuple[Personal, np.ndarray, float]]:
    """Train each recipe on the board's samples and score it on samples that it never saw.

    Returns recipe -> (result, logits (n, classes), seconds). Nothing is installed. Raises ResourcesRefused for a recipe
    that trains more than this board may, or memory has room for, and Spent.
    """
    found = {}
    for name in recipes if material.setting.settings.head_only else ():
        _check_scope(name)
    for name in recipes:
        started = time.monotonic()
        personal = RECIPES[name](material.setting)
        seconds = time.monotonic() - started
        model = load(material.setting.task, personal.weights).to(material.setting.device)
        found[name] = (personal, outputs(model, held_out.x)[0], seconds)
    return found


def _data_line(setting: Setting) -> str:
    shots, people = setting.local.shots(setting.n_classes), len(setting.candidates)
    return f"data: {len(setting.local)} local samples, {shots:.1f} per class, {people} candidate contributors"


def _evidence(setting: Setting, options: Options, names: Sequence[str], *, quiet: bool = False) -> Evidence | None:
    """These recipes, cross-validated on the board's own samples. Raises Spent. quiet: it was told what there is."""
    if options.recipe != "auto" and not options.veto:
        return None
    say = (lambda line: None) if quiet else options.on_event
    say(_data_line(setting))
    evidence = gather(setting, names, on_fold=options.on_progress)
    if evidence is None:
        say("evidence: too few recordings per class for folds; what the cloud's rehearsal found decides")
    else:
        say(f"evidence: {len(evidence.rows)} samples were each predicted without having been trained on")
    return evidence


def _choose(material: Material, evidence: Evidence | None, options: Options, names: Sequence[str]) -> Choice:
    """names: what may be shipped, with 'base'. An explicit recipe that is not among them was cut off."""
    shots = material.setting.local.shots(material.setting.n_classes)
    if options.recipe == "auto" or options.recipe not in names:
        return choose(names, material.prior, evidence, shots=shots)
    beliefs = choose(names, material.prior, evidence, shots=shots).beliefs
    if not options.veto:
        return Choice(options.recipe, "asked for, without a veto", beliefs)
    fallbacks = [name for name in ("base", "local") if name in names]
    recipe, reason = veto(options.recipe, fallbacks, beliefs)
    return Choice(recipe, reason, beliefs)


def _tell_beliefs(choice: Choice, options: Options) -> None:
    for belief in choice.beliefs:
        options.on_event(f"belief: {belief}")
    options.on_event(f"choice: {choice.recipe} ({choice.reason})")


def _outcome(work: _Work, choice: Choice, published: str) -> Outcome:
    material, options = work.material, work.options
    return Outcome(
        task=material.manifest.task.id,
        requested=options.recipe,
        shipped=choice.recipe,
        reason=choice.reason,
        changed=False,
        asked=asked_digest(options),
        published=published,
        newest_sample=int(material.mine.ids.max()),
        mode=material.mode,
        local_samples=len(material.mine),
        gain=_gain(choice),
        cut=work.cut or ("memory" if material.omitted else ""),
        omitted=list(work.omitted),
        max_seconds=options.budget.seconds,
        max_joules=options.budget.joules,
        max_memory_mib=options.budget.memory_mib,
        decisions=[str(belief) for belief in choice.beliefs],
    )


def _gain(choice: Choice) -> float | None:
    gain = next(belief.gain for belief in choice.beliefs if belief.recipe == choice.recipe)
    return gain if math.isfinite(gain) else None


def _count(personal: Personal, outcome: Outcome, options: Options) -> None:
    outcome.candidates, outcome.kept = personal.candidates, len(personal.kept)
    outcome.candidate_samples, outcome.outside_samples = personal.candidate_samples, personal.outside_samples
    outcome.decisions += personal.decisions
    for line in personal.decisions:
        options.on_event(f"{outcome.shipped}: {line}")


def _incumbent_stays(
    incumbent: Slot | None,
    material: Material,
    evidence: Evidence | None,
    choice: Choice,
    options: Options,
    scores: Sequence[Score],
) -> str | None:
    """Why the model that serves should go on serving, or None.

    It is scored only on samples that it was not trained on; the challenger on the same ones, from its folds. Where
    there are too few of those, what is believed of each decides, unless the incumbent's belief rests on samples that
    were deleted since. It does not stay if samples in its packs were withdrawn. An explicit recipe without veto is
    never overruled. scores: how new samples were predicted.
    """
    if incumbent is None or (options.recipe != "auto" and not options.veto) or _of_another_task(incumbent, material):
        return None
    if trained_on_withdrawn(incumbent, material.manifest):
        return None
    known = set(incumbent.lineage.samples)
    if evidence is not None and choice.recipe in evidence.hits:
        unseen = np.asarray([material.mine.digests[row] not in known for row in evidence.rows])
        if unseen.sum() >= ENOUGH_UNSEEN:
            return _duel(incumbent, material, evidence, choice.recipe, unseen)
    mine, theirs = _gain(choice), _gain_of(incumbent, material, scores)
    if mine is not None and theirs is not None and mine < theirs and known <= set(material.mine.digests):
        return f"it is believed to gain {100 * theirs:+.1f} points over the base, the new one {100 * mine:+.1f}"
    return None


def _gain_of(incumbent: Slot, material: Material, scores: Sequence[Score]) -> float | None:
    """What the incumbent is believed to gain over the base of today: the belief it was made with, if it was made on
    that base, and what it then gained on new samples. The belief counts as much as BELIEF_RECORDINGS."""
    lineage, base = incumbent.lineage, material.manifest.base
    believed = lineage.gain if lineage.base == base.onnx.digest else None
    metric = material.manifest.task.metric
    measured = measured_gain(scores, version=lineage.version, base_version=base.version, metric=metric)
    if measured is None:
        return believed
    gain, recordings = measured
    if believed is None:
        return gain if recordings >= BELIEF_RECORDINGS else None
    return (BELIEF_RECORDINGS * believed + recordings * gain) / (BELIEF_RECORDINGS + recordings)


def _of_another_task(incumbent: Slot, material: Material) -> bool:
    """Whether its answers mean something else: another cloud's task of the same name, with other inputs or labels."""
    old, new = incumbent.lineage.task, material.manifest.task
    return (old.input, old.labels) != (new.input, new.labels)


def _duel(incumbent: Slot, material: Material, evidence: Evidence, recipe: str, unseen: np.ndarray) -> str | None:
    rows, fold, task = evidence.rows[unseen], evidence.fold[unseen], material.manifest.task
    logits, _ = Predictor(incumbent.model).run(material.mine.samples.x[rows])
    old, new = (
        float(scores_by_fold(task.metric, said, material.mine.samples.y[rows], fold).mean())
        for said in (logits, evidence.logits[recipe][unseen])
    )
    if new >= old:
        return None
    return (
        f"on {len(rows)} samples that neither had seen its {task.metric} is {100 * old:.0f} %,"
        f" that of the new one {100 * new:.0f} %"
    )


def _ship(
    models: Models,
    material: Material,
    personal: Personal,
    choice: Choice,
    outcome: Outcome,
    options: Options,
    *,
    scored: int,
    now: float,
) -> None:
    """Export, check parity, install in the slot that does not serve, and commit unless it is only to be staged."""
    onnx = patch_onnx(material.onnx, personal.weights)
    outcome.parity = _check_parity(material, personal.weights, onnx, options)
    golden_x = golden.inputs(material.manifest.task.input)
    files = {
        MODEL: onnx,
        WEIGHTS: tensors.pack(personal.weights, {"format": "weights/1", "task": outcome.task}),
        GOLDEN: golden.to_bytes(golden_x, Predictor(onnx, threads=1).run(golden_x)[0], outcome.task),
    }
    version = models.next_version(scored=scored)
    slot = models.install(_lineage(models, version, material, personal, choice, options, now), files)
    outcome.version, outcome.changed = slot.lineage.version, True
    if options.stage:
        outcome.staged = True
        options.on_event(f"staged: version {outcome.version}; `edgectl model commit` lets it serve")
    else:
        models.commit(slot)
        options.on_event(f"ship: version {outcome.version} serves now ({choice.recipe})")


def _check_parity(material: Material, weights: Weights, onnx: bytes, options: Options) -> float:
    """The exported file must answer as the trained model does, on the board's own samples."""
    x = material.mine.samples.x[:256]
    expected, _ = outputs(load(material.setting.task, weights), x)
    found, _ = Predictor(onnx, threads=1).run(x)
    difference = parity(expected, found)
    if not difference <= PARITY_TOLERANCE:  # also when it is not a number
        raise IntegrityError(
            f"the exported model differs from the trained one by {difference:.2g}", hint="the old model still serves"
        )
    options.on_event(f"export: onnxruntime and torch agree within {difference:.1e}")
    return difference


def _lineage(
    models: Models, version: int, material: Material, personal: Personal, choice: Choice, options: Options, now: float
) -> Lineage:
    return Lineage(
        version=version,
        task=material.manifest.task,
        requested=options.recipe,
        recipe=choice.recipe,
        reason=choice.reason,
        base=material.manifest.base.onnx.digest,
        base_version=material.manifest.base.version,
        packs=material.packs,
        kept=personal.kept,
        samples=tuple(sorted(material.mine.digests)),
        seed=options.seed,
        gain=_gain(choice),
        created_at=now,
        edgectl=__version__,
        release=models.release_of(material.manifest.base.onnx.digest),
    )
