"""What a personal model is made of, read from disk and checked: samples, base, directory, packs, the rehearsal's
figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgectl.cache import Cache
from edgectl.home import Home
from edgectl.store import Store, StoredSamples
from edgelearn.device import pick_device, use_threads
from edgelearn.examples import Examples, groups_from_names
from edgelearn.models.build import Weights, load, outputs
from edgelearn.personalize.choose import Figure
from edgelearn.personalize.setting import Candidate, Setting, Settings
from edgewire.errors import CorruptFile, NothingToDo, UnsupportedBoard
from edgewire.messages import Manifest
from edgewire.samples import Samples, by_user, sample_digests


@dataclass(frozen=True)
class Material:
    """All that training needs, read from disk and checked. packs: digests of the retrieved files; onnx: the base model,
    read with the rest because a sync meanwhile may bring a new base and remove this one."""

    manifest: Manifest
    setting: Setting
    mine: StoredSamples
    onnx: bytes
    prior: tuple[Figure, ...]
    packs: tuple[str, ...]
    mode: str


def prepare(home: Home, manifest: Manifest, store: Store, *, seed: int, device: str, threads: int) -> Material:
    """Read samples, base, directory and packs. Raises NothingToDo without samples, NotFound without a sync."""
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
    files = retrieval.files if retrieval else ()
    packs = cache.retrieved(manifest, retrieval) if retrieval else []
    try:
        model = load(manifest.task, base).to(device)
    except ValueError as error:
        raise CorruptFile(
            f"the base weights do not fit task '{manifest.task.id}': {error}", hint="sync again"
        ) from None
    candidates = make_candidates(packs, store.own_digests(manifest.task.id), embed=lambda x: outputs(model, x)[1])
    local = Examples(mine.samples.x, mine.samples.y, groups_from_names(mine.samples.group))
    setting = Setting(manifest.task, base, local, candidates, directory.global_means, Settings(), seed, device=device)
    prior = tuple(Figure(f.recipe, f.shots, f.gain, f.spread, f.harm, f.boards) for f in meta.prior)
    return Material(manifest, setting, mine, onnx, prior, files, retrieval.mode if retrieval else "directory")


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
