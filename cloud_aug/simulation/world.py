"""From samples of a file to boards that hold them: what each split means, and what is set aside before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import get_args

import numpy as np

from edgelearn.crowd import Crowd
from edgelearn.federated import splits
from edgelearn.federated.splits import Part
from edgelearn.models.build import build, fit_front
from edgewire.decoding import convert, encode
from edgewire.errors import UsageError
from edgewire.files import digest
from edgewire.samples import Samples, to_bytes
from edgewire.tasks import LENET5_EMBEDDING, ModelName, ModelSpec, Task

HELD_OUT, TRUSTED = 1 / 6, 1 / 20  # shares of all rows: for the test, where there is no file for it; for the server


@dataclass(frozen=True)
class World:
    """split: a key of SPLITS; skew: how far boards differ, by the split's own measure (None: its usual value); peer: a
    model that learns with the boards' one, for algorithms that have such: NAME or NAME:WIDTH."""

    split: str = "iid"
    boards: int = 100
    skew: float | None = None
    seed: int = 0
    peer: str = field(default="", repr=False)

    def crowd(self, task: Task, samples: Samples, test: Samples | None, *, judged: bool) -> Crowd:
        """judged: the server needs samples of its own. The model is freshly made, its input scaled by the training
        samples, as a base's would be.

        Raises UsageError for a split that cannot be."""
        rng = np.random.default_rng((self.seed, 6))
        order = rng.permutation(len(samples))
        held = 0 if test is not None else max(1, round(HELD_OUT * len(samples)))
        own = max(1, round(TRUSTED * len(samples))) if judged else 0
        kept = samples.take(np.sort(order[held + own :]))
        tested = test if test is not None else samples.take(order[:held])
        trusted = samples.take(order[held : held + own])
        model = build(task, seed=self.seed)
        peer = build(self._of_peer(task), seed=self.seed + 1) if self.peer else None
        for made in filter(None, (model, peer)):
            fit_front(made, kept.x)
        return Crowd(
            model,
            kept.x,
            kept.y,
            self._parts(kept, len(task.labels), rng),
            (tested.x, tested.y),
            trusted=(trusted.x, trusted.y) if judged else None,
            peer=peer,
            metric=task.metric,
        )

    def text(self, task: Task, samples: Samples, test: Samples | None) -> str:
        """Names this world: the same text, the same crowd."""
        files = [digest(to_bytes(part, task.id)) for part in (samples, test) if part is not None]
        return f"{self} {digest(encode(task))} {files}{f' with {self.peer}' if self.peer else ''}"

    def _of_peer(self, task: Task) -> Task:
        """The task with the peer's model."""
        name, _, width = self.peer.partition(":")
        if name not in get_args(ModelName) or not (width or "32").isdigit():
            raise UsageError(
                f"'{self.peer}' is no model", hint=f"NAME or NAME:WIDTH, of {', '.join(get_args(ModelName))}"
            )
        embedding = LENET5_EMBEDDING if name == "lenet5" else ModelSpec.embedding
        spec = convert(ModelSpec, {"name": name, "width": int(width or 32), "embedding": embedding}, what="the peer")
        other = replace(task, model=spec)
        if found := other.problems():
            raise UsageError(f"model '{self.peer}' cannot learn this task: {found[0]}")
        return other

    def _parts(self, samples: Samples, classes: int, rng: np.random.Generator) -> list[Part]:
        n, boards = len(samples), self.boards
        deals: dict[str, Callable[[], list[Part]]] = {
            "iid": lambda: splits.iid(n, boards, rng),
            "shards": lambda: splits.shards(samples.y, boards, rng, per_board=int(self._skew(2))),
            "dirichlet": lambda: splits.dirichlet(samples.y, boards, rng, alpha=self._skew(0.5)),
            "user": lambda: splits.by_owner(samples.user, boards, rng),
            "quantity": lambda: splits.quantity(n, boards, rng, spread=self._skew(1.0)),
            "feature": lambda: splits.feature(
                n, boards, rng, strength=self._skew(0.3), scale=float(np.nanstd(samples.x))
            ),
            "concept": lambda: splits.concept(n, boards, rng, classes=classes, share=self._skew(0.5)),
        }
        if self.split not in deals:
            raise UsageError(f"there is no split '{self.split}'", hint=f"choose one of {', '.join(deals)}")
        if self.split == "feature" and samples.x.dtype == np.int32:
            raise UsageError(
                "split 'feature' changes values, and these samples are item ids", hint="take another split"
            )
        try:
            return deals[self.split]()
        except ValueError as error:
            raise UsageError(f"split '{self.split}': {error}") from None

    def _skew(self, usual: float) -> float:
        skew = usual if self.skew is None else self.skew
        if not skew > 0:
            raise UsageError(f"a skew of {skew:g} means nothing", hint="give a number above 0")
        return skew
