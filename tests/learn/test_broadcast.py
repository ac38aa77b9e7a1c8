"""Weights on their way down: boards that follow the changes hold what the server thinks they hold, to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from edgelearn.compression.broadcast import Broadcast, followed, started
from edgelearn.compression.sparse import Sparse
from edgelearn.compression.topk import TopK
from edgelearn.federated.arrays import Arrays

CODEC = Sparse(share=0.1)


def walked(versions: int, *, keep: int = 100) -> list[Broadcast]:
    """A server whose weights wander."""
    rng = np.random.default_rng(0)
    weights: Arrays = {"w": np.zeros(200, np.float32)}
    seen = [started(weights)]
    for _ in range(versions):
        weights = {"w": weights["w"] + rng.normal(size=200).astype(np.float32)}
        seen.append(seen[-1].advanced(weights, CODEC, rng, keep=keep))
    return seen


def test_a_board_that_was_away_follows_to_the_same_bits():
    seen = walked(6)
    for version, then in enumerate(seen):
        changes = seen[-1].since(version)
        assert changes is not None
        assert len(changes) == 6 - version
        assert followed(then.public, changes, CODEC)["w"].tobytes() == seen[-1].public["w"].tobytes()


def test_who_holds_nothing_or_was_away_too_long_needs_the_whole():
    last = walked(6, keep=2)[-1]
    assert last.since(None) is None
    assert last.since(3) is None
    assert last.since(7) is None  # from a future that never was
    assert [len(last.since(version) or ()) for version in (4, 5, 6)] == [2, 1, 0]


def test_what_was_not_sent_is_sent_once_it_is_the_largest():
    seen, weights = started({"w": np.zeros(3, np.float32)}), {"w": np.float32([1, 3, 2])}
    for _ in range(3):
        seen = seen.advanced(weights, TopK(share=0.3), np.random.default_rng(0), keep=9)
    assert seen.public["w"].tolist() == [1, 3, 2]


def test_a_change_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="expected"):
        followed({"w": np.zeros(3, np.float32)}, [{"junk": np.zeros(1, np.float32)}], CODEC)
