"""What a personal model is made of, read from disk and checked: samples, base, directory, packs, the rehearsal's
figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edgectl.board import memory
from edgectl.budget import Budget, Need, Plan, plan
from edgectl.cache import Cache
from edgectl.home import Home
from edgectl.store import Store
from edgectl.store_samples import StoredSamples
from edgelearn.device import pick_device, use_threads
from edgelearn.examples import Examples, groups_from_names
from edgelearn.models.build import EVALUATED_ROWS, Weights, load, outputs
from edgelearn.models.cost import forward_bytes, head_bytes, model_bytes, row_bytes
from edgelearn.personalize.choose import Figure
from edgelearn.personalize.setting import Candidate, Setting, Settings
from edgewire.errors import CorruptFile, NothingToDo, UnsupportedBoard
from edgewire.messages import Manifest
from edgewire.samples import Samples, by_user, sample_digests
from edgewire.tasks import CLICK_MODELS, Task

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Material:
    """All that training needs, read from disk and checked. packs: digests of the retrieved files that were read; onnx:
    the base model, read with the rest because a sync meanwhile may bring a new base and remove this one; omitted: what
    would not have fitted into memory."""

    manifest: Manifest
    setting: Setting
    mine: StoredSamples
    onnx: bytes
    prior: tuple[Figure, ...]
    packs: tuple[str, ...]
    mode: str
    omitted: tuple[str, ...] = ()


def prepare(
    home: Home,
    manifest: Manifest,
    store: Store,
    *,
    seed: int,
    device: str,
    threads: int,
    budget: Budget | None = None,
    batch_rows: int = 0,
    head_above: int | None = None,
    on_step: Callable[[], None] | None = None,
) -> Material:
    """Read samples, base, directory and packs, as many as fit into the budget's memory (None: into the machine's).
    batch_rows, head_above: see `retraining.Options`.

    on_step: called after each step of training, and of what comes before it; it may raise to stop (None: the budget's
    check).

    Raises NothingToDo without samples, NotFound without a sync, ResourcesRefused if nothing fits, Spent.
    """
    budget = budget or Budget()
    on_step = on_step or budget.check
    use_threads(threads)
    try:
        device = pick_device(device)
    except ValueError as error:
        raise UnsupportedBoard(str(error), hint="use --device cpu; edgectl doctor tells more") from None
    mine = store.samples(manifest.task)
    if len(mine) == 0:
        raise NothingToDo("there are no labelled samples to train on", hint="edgectl data add FILE")
    cache = Cache(home, manifest.task.id)
    base: Weights = cache.weights(manifest)
    onnx = cache.read(manifest.base.onnx.digest)
    directory, meta = cache.directory(manifest)
    retrieval = cache.retrieval()
    try:
        model = load(manifest.task, base).to(device)
    except ValueError as error:
        raise CorruptFile(
            f"the base weights do not fit task '{manifest.task.id}': {error}", hint="sync again"
        ) from None
    every = retrieval.files if retrieval else ()
    need = _need(manifest.task, model, mine, [cache.size(name) for name in every])
    settings = _allowed(Settings.of(manifest.task), manifest.task, model, head_above)
    batch = max(settings.local.batch_size, settings.joint.batch_size)
    chosen = plan(
        need, batch=min(batch, batch_rows or batch), limit_mib=budget.limit_mib(available_mib=memory.available_mib()),
        head_only=settings.head_only,
    )  # fmt: skip
    files = every[: chosen.packs]
    packs = cache.retrieved(manifest, replace(retrieval, files=files)) if retrieval else []

    def embed(x: np.ndarray) -> np.ndarray:
        on_step()
        return outputs(model, x)[1]

    candidates = make_candidates(packs, store.own_digests(manifest.task.id), embed=embed)
    local = Examples(mine.samples.x, mine.samples.y, groups_from_names(mine.samples.group))
    setting = Setting(
        manifest.task, base, local, candidates, directory.global_means, _within(settings, chosen), seed,
        device=device, on_step=on_step,
    )  # fmt: skip
    prior = tuple(Figure(f.recipe, f.shots, f.gain, f.spread, f.harm, f.boards) for f in meta.prior)
    mode = retrieval.mode if retrieval else "directory"
    omitted = _omitted(chosen, min(batch, batch_rows or batch), len(every), allowed=not settings.head_only)
    return Material(manifest, setting, mine, onnx, prior, files, mode, omitted)


def _need(task: Task, model: nn.Module, mine: StoredSamples, packs_bytes: Sequence[int]) -> Need:
    resident = memory.resident_mib() or 0.0
    return Need(
        resident, mine.samples.x.nbytes, row_bytes(task, model), model_bytes(model), packs_bytes,
        local_forward_bytes=forward_bytes(task, model, rows=len(mine)),
        forward_bytes=forward_bytes(task, model, rows=EVALUATED_ROWS),
        head_bytes=head_bytes(task, model, rows=len(mine)),
    )  # fmt: skip


def _allowed(settings: Settings, task: Task, model: nn.Module, head_above: int | None) -> Settings:
    """What this board may do: of a large model the head alone (of click models it always is)."""
    weights = sum(parameter.numel() for parameter in model.parameters())
    if head_above is not None and weights > head_above and task.model.name not in CLICK_MODELS:
        return replace(settings, head_below=math.inf)
    return settings


def _within(settings: Settings, chosen: Plan) -> Settings:
    """Every fit in pieces of at most that many rows, or of the last layer alone."""
    kinds = ("local", "head", "bayes", "bayes_deep", "joint")
    pieces = {kind: replace(getattr(settings, kind), micro_batch=chosen.micro_batch) for kind in kinds}
    head_below = math.inf if chosen.head_only else settings.head_below
    return replace(settings, **pieces, head_below=head_below)


def _omitted(chosen: Plan, batch: int, packs: int, *, allowed: bool) -> tuple[str, ...]:
    """What is done in a smaller way for want of memory. allowed: whether all layers might have been trained."""
    if chosen.head_only:
        return ("training of all layers but the last", *([f"{packs} sample files"] if packs else [])) if allowed else ()
    smaller = [f"batches in pieces of {chosen.micro_batch} of {batch}"] if chosen.micro_batch < batch else []
    fewer = [f"{packs - chosen.packs} of {packs} sample files"] if chosen.packs < packs else []
    return (*smaller, *fewer)


def make_candidates(
    packs: Sequence[Samples], own: set[str], *, embed: Callable[[np.ndarray], np.ndarray]
) -> list[Candidate]:
    """Candidates by contributor. One that holds any sample of this board's own is this board: never a candidate."""
    found = []
    for number, pack in enumerate(packs):
        for name, samples in by_user(pack):
            if own.isdisjoint(sample_digests(samples)):
                found.append(Candidate(f"{number}/{name}", samples.x, samples.y, embed(samples.x)))
    return found
