"""The story of a personal model: what is on disk -> recipes -> evidence -> choice -> train -> export -> parity ->
commit.

Opens no socket: `seal_network` makes sure of it. One sample per class is a normal case: then the rehearsal decides.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgectl import __version__
from edgectl.home import Home
from edgectl.inference import Predictor
from edgectl.material import Material, prepare
from edgectl.models import GOLDEN, MODEL, WEIGHTS, Lineage, Models, Slot
from edgectl.scoring import score_new
from edgectl.store import Run, Store
from edgelearn.export import PARITY_TOLERANCE, parity, patch_onnx
from edgelearn.metrics import hits
from edgelearn.models.build import Weights, load, outputs
from edgelearn.personalize.choose import Choice, choose, veto
from edgelearn.personalize.recipes import RECIPES, usable
from edgelearn.personalize.setting import Personal, Setting
from edgelearn.personalize.veto import Evidence, gather
from edgewire import tensors
from edgewire.decoding import encode
from edgewire.errors import CorruptFile, IntegrityError
from edgewire.files import digest
from edgewire.messages import Manifest
from edgewire.samples import Samples
from edgewire.tasks import InputSchema

GOLDEN_ROWS = 16
RUNS_LOOKED_AT = 20


@dataclass(frozen=True)
class Options:
    """recipe: one of the recipes or 'auto'; stage: install without letting it serve; veto: whether evidence may
    overrule an explicit recipe; force: train although nothing changed. on_event: one line for people;
    on_progress(done, total)."""

    recipe: str = "auto"
    seed: int = 0
    device: str = "cpu"
    threads: int = 1
    stage: bool = False
    veto: bool = True
    force: bool = False
    on_event: Callable[[str], None] = lambda line: None
    on_progress: Callable[[int, int], None] = lambda done, total: None


@dataclass
class Outcome:
    """shipped: the recipe whose model serves now (or is staged), 'incumbent' if the old one stays; gain: believed
    gain in accuracy over the base, None where nothing is known; skipped: all that goes in (digest: input) is as it
    was."""

    task: str
    requested: str
    shipped: str
    reason: str
    changed: bool
    skipped: bool = False
    input: str = ""
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
    seconds: float = 0.0
    decisions: list[str] = field(default_factory=list)


def seal_network() -> None:
    """From here on this process opens no connection. An audit hook cannot be removed again."""

    def refuse(event: str, arguments: tuple[object, ...]) -> None:
        if event in ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto"):
            raise PermissionError(f"training opens no socket, but something asked for {event}")

    sys.addaudithook(refuse)


def train(home: Home, manifest: Manifest, store: Store, options: Options, *, now: float) -> Outcome:
    """Make the personal model that the evidence supports, and let it serve. The caller holds the lock.

    Raises NothingToDo, NotFound, CorruptFile, UnsupportedBoard, IntegrityError (parity), or what the disk refuses;
    whatever happens, the model that served before still serves, if it was whole.
    """
    started = time.monotonic()
    material = prepare(home, manifest, store, seed=options.seed, device=options.device, threads=options.threads)
    models = Models(home, manifest.task.id)
    recovered = _recover(models, options)
    score_new(home, manifest, store, now=now, threads=options.threads)
    incumbent = models.current()
    before = _same_training(store, material, options)
    if before is not None and not recovered and not options.force:
        return _unchanged(before, material, options, models)
    evidence = _evidence(material.setting, options)
    choice = _choose(material, evidence, options)
    _tell_beliefs(choice, options)
    outcome = _outcome(material, options, choice)
    stays = _incumbent_stays(incumbent, material, evidence, choice, options)
    if stays is not None:
        outcome.shipped, outcome.reason = "incumbent", stays
        options.on_event(f"keep: the model that serves stays; {stays}")
    elif choice.recipe == "base" and incumbent is None:
        options.on_event("ship: the base model serves as before")
    else:
        personal = _train_chosen(material, choice, outcome, options)
        _ship(models, material, personal, choice, outcome, options, now=now)
    outcome.seconds = round(time.monotonic() - started, 3)
    return outcome


def compare(material: Material, recipes: Sequence[str], held_out: Samples) -> dict[str, tuple[Personal, float, float]]:
    """Train each recipe on the board's samples and score it on samples that it never saw.

    Returns recipe -> (result, accuracy, seconds). Nothing is installed.
    """
    found = {}
    for name in recipes:
        started = time.monotonic()
        personal = RECIPES[name](material.setting)
        seconds = time.monotonic() - started
        model = load(material.setting.task, personal.weights).to(material.setting.device)
        logits, _ = outputs(model, held_out.x)
        found[name] = (personal, float(hits(logits, held_out.y).mean()), seconds)
    return found


def _recover(models: Models, options: Options) -> bool:
    """Whether the model that served was damaged. Then the previous one or the base serves from here on."""
    try:
        models.current()
    except CorruptFile as error:
        previous = models.rollback()
        serves = f"version {previous.lineage.version}" if previous else "the base model"
        options.on_event(f"the model that served is unusable, {serves} serves instead: {error.message}")
        return True
    return False


def _input(material: Material, options: Options) -> str:
    """Digest of all that decides how a training ends."""
    manifest = material.manifest
    published = [manifest.base.onnx.digest, manifest.directory.digest, *material.packs]
    asked = [options.recipe, options.seed, options.veto, __version__]
    return digest(encode([published, sorted(material.mine.digests), asked]))


def _same_training(store: Store, material: Material, options: Options) -> Run | None:
    """The last training, if it ended and had the same input: to repeat it would only cost time and energy.

    Read from the record of runs, not from the models: a training may have ended with the base or the incumbent, and
    what the owner has rolled back since must not come back by itself.
    """
    runs = store.runs(material.manifest.task.id, RUNS_LOOKED_AT)
    ended = (run for run in runs if run.kind == "train" and run.outcome not in (None, "failed"))
    last = next(ended, None)
    return last if last is not None and last.record.get("input") == _input(material, options) else None


def _unchanged(before: Run, material: Material, options: Options, models: Models) -> Outcome:
    reason = "nothing changed since the last training: same samples, base and packs (--force trains anyway)"
    if (staged := models.staged()) is not None:
        reason += f"; version {staged.lineage.version} waits for `edgectl model commit`"
    options.on_event(f"skip: {reason}")
    serving = models.current()
    return Outcome(
        material.manifest.task.id, options.recipe, str(before.outcome), reason, False, True, _input(material, options),
        version=serving.lineage.version if serving else None, gain=before.record.get("gain"), mode=material.mode,
        local_samples=len(material.mine),
    )  # fmt: skip


def _evidence(setting: Setting, options: Options) -> Evidence | None:
    """Every recipe in question, cross-validated on the board's own samples."""
    names = usable(setting) if options.recipe == "auto" else tuple(dict.fromkeys(("base", "local", options.recipe)))
    if options.recipe != "auto" and not options.veto:
        return None
    options.on_event(
        f"data: {len(setting.local)} local samples, {setting.local.shots(setting.n_classes):.1f} per class, "
        f"{len(setting.candidates)} candidate contributors"
    )
    evidence = gather(setting, names, on_fold=options.on_progress)
    if evidence is None:
        options.on_event("evidence: too few recordings per class for folds; what the cloud's rehearsal found decides")
    else:
        options.on_event(f"evidence: {len(evidence.rows)} samples were each predicted without having been trained on")
    return evidence


