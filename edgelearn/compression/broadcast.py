"""The way down: boards that hold weights are sent what changed, not the weights anew.

The server keeps `public`, which is what an up-to-date board holds, to the bit. After each round it sends part of what
`public` lacks; what it did not send is still lacking next time, so nothing is lost for good (Tang et al.,
"DoubleSqueeze", ICML 2019, where the server, too, compresses with memory)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from edgelearn.compression.codec import Codec
from edgelearn.federated.arrays import Arrays, copied, minus, plus


@dataclass(frozen=True)
class Broadcast:
    """version: of `public`; changes: the last ones, the newest of which led to this version.

    >>> from edgelearn.compression.topk import TopK
    >>> codec, rng = TopK(share=0.5), np.random.default_rng(0)
    >>> first = started({"w": np.float32([0, 0])})
    >>> second = first.advanced({"w": np.float32([1, 3])}, codec, rng, keep=8)
    >>> third = second.advanced({"w": np.float32([1, 3])}, codec, rng, keep=8)
    >>> second.public["w"].tolist(), third.public["w"].tolist(), len(third.since(1))
    ([0.0, 3.0], [1.0, 3.0], 1)
    """

    version: int
    public: Arrays
    changes: tuple[Arrays, ...] = ()

    def advanced(self, weights: Arrays, codec: Codec, rng: np.random.Generator, *, keep: int) -> Broadcast:
        """One version on, towards these weights. keep: how many changes are kept for boards that were away."""
        sent, _ = codec.encode(minus(weights, self.public), memory={}, rng=rng)
        public = plus(self.public, codec.decode(sent, self.public))
        return Broadcast(self.version + 1, public, (*self.changes, sent)[-keep:])

    def since(self, version: int | None) -> tuple[Arrays, ...] | None:
        """What a board that holds that version lacks, the oldest first; None where it needs `public` whole: it holds
        nothing, or has been away for longer than changes are kept."""
        if version is None or not 0 <= self.version - version <= len(self.changes):
            return None
        return self.changes[len(self.changes) - (self.version - version) :]


def started(weights: Mapping[str, np.ndarray]) -> Broadcast:
    return Broadcast(0, copied(weights))


def followed(held: Arrays, changes: Iterable[Mapping[str, np.ndarray]], codec: Codec) -> Arrays:
    """On the board: what it held, and what changed since. Raises ValueError for changes that do not fit."""
    for sent in changes:
        held = plus(held, codec.decode(sent, held))
    return held
