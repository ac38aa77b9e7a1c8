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
from edgectl.store import Store, StoredSamples
from edgelearn.device import pick_device, use_threads
from edgelearn.examples import Examples, groups_from_names
from edgelearn.models.build import Weights, load, outputs
from edgelearn.models.cost import model_bytes, row_bytes
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
) -> Material:
    """Read samples, base, directory and packs, as many as fit into the budget's memory (None: into the machine's).
    batch_rows, head_above: see `retraining.Options`.

    Raises NothingToDo without samples, NotFound without a sync, ResourcesRefused if nothing fits, Spent.
    """
    budget = budget or Budget()
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
    need = _need(manifest.task, model, mine, [cache.path(name).stat().st_size for name in every])
    settings = _allowed(Settings.of(manifest.task), manifest.task, model, batch_rows, head_above)
    batch = max(settings.local.batch_size, settings.joint.batch_size)
    chosen = plan(need, batch=batch, limit_mib=budget.limit_mib(available_mib=memory.available_mib()))
    files = every[: chosen.packs]
    packs = cache.retrieved(manifest, replace(retrieval, files=files)) if retrieval else []

    def embed(x: np.ndarray) -> np.ndarray:
        budget.check()
        return outputs(model, x)[1]

    candidates = make_candidates(packs, store.own_digests(manifest.task.id), embed=embed)
    local = Examples(mine.samples.x, mine.samples.y, groups_from_names(mine.samples.group))
    setting = Setting(
        manifest.task, base, local, candidates, directory.global_means, _within(settings, chosen.batch), seed,
        device=device, on_step=budget.check,
    )  # fmt: skip
    prior = tuple(Figure(f.recipe, f.shots, f.gain, f.spread, f.harm, f.boards) for f in meta.prior)
    mode = retrieval.mode if retrieval else "directory"
    return Material(manifest, setting, mine, onnx, prior, files, mode, _omitted(chosen, batch, len(every)))


def _need(task: Task, model: nn.Module, mine: StoredSamples, packs_bytes: Sequence[int]) -> Need:
    resident = memory.resident_mib() or 0.0
    return Need(resident, mine.samples.x.nbytes, row_bytes(task, model), model_bytes(model), packs_bytes)


def _allowed(settings: Settings, task: Task, model: nn.Module, batch_rows: int, head_above: int | None) -> Settings:
    """What this board may do: smaller batches, or the head of a large model alone (of click models it always is)."""
    weights = sum(parameter.numel() for parameter in model.parameters())
    if head_above is not None and weights > head_above and task.model.name not in CLICK_MODELS:
        settings = replace(settings, head_below=math.inf)
    return _within(settings, batch_rows) if batch_rows else settings


def _within(settings: Settings, batch: int) -> Settings:
    """With no batch larger than that."""
    return replace(
        settings,
        local=replace(settings.local, batch_size=min(settings.local.batch_size, batch)),
        joint=replace(settings.joint, batch_size=min(settings.joint.batch_size, batch)),
    )


def _omitted(chosen: Plan, batch: int, packs: int) -> tuple[str, ...]:
    smaller = [f"batches of {chosen.batch} instead of {batch}"] if chosen.batch < batch else []
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
