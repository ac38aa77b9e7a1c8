"""kill -9, and a full disk, before every step of an installation and of the way back: what serves is whole, and the
next sync ends what was begun."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgectl.inference import Predictor
from edgectl.releases import record
from edgewire.errors import DiskFull, EdgeError
from edgewire.files import write_atomic
from tests.board.released import RELEASE, Released
from tests.board.synced import Synced
from tests.learn import world


@pytest.fixture
def released(synced: Synced) -> Released:
    """A board at base 1 with samples, and an order to install base 2."""
    synced.add(world.style(100, 0.3), per_class=5)
    synced.sync()
    made = Released(synced)
    made.install()
    return made


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """Do the work in a child that is killed right before it renames its step-th file; whether it came that far."""
    child = os.fork()
    if child == 0:
        seen = 0

        def kill(event: str, _arguments: tuple[object, ...]) -> None:
            nonlocal seen
            if event == "os.rename":
                seen += 1
                if seen > step:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(kill)
        try:
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def each_kill(released: Released, work: Callable[[], object]) -> Iterator[int]:
    """The board as a kill left it, at one step after the other."""
    home = released.synced.board.home.root
    before = home.with_name("before")
    shutil.copytree(home, before, symlinks=True)
    step = 0
    while killed_at(step, work):
        yield step
        shutil.rmtree(home)
        shutil.copytree(before, home, symlinks=True)
        step += 1
    assert step > 3, "it is killed in several places"


def serves(released: Released) -> int:
    """The version of the base that serves, which is whole and answers."""
    base = released.manifest().base
    x, _ = world.samples(world.style(100, 0.3), 1, 0)
    assert Predictor(released.synced.cache.read(base.onnx.digest)).run(x)[0].shape == (world.CLASSES, world.CLASSES)
    return base.version


@pytest.mark.slow
def test_killed_at_any_step_of_an_installation_the_next_sync_ends_it(released: Released) -> None:
    seen = set()
    for step in each_kill(released, released.sync):
        seen.add(serves(released))
        released.sync()
        assert (released.record().stage, serves(released)) == ("committed", 2), step
        assert released.record().outcomes == ()
    assert seen == {1, 2}
    assert {verdict for _, verdict in released.told} == {"committed"}


@pytest.mark.slow
def test_killed_at_any_step_of_the_way_back_the_next_sync_ends_it(released: Released) -> None:
    released.sync()
    released.call_back()
    seen = set()
    for step in each_kill(released, released.sync):
        seen.add(serves(released))
        released.sync()
        assert (released.record().stage, serves(released)) == ("reverted", 1), step
    assert seen == {1, 2}


@pytest.mark.parametrize("step", range(5))
def test_a_full_disk_at_any_step_leaves_what_served_or_what_was_judged_good(
    released: Released, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    left = step

    def write(path: Path, data: bytes, *, mode: int = 0o644) -> None:
        nonlocal left
        if path.name.startswith("release-"):
            left -= 1
            if left < 0:
                raise OSError(errno.ENOSPC, "no space left", str(path))
        write_atomic(path, data, mode=mode)

    monkeypatch.setattr(record, "write_atomic", write)
    with pytest.raises((OSError, DiskFull)):
        released.sync()
    assert serves(released) == (1 if step < 3 else 2)
    monkeypatch.undo()
    released.sync()
    assert serves(released) == 2


def test_a_gate_that_is_cut_off_again_and_again_fails_the_release(
    released: Released, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PowerCut(BaseException):
        pass

    def cut(*_: object) -> None:
        raise PowerCut

    monkeypatch.setattr("edgectl.releases.gate.judge", cut)
    for _ in range(3):
        with pytest.raises(PowerCut):
            released.sync()
    released.sync()
    assert (serves(released), released.told) == (1, [(RELEASE, "failed")])
    assert released.record().reason == "it was cut off 3 times"


def test_a_base_that_no_longer_answers_after_the_switch_is_gone_back_from_without_a_network(
    released: Released, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgectl.releases.following.Following._make_sure", lambda self, kind: None)
    released.sync()
    assert (released.record().stage, serves(released)) == ("trial", 2)
    monkeypatch.undo()
    onnx = released.synced.cache.path(released.manifest().base.onnx.digest)
    onnx.write_bytes(b"the card forgot")
    released.synced.board.server.offline = True
    with pytest.raises(EdgeError):
        released.sync()
    assert (released.record().stage, serves(released)) == ("failed", 1)
    released.synced.board.server.offline = False
    released.sync()
    assert released.told == [(RELEASE, "failed")]
