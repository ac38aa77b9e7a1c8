"""Two slots and a link: whatever happens in between, a whole model serves."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgectl.home import Home
from edgectl.models import MODEL, Lineage, Models, Slot
from edgewire.errors import CorruptFile, NothingToDo
from edgewire.signing import SigningKey
from tests.board.conftest import GESTURES

WATCHED = ("open", "os.rename", "os.remove", "os.symlink", "os.mkdir")


@pytest.fixture
def models(tmp_path: Path) -> Models:
    home = Home(tmp_path / "state").ensure()
    SigningKey.generate().save(home.key)
    return Models(home, GESTURES.id)


def install(models: Models, content: bytes) -> Slot:
    lineage = Lineage(
        version=models.next_version(), task=GESTURES, requested="local", recipe="local", reason="", base="0" * 64,
        base_version=1, packs=(), kept=(), samples=(), seed=0, gain=None, created_at=1.0, edgectl="0",
    )  # fmt: skip
    return models.install(lineage, {MODEL: content, "weights.safetensors": content * 2})


def ship(models: Models, content: bytes) -> None:
    models.commit(install(models, content))


def serves(models: Models) -> bytes | None:
    slot = models.current()
    return None if slot is None else slot.model.read_bytes()


def killed_at(moment: int, action: Callable[[], object]) -> bool:
    """Run in a child that kills itself with signal 9 at its n-th access to the file system; whether that came."""
    child = os.fork()
    if child == 0:
        left = moment

        def count(event: str, _: object) -> None:
            nonlocal left
            if event in WATCHED:
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        action()
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_a_model_serves_only_after_it_was_committed(models: Models) -> None:
    slot = install(models, b"one")
    assert serves(models) is None
    models.commit(slot)
    assert serves(models) == b"one"


@pytest.mark.parametrize("before", [[], [b"old"], [b"older", b"old"]])
def test_killed_anywhere_while_shipping_the_old_or_the_new_model_serves(models: Models, before: list[bytes]) -> None:
    for content in before:
        ship(models, content)
    old, moment = serves(models), 0
    while killed_at(moment, lambda: ship(models, b"new")):
        assert serves(models) in (old, b"new")
        if serves(models) == b"new" and old is not None:
            models.rollback()
            assert serves(models) == old
        moment += 1
    assert moment > 20
    assert serves(models) == b"new"


def test_killed_anywhere_while_rolling_back_one_of_the_two_serves(models: Models) -> None:
    ship(models, b"older")
    ship(models, b"old")
    moment = 0
    while killed_at(moment, models.rollback):
        assert serves(models) in (b"older", b"old")
        if serves(models) == b"older":
            models.commit_staged()
        moment += 1
    assert moment > 3
    assert serves(models) == b"older"


def test_what_killed_installs_left_behind_does_not_pile_up(models: Models) -> None:
    for moment in range(1, 50):
        killed_at(moment, lambda: ship(models, b"half"))
    slot = install(models, b"whole")
    assert sorted(path.name for path in slot.folder.iterdir()) == ["lineage.json", MODEL, "weights.safetensors"]
    assert not list(models.folder.glob(".*"))


def test_the_model_that_was_staged_last_is_the_one_committed(models: Models) -> None:
    ship(models, b"one")
    assert models.rollback() is None
    install(models, b"two")  # the first waits too, for a rollback can be undone
    assert models.commit_staged().lineage.version == 2
    assert serves(models) == b"two"


def test_a_rollback_can_be_undone(models: Models) -> None:
    ship(models, b"one")
    ship(models, b"two")
    models.rollback()
    assert serves(models) == b"one"
    assert models.commit_staged().lineage.version == 2
    with pytest.raises(NothingToDo):
        models.commit_staged()


def test_a_damaged_previous_model_is_passed_over_for_the_base(models: Models) -> None:
    ship(models, b"one")
    ship(models, b"two")
    (models.folder / "a" / MODEL).write_bytes(b"damage")
    assert models.rollback() is None
    assert serves(models) is None
    with pytest.raises(NothingToDo):
        models.rollback()


def test_a_damaged_model_is_named_not_served(models: Models) -> None:
    ship(models, b"one")
    (models.folder / "a" / MODEL).write_bytes(b"damage")
    with pytest.raises(CorruptFile, match="not the file that was installed"):
        models.current()
