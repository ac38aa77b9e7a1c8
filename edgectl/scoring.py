"""Predict first, train afterwards: every new labelled sample is predicted by the model that serves, and by the base,
before any model is trained on it (prequential evaluation: Dawid 1984; Gama, Sebastião and Rodrigues 2013).

Done when a sample is added; what could not be then is caught up with before a training. A sample is never scored by a
model that knows it: one that the serving model was trained on (it was deleted and added again) or that was shared
before (a base may have learnt it) is passed over.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgectl.cache import Cache
from edgectl.home import Home
from edgectl.models import Models, Slot
from edgectl.store import Score, Store
from edgectl.store_samples import StoredSamples
from edgewire.errors import CorruptFile, NotFound
from edgewire.messages import Manifest


@dataclass(frozen=True)
class Scored:
    """samples: scored now; right: of those, by the model that serves; base_right: None if the base was not at hand."""

    samples: int = 0
    right: int = 0
    base_right: int | None = None


def score_new(home: Home, manifest: Manifest, store: Store, *, now: float, threads: int = 1) -> Scored:
    """Score what no model has predicted yet, if any model is at hand; otherwise it waits.

    Raises CorruptFile if the model that serves is damaged: then nothing is scored.
    """
    task_id = manifest.task.id
    if not store.has_unscored(task_id):
        return Scored()
    slot = Models(home, task_id).current()
    base = _base(home, manifest)
    if (slot is None and base is None) or (slot is not None and not _of_this_task(slot, manifest)):
        return Scored()
    mine = store.samples(manifest.task, unscored=True)
    base_says = _answers(base, mine, threads) if base is not None else None
    says = _answers(slot.model, mine, threads) if slot is not None else base_says
    if says is None:
        return Scored()
    version = slot.lineage.version if slot is not None else None
    recordings = _recordings(store, slot, task_id)
    scores = {
        int(number): None if (recording := recordings.get(int(number))) is None
        else _score(recording, int(mine.samples.y[row]), version, says[row], manifest.base.version,
                    base_says[row] if base_says else None, now)
        for row, number in enumerate(mine.ids)
    }  # fmt: skip
    noted = store.add_scores(task_id, scores, now=now)
    base_right = None if base_says is None else sum(bool(score.base_right) for score in noted)
    return Scored(len(noted), sum(score.right for score in noted), base_right)


def _base(home: Home, manifest: Manifest) -> bytes | None:
    try:
        return Cache(home, manifest.task.id).read(manifest.base.onnx.digest)
    except (NotFound, CorruptFile):  # the next sync brings it
        return None


def _of_this_task(slot: Slot, manifest: Manifest) -> bool:
    """Whether its answers mean what the task's labels mean now."""
    old, new = slot.lineage.task, manifest.task
    return (old.input, old.labels) == (new.input, new.labels)


def _recordings(store: Store, slot: Slot | None, task_id: str) -> dict[int, int]:
    """Sample id -> recording (the id of its first sample), of those that no model at hand can know.

    A recording that the serving model was trained on is known to it as a whole: its windows may overlap.
    """
    rows = store.recordings(task_id)
    shared = store.contributed(task_id)
    trained = set(slot.lineage.samples) if slot is not None else set[str]()
    heard = {name for _, digest, name in rows if name and digest in trained}
    first: dict[str, int] = {}
    return {
        number: first.setdefault(name, number) if name else number
        for number, digest, name in rows
        if digest not in shared and digest not in trained and name not in heard
    }


def _answers(model: bytes | Path, mine: StoredSamples, threads: int) -> list[tuple[bool, float]]:
    """(right, probability of the true label) of each sample."""
    import numpy as np

    from edgectl.inference import Predictor, probabilities

    logits, _ = Predictor(model, threads=threads).run(mine.samples.x)
    shares = probabilities(logits.astype(np.float64))[np.arange(len(mine)), mine.samples.y]
    right = logits.argmax(axis=1) == mine.samples.y
    return [(bool(hit), float(share)) for hit, share in zip(right, shares, strict=True)]


def _score(
    recording: int,
    label: int,
    version: int | None,
    says: tuple[bool, float],
    base_version: int,
    base_says: tuple[bool, float] | None,
    now: float,
) -> Score:
    if base_says is None:
        return Score(recording, label, version, *says, None, None, None, now)
    return Score(recording, label, version, *says, base_version, *base_says, now)
