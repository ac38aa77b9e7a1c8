"""The short form of the soak, on each backend."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import soak
from tests.cloud.backends import Backend, Files


@pytest.mark.slow
def test_a_server_that_is_killed_again_and_again_loses_and_revives_nothing(backend: Backend, tmp_path: Path) -> None:
    workers = 1 if isinstance(backend, Files) else 2
    outcome = soak.soak(tmp_path, kills=3, boards=2, workers=workers, stores=backend.stores())
    assert outcome.clean, outcome
    assert outcome.kills == 3
    assert outcome.uploads > 0
