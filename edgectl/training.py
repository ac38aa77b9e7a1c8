"""The story of a personal model: what is on disk -> recipes -> evidence -> choice -> train -> export -> parity -> commit.

Opens no socket: `seal_network` makes sure of it. One sample per class is a normal case: then the rehearsal decides.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgectl import __version__
from edgectl.cache import Cache
from edgectl.home import Home
from edgectl.inference import Predictor
from edgectl.material import Material, prepare
from edgectl.models import GOLDEN, MODEL, WEIGHTS, Lineage, Models, Slot
from edgectl.store import Store
from edgelearn.export import PARITY_TOLERANCE, parity, patch_onnx
from edgelearn.metrics import hits
from edgelearn.models.build import Weights, load, outputs
from edgelearn.personalize.choose import Belief, Choice, choose, veto
from edgelearn.personalize.recipes import RECIPES, usable
from edgelearn.personalize.setting import Personal, Setting
from edgelearn.personalize.veto import Evidence, gather
from edgewire import tensors
from edgewire.errors import CorruptFile, IntegrityError
from edgewire.messages import Manifest
from edgewire.samples import Samples

GOLDEN_ROWS = 16


@dataclass(frozen=True)
class Options:
    """recipe: one of the recipes or 'auto'; stage: install without letting it serve; veto: whether evidence may overrule
    an explicit recipe; force: train although nothing changed. on_event: one line for people; on_progress(done, total)."""

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
    """shipped: the recipe whose model serves now (or is staged), 'incumbent' if the old one stays; gain: believed gain in
    accuracy over the base, None where nothing is known; seconds: per stage."""

    task: str
    requested: str
    shipped: str
    reason: str
    changed: bool
    version: int | None = None
    staged: bool = False
    mode: str = "directory"
    local_samples: int = 0
    candidates: int = 0
    kept: int = 0
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

    Raises NothingToDo, NotFound, CorruptFile, UnsupportedBoard, IntegrityError (parity), or what the disk refuses; whatever
    happens, the model that served before still serves.
    """
    started = time.monotonic()
    material = prepare(home, manifest, store, seed=options.seed, device=options.device, threads=options.threads)
    models = Models(home, manifest.task.id)
    incumbent = _incumbent(models, options)
    if not options.force and incumbent is not None and _same_input(incumbent.lineage, material, options):
        return _unchanged(material, options, incumbent)
    evidence = _evidence(material.setting, options)
    choice = _choose(material, evidence, options)
    _tell_beliefs(choice, options)
    outcome = _outcome(material, options, choice)
    personal = RECIPES[choice.recipe](material.setting)
    outcome.candidates, outcome.kept = personal.candidates, len(personal.kept)
    outcome.outside_samples = personal.outside_samples
    outcome.decisions += personal.decisions
    for line in personal.decisions:
        options.on_event(f"gate: {line}")
    stays = _incumbent_stays(incumbent, material, evidence, choice, options)
    if stays is not None:
        outcome.shipped, outcome.reason = "incumbent", stays
    elif choice.recipe == "base" and incumbent is None:
        options.on_event("ship: the base model serves as before")
    else:
        _ship(home, models, material, personal, choice, outcome, options, now=now)
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


def _incumbent(models: Models, options: Options) -> Slot | None:
    """The personal model that serves; a corrupt one is no reason not to make a new one."""
    try:
        return models.current()
    except CorruptFile as error:
        options.on_event(f"the model that serves is unusable and will be replaced: {error.message}")
        return None


def _same_input(lineage: Lineage, material: Material, options: Options) -> bool:
    return (
        lineage.base == material.manifest.base.onnx.digest
        and lineage.packs == material.packs
        and lineage.samples == tuple(sorted(material.mine.digests))
        and (lineage.requested, lineage.seed) == (options.recipe, options.seed)
    )


def _unchanged(material: Material, options: Options, incumbent: Slot) -> Outcome:
    reason = "nothing changed since this model was trained: same samples, base and packs"
    options.on_event(f"skip: {reason}")
    lineage = incumbent.lineage
    return Outcome(
        lineage.task.id, options.recipe, lineage.recipe, reason, False, lineage.version, gain=lineage.gain,
        mode=material.mode, local_samples=len(material.mine),
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
        mode=material.mode,
        local_samples=len(material.mine),
        gain=_gain(choice),
        decisions=[str(belief) for belief in choice.beliefs],
    )


def _gain(choice: Choice) -> float | None:
    belief = _belief(choice)
    return belief.gain if belief is not None and np.isfinite(belief.gain) else None


def _belief(choice: Choice) -> Belief | None:
    return next((belief for belief in choice.beliefs if belief.recipe == choice.recipe), None)


def _incumbent_stays(
    incumbent: Slot | None, material: Material, evidence: Evidence | None, choice: Choice, options: Options
) -> str | None:
    """Why the model that serves should go on serving, or None.

    It is scored only on samples that it was not trained on; the challenger on the same ones, from its folds. Where there
    are too few of those, what is believed of each decides. An explicit recipe without veto is never overruled.
    """
    if incumbent is None or (options.recipe != "auto" and not options.veto):
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
    ):
        return f"it is believed to gain {100 * theirs:+.1f} points over the base, the new one {100 * mine:+.1f}"
    return None


def _duel(incumbent: Slot, material: Material, evidence: Evidence, recipe: str, unseen: np.ndarray) -> str | None:
    rows = evidence.rows[unseen]
    logits, _ = Predictor(incumbent.model).run(material.mine.samples.x[rows])
    old = float(hits(logits, material.mine.samples.y[rows]).mean())
    new = float(evidence.hits[recipe][unseen].mean())
    if new >= old:
        return None
    return f"on {len(rows)} samples that neither had seen it is right in {100 * old:.0f} %, the new one in {100 * new:.0f} %"


def _ship(
    home: Home,
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
    onnx = patch_onnx(Cache(home, outcome.task).read(material.manifest.base.onnx.digest), personal.weights)
    outcome.parity = _check_parity(material, personal.weights, onnx, options)
    golden_x = material.mine.samples.x[:GOLDEN_ROWS]
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