def _choose(material: Material, evidence: Evidence | None, options: Options) -> Choice:
    shots = material.setting.local.shots(material.setting.n_classes)
    if options.recipe == "auto":
        return choose(usable(material.setting), material.prior, evidence, shots=shots)
    names = list(dict.fromkeys(("base", "local", options.recipe)))
    beliefs = choose(names, material.prior, evidence, shots=shots).beliefs
    if not options.veto:
        return Choice(options.recipe, "asked for, without a veto", beliefs)
    recipe, reason = veto(options.recipe, ("base", "local"), beliefs)
    return Choice(recipe, reason, beliefs)


def _tell_beliefs(choice: Choice, options: Options) -> None:
    for belief in choice.beliefs:
        options.on_event(f"belief: {belief}")
    options.on_event(f"choice: {choice.recipe} ({choice.reason})")


def _outcome(material: Material, options: Options, choice: Choice) -> Outcome:
    return Outcome(
        task=material.manifest.task.id,
        requested=options.recipe,
        shipped=choice.recipe,
        reason=choice.reason,
        changed=False,
        input=_input(material, options),
        mode=material.mode,
        local_samples=len(material.mine),
        gain=_gain(choice),
        decisions=[str(belief) for belief in choice.beliefs],
    )


def _gain(choice: Choice) -> float | None:
    gain = next(belief.gain for belief in choice.beliefs if belief.recipe == choice.recipe)
    return gain if math.isfinite(gain) else None


