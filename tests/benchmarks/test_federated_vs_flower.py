"""What the comparison with Flower makes of two sides' figures; Flower itself is not needed for that."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.federated_vs_flower import FEW, _figures, _round_s


def told(round_s: float, size: int, score: float) -> dict[str, Any]:
    """A side that took so long per round; the first rounds took longer."""
    ended = [0.0, 50.0, 99.0, *(99.0 + round_s * number for number in range(1, 5))]
    half = size * 6 * FEW // 2
    return {"ended": ended, "scores": [score] * 6, "down": half, "up": half, "rss_mib": 100, "wall_s": 9}


def test_the_first_rounds_do_not_count_for_the_time_of_a_round():
    assert _round_s(told(2.0, 1, 0.5)["ended"]) == 2.0


def test_goals_are_against_flower_and_compression_against_ourselves():
    found = {
        "flower": told(4.0, 1000, 0.9),
        "ours": told(1.0, 990, 0.899),
        "few": told(1.0, 990, 0.8),
        "compressed": told(1.0, 40, 0.79),
    }
    figures = {figure.name: figure for figure in _figures(found, 6)}
    assert (figures["time per round, of Flower's"].value, figures["time per round, of Flower's"].holds) == (0.25, True)
    assert figures["compressed both ways, of Flower's"].value == 0.04
    assert figures["accuracy, over Flower's"].value == pytest.approx(-0.1)
    assert figures["compressed over uncompressed"].holds is False
