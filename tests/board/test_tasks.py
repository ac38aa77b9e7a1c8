"""Which task a command is about."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgectl import enrolment, tasks
from edgewire import errors
from edgewire.decoding import plain
from edgewire.signing import Statement, seal
from tests.board.conftest import GESTURES, Board

LATER = 60 * 86400.0


def known(board: Board, task_id: str | None = None, *, later: float = 0.0):  # type: ignore[no-untyped-def]
    return tasks.known_task(board.home, enrolment.load(board.home), task_id, board.server.clock() + later)


def test_the_only_task_needs_no_name(board: Board) -> None:
    assert known(board).task == GESTURES


def test_an_expired_manifest_still_serves_a_board_that_is_offline(board: Board) -> None:
    assert known(board, later=LATER).task == GESTURES


def test_several_tasks_must_be_told_apart(newcomer: Board) -> None:
    newcomer.enroll("gestures", "postures")
    with pytest.raises(errors.UsageError, match="gestures, postures"):
        known(newcomer)


def test_a_task_that_was_not_granted_is_refused(board: Board) -> None:
    with pytest.raises(errors.NotGranted, match="it is granted: gestures"):
        known(board, "postures")


def test_a_task_that_was_never_synced_says_so(newcomer: Board) -> None:
    newcomer.enroll("gestures")
    with pytest.raises(errors.NotFound, match="run: edgectl sync"):
        known(newcomer)


def test_a_manifest_of_another_task_is_forged(board: Board) -> None:
    board.server.publish(replace(GESTURES, id="postures"), weights=b"w", onnx=b"o", directory=b"d")
    board.home.manifest("gestures").write_bytes(board.server.sealed_manifest("postures"))
    with pytest.raises(errors.Forged, match="expected 'manifest' of 'gestures'"):
        known(board)


def test_a_manifest_that_was_touched_is_forged(board: Board) -> None:
    path = board.home.manifest("gestures")
    path.write_bytes(path.read_bytes().replace(b'"signature":"', b'"signature":"A'))
    with pytest.raises(errors.Forged):
        known(board)


def test_a_manifest_that_only_a_newer_edgectl_understands_is_no_wrong_usage(board: Board) -> None:
    now, body = board.server.clock(), plain(board.server.bodies["gestures"])
    body["task"]["model"]["name"] = "of-tomorrow"
    statement = Statement("manifest", "gestures", 1, 99, now, now + LATER, body)
    board.home.manifest("gestures").write_bytes(seal(board.server.signing, statement))
    with pytest.raises(errors.CorruptFile, match=r"model.*update edgectl"):
        known(board)


@pytest.mark.parametrize("damaged", [b"", b"\0\0", b"{}"])
def test_a_damaged_manifest_is_no_wrong_usage(board: Board, damaged: bytes) -> None:
    board.home.manifest("gestures").write_bytes(damaged)
    with pytest.raises(errors.IntegrityError, match="run: edgectl sync"):
        known(board)
