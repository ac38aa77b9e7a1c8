"""Take part in a round: send what waits, ask, fetch the order, let it be trained, send. Cut off, it goes on."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from msgspec import UNSET

from edgectl.agent.children import Done
from edgectl.enrolment import Enrolment, update_trust
from edgectl.home import Home
from edgectl.rounds.able import Able, check
from edgectl.rounds.fetching import CutOff, fetch
from edgectl.rounds.folder import RoundFolder
from edgectl.rounds.pauses import NEVER_S, RETRY_S
from edgectl.rounds.pulse import Apart, Pulse, give_up
from edgectl.rounds.service import Rounds
from edgectl.store import Store
from edgewire.decoding import convert
from edgewire.errors import (
    Busy,
    Conflict,
    CorruptFile,
    EdgeError,
    Forged,
    Gone,
    InvalidMessage,
    NotFound,
    NothingToDo,
    RateLimited,
    Refused,
    ResourcesRefused,
    TooLarge,
    UnsupportedBoard,
)
from edgewire.files import digest
from edgewire.rounds import Invitation, JoinReply, JoinRequest, UpdateMeta
from edgewire.signing import envelope_key_id, open_sealed

Train = Callable[[str, float, Callable[[], bool]], Done]
"""(task, time limit in s, whether to stop; it is asked again and again) -> how the training ended."""

STOPPED = (130, -signal.SIGTERM)  # how a command ends that was asked to stop
ROWS_LIMIT_S = 600.0  # in which a board has to find the rows that its samples touch
_NEVER_TAKEN = (Gone, Conflict, InvalidMessage, TooLarge, NotFound, Refused)
_PASSES = (0, CorruptFile.exit_code, NothingToDo.exit_code)
"""How a training ended that may go well soon: its update was damaged by the disk, as what is fetched anew, or it waits
for samples or rows."""


@dataclass
class Outcome:
    """What came of taking part. state: 'sent'; 'late' or 'refused': the update does not count; 'given-up': it was not
    made; 'waiting': not invited; 'failed': see the exit code `code`. Ask again after wait_s. earlier: an update of an
    earlier run was sent."""

    task: str
    state: str = "waiting"
    series: str = ""
    number: int = 0
    wait_s: float = 0.0
    note: str = ""
    earlier: bool = False
    code: int = 0
    trained: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Board:
    """The board's side. request: what it tells of itself; train: see Train; apart: see Apart; stopped: whether a stop
    was asked; clock: seconds since 1970; tells_rows: whether its owner lets it tell which rows of tables its samples
    touch (whether the signed task does, is asked before they are looked for); consents: whether its owner lets an
    update with that much noise go, which may have changed while it trained."""

    home: Home
    enrolment: Enrolment
    request: JoinRequest
    train: Train
    apart: Apart
    stopped: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    able: Able = field(default_factory=Able)
    tells_rows: bool = False
    consents: Callable[[float], bool] = lambda noise: True


def take_part(board: Board, rounds: Rounds, outcome: Outcome) -> Outcome:
    """One turn of the outcome's task, if this board is invited; what came of it is in the outcome, as far as it came.
    The caller holds the lock `rounds`, and has asked whether the owner and the signed task want it. Raises what
    `Rounds` raises; what was made stays on disk, and is sent the next time."""
    folder, task_id = RoundFolder(board.home, outcome.task), outcome.task
    folder.ensure()
    outcome.earlier, unsent = _sent_earlier(board, folder, rounds)
    reply = _joined(board, folder, rounds)
    if isinstance(reply.rows, str):
        reply = _told_rows(board, folder, rounds, reply.rows)
    outcome.wait_s, outcome.note = reply.wait_s, "; ".join(note for note in (unsent, reply.note) if note)
    if not reply.invitation:
        return outcome
    raw = reply.invitation.encode()
    invitation = _opened(board, rounds, task_id, raw)
    outcome.series, outcome.number = invitation.series, invitation.number
    try:
        check(invitation, board.able, lacking_bytes=folder.lacking_bytes(invitation))
    except (UnsupportedBoard, Refused, ResourcesRefused) as error:
        _gave_up(rounds, invitation, outcome, str(error), NEVER_S)
        return outcome
    with Pulse(board.apart, task_id, invitation) as pulse:
        with contextlib.suppress(CutOff):
            fetch(board.home, folder, rounds, invitation, ends=lambda: board.stopped() or pulse.unwanted())
            folder.accept(raw)
        _work(board, folder, rounds, invitation, pulse, outcome)
    return outcome


def _sent_earlier(board: Board, folder: RoundFolder, rounds: Rounds) -> tuple[bool, str]:
    """Send the update that an earlier run has made, if there is one; whether the cloud took it, and why not."""
    if (made := folder.waiting()) is None:
        return False, ""
    invitation = _accepted(board, folder)
    noise = invitation.noise if invitation else 0.0  # where the disk has lost it nothing is known of any
    if dropped := _must_stay(board, made[1], noise):
        folder.settle(made[1], counts=False)
        return False, f"an update made earlier is dropped: {dropped}"
    signs = Pulse(board.apart, folder.task_id, invitation) if invitation else contextlib.nullcontext()
    with signs:
        why = _send(board, folder, rounds, *made, noise=noise)
    return why is None, "" if why is None else f"an update made earlier does not count: {why}"


def _must_stay(board: Board, meta: UpdateMeta, noise: float) -> str:
    """Why an update of an earlier run may not leave; '' if it may."""
    if meta.board != board.enrolment.board:
        return "it was for the cloud at which this board was enrolled before"
    return "it has less noise than the owner wants by now" if noise < board.able.noise else ""


def _accepted(board: Board, folder: RoundFolder) -> Invitation | None:
    """What is being worked on; None where the disk has lost it."""
    with contextlib.suppress(NotFound, Forged, CorruptFile, InvalidMessage):
        return folder.invitation(board.enrolment)
    return None


def _joined(board: Board, folder: RoundFolder, rounds: Rounds) -> JoinReply:
    """Rows of other samples than there are now are of no use."""
    known = folder.rows() if board.tells_rows else None
    rows = digest(known[0]) if known and known[2].samples == board.request.samples else UNSET
    return rounds.join(folder.task_id, replace(board.request, holds=folder.holds() or UNSET, rows=rows))


def _told_rows(board: Board, folder: RoundFolder, rounds: Rounds, series: str) -> JoinReply:
    """A series sends boards the rows of tables that they touch: find them, tell them, and ask again."""
    if not board.tells_rows:
        note = "this series asks which items the samples are about (edgectl config set rounds_rows true)"
        return JoinReply(wait_s=NEVER_S, note=note)
    folder.want_rows()
    done = board.train(folder.task_id, ROWS_LIMIT_S, lambda: False)
    known = folder.rows()
    if done.code or known is None or folder.rows_are_wanted():
        return JoinReply(wait_s=RETRY_S, note=done.said or "the rows that the samples touch are not known yet")
    try:
        rounds.rows(folder.task_id, series, known[0])
    except (Refused, RateLimited) as error:
        if isinstance(error, Refused) and type(error) is not Refused:  # revoked, say: that is not about rows
            raise
        return JoinReply(wait_s=error.retry_after_s or RETRY_S, note=error.message)
    reply = _joined(board, folder, rounds)
    return replace(reply, rows=UNSET) if isinstance(reply.rows, str) else reply  # it has new samples: another time


def _work(
    board: Board, folder: RoundFolder, rounds: Rounds, invitation: Invitation, pulse: Pulse, outcome: Outcome
) -> None:
    """Train and send, unless the round is over by now, or a stop was asked."""
    if pulse.unwanted():
        outcome.state, outcome.note = "late", "the round was over before the order had come"
        return
    if board.stopped():
        _keep_place(invitation, outcome)
        return
    limit_s = max(1.0, invitation.until - board.clock())
    until = board.monotonic() + limit_s
    done = board.train(folder.task_id, limit_s, pulse.unwanted)
    outcome.trained = done.report
    made = folder.waiting()
    if done.code == 0 and made is not None and not board.consents(invitation.noise):
        folder.settle(made[1], counts=False)
        _gave_up(rounds, invitation, outcome, "the owner does not let the update go any more", NEVER_S)
    elif done.code == 0 and made is not None:
        refusal = _send(board, folder, rounds, *made, noise=invitation.noise)
        outcome.state, outcome.note = _taken(refusal), "" if refusal is None else str(refusal)
        outcome.wait_s = RETRY_S if outcome.state == "refused" else outcome.wait_s
    elif done.code == Busy.exit_code:
        outcome.note, outcome.wait_s = done.said, invitation.heartbeat_s  # another process trains
    elif pulse.unwanted() or board.monotonic() >= until:  # whatever the training said when it was ended for that
        outcome.state, outcome.note = "late", "the round was over before the training"
        if not pulse.unwanted():
            give_up(rounds, folder.task_id, invitation)
    elif done.code in STOPPED or board.stopped():  # also where a training did not stop in time, and was killed
        _keep_place(invitation, outcome)
    else:
        why = done.said or "the training left no update that can be read"
        _gave_up(rounds, invitation, outcome, why, _pause_s(done))


def _gave_up(rounds: Rounds, invitation: Invitation, outcome: Outcome, why: str, wait_s: float) -> None:
    outcome.state, outcome.note, outcome.wait_s = "given-up", why, wait_s
    give_up(rounds, outcome.task, invitation)


def _keep_place(invitation: Invitation, outcome: Outcome) -> None:
    outcome.note = "asked to stop; the next one goes on with this round"
    outcome.wait_s = invitation.heartbeat_s  # it may have been another one who ended it, for memory say


def _pause_s(done: Done) -> float:
    """How long a board that could not train stays away. What the next round would end with, too, unless its owner
    changes something, must not take a place in every round."""
    if done.retry_s is not None:
        return done.retry_s
    return RETRY_S if done.code in _PASSES else NEVER_S


def _send(
    board: Board, folder: RoundFolder, rounds: Rounds, body: bytes, meta: UpdateMeta, *, noise: float
) -> EdgeError | None:
    """None where the cloud took it, or why it never counts. Raises RetryLater and the like; then it waits for the next
    time. What it reveals is in the ledger before it leaves."""
    with Store.open(board.home.ensure().database) as store:
        store.note_update(folder.task_id, meta.upload_id, meta.series, meta.number, noise, board.clock())
    try:
        rounds.update(folder.task_id, meta, body)
    except _NEVER_TAKEN as error:
        if isinstance(error, Refused) and type(error) is not Refused:  # revoked, say: that is not about the update
            raise
        folder.settle(meta, counts=False)
        return error
    folder.settle(meta, counts=True)
    return None


def _taken(why: EdgeError | None) -> str:
    """The state of who sent an update."""
    return "sent" if why is None else "late" if isinstance(why, Gone) else "refused"


def _opened(board: Board, rounds: Rounds, task_id: str, raw: bytes) -> Invitation:
    """Verified: only whoever has the service's signing key can ask this board for anything."""
    enrolment = board.enrolment
    if envelope_key_id(raw) not in enrolment.trust.signing_keys:
        chain = rounds.trust(enrolment.trust.version)
        enrolment = update_trust(board.home, enrolment, chain, board.clock())
    keys = enrolment.trust.signing_keys
    statement = open_sealed(raw, keys, type="round", task=task_id, now=board.clock())
    invitation = convert(Invitation, statement.body, what="invitation")
    if invitation.board != enrolment.board:
        raise Forged("the invitation is for another board", hint="nothing was sent; join again later")
    return invitation
