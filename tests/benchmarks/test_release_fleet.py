"""The fleet of `benchmarks.releases`, small: every bad base stops at the canaries, the good one reaches every board."""

from __future__ import annotations

import pytest

from benchmarks.releases.__main__ import Scale, measured


@pytest.mark.slow
def test_bad_bases_stop_at_the_canaries_and_a_good_one_arrives() -> None:
    figures = measured(Scale(boards=12, canaries=4, https=2))
    assert len(figures) > 15
    assert [figure for figure in figures if figure.holds is False] == []
