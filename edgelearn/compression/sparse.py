"""Top-k in two bytes a value instead of eight: places as gaps, values in 8 bits, what rounding took is sent later.

Top-k with memory is Lin et al., "Deep gradient compression", ICLR 2018 (see `topk`); the memory also takes up the error
of the 8 bits (error feedback: Seide et al., Interspeech 2014).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgelearn.compression.codec import required
from edgelearn.compression.topk import TopK
from edgelearn.federated.arrays import Arrays, plus, unflat

_LEVELS = 127
_FAR = 255  # a gap byte that stands for so many values without one to send, and is followed by another


@dataclass(frozen=True)
class Sparse:
    """The largest `share` of all values. gaps: how many values lie between one place and the next, uint8, in steps of
    255 where there are more; values ≈ scale / 127 · q, q rounded to the nearest.

    >>> codec, rng = Sparse(share=0.5), np.random.default_rng(0)
    >>> delta = {"w": np.float32([1, -127, 2, 127.4])}
    >>> sent, memory = codec.encode(delta, memory={}, rng=rng)
    >>> sent["gaps"].tolist(), sent["values"].tolist(), float(sent["scale"][0])
    ([1, 1], [-127, 127], 127.4000015258789)
    >>> [round(float(value), 1) for value in memory["v/w"]]  # not sent, or lost by rounding: -127 went as -127.4
    [1.0, 0.4, 2.0, 0.0]
    """

    share: float = 0.05

    def encode(self, delta: Arrays, *, memory: Arrays, rng: np.random.Generator) -> tuple[Arrays, Arrays]:
        chosen, left = TopK(self.share).encode(delta, memory=memory, rng=rng)
        values = chosen["values"]
        scale = np.float32(np.abs(values).max(initial=0))
        with np.errstate(invalid="ignore", divide="ignore"):  # what is not finite makes a scale that no server takes
            levels = np.rint(values / scale * _LEVELS) if len(values) else values
            sent = {"gaps": _gaps(chosen["places"]), "scale": scale.reshape(1), "values": levels.astype(np.int8)}
        lost = np.zeros(sum(array.size for array in delta.values()), np.float32)
        lost[chosen["places"]] = values - _values(sent)
        return sent, plus(left, {f"v/{name}": array for name, array in unflat(lost, delta).items()} | _silent(left))

    def decode(self, sent: Mapping[str, np.ndarray], like: Mapping[str, np.ndarray]) -> Arrays:
        size = sum(array.size for array in like.values())
        required(sent, gaps=("uint8", (None,)), scale=("float32", (1,)), values=("int8", (None,)))
        if sent["scale"][0] < 0:
            raise ValueError("the scale is negative")
        if len(sent["gaps"]) > size:
            raise ValueError(f"{len(sent['gaps'])} gaps in a model of {size}")
        places = _places(sent["gaps"])
        if len(places) != len(sent["values"]):
            raise ValueError(f"{len(places)} places and {len(sent['values'])} values")
        if len(places) and places[-1] >= size:
            raise ValueError(f"places must lie below {size}")
        vector = np.zeros(size, np.float32)
        vector[places] = _values(sent)
        return unflat(vector, like)


def _values(sent: Mapping[str, np.ndarray]) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.asarray(sent["values"].astype(np.float32) * (sent["scale"] / np.float32(_LEVELS)))


def _gaps(places: np.ndarray) -> np.ndarray:
    """How many values lie before each place and after the one before it, as bytes."""
    between = np.diff(places.astype(np.int64), prepend=-1) - 1
    far = between // _FAR
    made = np.full(len(places) + int(far.sum()), _FAR, np.uint8)
    made[np.cumsum(far + 1) - 1] = between - far * _FAR
    return made


def _places(gaps: np.ndarray) -> np.ndarray:
    """Raises ValueError for gaps that end before a place."""
    here = gaps != _FAR
    if len(gaps) and not here[-1]:
        raise ValueError("the last gap leads nowhere")
    return np.asarray((np.cumsum(gaps, dtype=np.int64) + np.cumsum(here) - 1)[here])


def _silent(left: Arrays) -> Arrays:
    """Nothing to add to what is no residue."""
    return {name: np.zeros(array.shape, array.dtype) for name, array in left.items() if not name.startswith("v/")}