def _train_chosen(material: Material, choice: Choice, outcome: Outcome, options: Options) -> Personal:
    personal = RECIPES[choice.recipe](material.setting)
    outcome.candidates, outcome.kept = personal.candidates, len(personal.kept)
    outcome.candidate_samples, outcome.outside_samples = personal.candidate_samples, personal.outside_samples
    outcome.decisions += personal.decisions
    for line in personal.decisions:
        options.on_event(f"gate: {line}")
    return personal


def _incumbent_stays(
    incumbent: Slot | None, material: Material, evidence: Evidence | None, choice: Choice, options: Options
) -> str | None:
    """Why the model that serves should go on serving, or None.

    It is scored only on samples that it was not trained on; the challenger on the same ones, from its folds. Where
    there are too few of those, what is believed of each decides, unless the incumbent's belief rests on another base
    or on samples that were deleted since. An explicit recipe without veto is never overruled.
    """
    if incumbent is None or (options.recipe != "auto" and not options.veto) or _of_another_task(incumbent, material):
        return None
    known = set(incumbent.lineage.samples)
    if evidence is not None and choice.recipe in evidence.hits:
        unseen = np.asarray([material.mine.digests[row] not in known for row in evidence.rows])
        if unseen.sum() >= 3:
            return _duel(incumbent, material, evidence, choice.recipe, unseen)
    mine, theirs = _gain(choice), incumbent.lineage.gain
    if (
        mine is not None
        and theirs is not None
        and mine < theirs
        and incumbent.lineage.base == material.manifest.base.onnx.digest
        and known <= set(material.mine.digests)
    ):
        return f"it is believed to gain {100 * theirs:+.1f} points over the base, the new one {100 * mine:+.1f}"
    return None


def _of_another_task(incumbent: Slot, material: Material) -> bool:
    """Whether its answers mean something else: another cloud's task of the same name, with other inputs or labels."""
    old, new = incumbent.lineage.task, material.manifest.task
    return (old.input, old.labels) != (new.input, new.labels)


def _duel(incumbent: Slot, material: Material, evidence: Evidence, recipe: str, unseen: np.ndarray) -> str | None:
    rows = evidence.rows[unseen]
    logits, _ = Predictor(incumbent.model).run(material.mine.samples.x[rows])
    old = float(hits(logits, material.mine.samples.y[rows]).mean())
    new = float(evidence.hits[recipe][unseen].mean())
    if new >= old:
        return None
    return (
        f"on {len(rows)} samples that neither had seen it is right in {100 * old:.0f} %,"
        f" the new one in {100 * new:.0f} %"
    )


def _ship(
    models: Models,
    material: Material,
    personal: Personal,
    choice: Choice,
    outcome: Outcome,
    options: Options,
    *,
    now: float,
) -> None:
    """Export, check parity, install in the slot that does not serve, and commit unless it is only to be staged."""
    onnx = patch_onnx(material.onnx, personal.weights)
    outcome.parity = _check_parity(material, personal.weights, onnx, options)
    golden_x = _golden_inputs(material.manifest.task.input)
    golden = {"x": golden_x, "logits": Predictor(onnx, threads=1).run(golden_x)[0]}
    files = {
        MODEL: onnx,
        WEIGHTS: tensors.pack(personal.weights, {"format": "weights/1", "task": outcome.task}),
        GOLDEN: tensors.pack(golden, {"format": "golden/1", "task": outcome.task}),
    }
    slot = models.install(_lineage(models, material, personal, choice, options, now), files)
    outcome.version, outcome.changed = slot.lineage.version, True
    if options.stage:
        outcome.staged = True
        options.on_event(f"staged: version {outcome.version}; `edgectl model commit` lets it serve")
    else:
        models.commit(slot)
        options.on_event(f"ship: version {outcome.version} serves now ({choice.recipe})")


def _golden_inputs(schema: InputSchema) -> np.ndarray:
    """Inputs to compare a model's answers on, (GOLDEN_ROWS, *shape): made up, so that a sample that is deleted is
    gone."""
    values = np.random.default_rng(0).normal(0, 50, (GOLDEN_ROWS, *schema.shape))
    return np.asarray(np.abs(values) if schema.dtype == "uint8" else values).clip(-128, 127).astype(schema.dtype)


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
    models: Models, material: Material, personal: Personal, choice: Choice, options: Options, now: float
) -> Lineage:
    return Lineage(
        version=models.next_version(),
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
    )
