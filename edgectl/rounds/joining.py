"""Take part in a round: send what waits, ask, fetch the order, let it be trained, send. Cut off, it goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from msgspec import UNSET

from edgectl.agent.children import Done
from edgectl.enrolment import Enrolment, update_trust
from edgectl.home import Home
from edgectl.rounds.fetching import fetch
from edgectl.rounds.folder import RoundFolder
from edgectl.rounds.service import Rounds
from edgewire.decoding import convert
from edgewire.errors import (
    Busy,
    Conflict,
    EdgeError,
    Forged,
    Gone,
    InvalidMessage,
    NotFound,
    RateLimited,
    Refused,
    TooLarge,
)
from edgewire.files import digest
from edgewire.rounds import Invitation, JoinReply, JoinRequest, Sign, UpdateMeta
from edgewire.signing import envelope_key_id, open_sealed

Train = Callable[[str, float, Callable[[], bool]], Done]
"""(task, time limit in s, whether to stop; it is asked again and again) -> how the training ended."""

STOPPED = 130  # how a command ends that was asked to stop
NEVER_S, RETRY_S = 3600.0, 60.0  # when to ask again where the owner does not want to, and where something failed
ROWS_LIMIT_S = 600.0  # in which a board has to find the rows that its samples touch
_NEVER_TAKEN = (Gone, Conflict, InvalidMessage, TooLarge, NotFound, Refused)


@dataclass
class Outcome:
    """What came of taking part. state: 'sent'; 'late' or 'refused': the update does not count; 'given-up': it was not
    made; 'waiting': not invited, ask again after wait_s. earlier: an update of an earlier run was sent."""

    task: str
    state: str = "waiting"
    series: str = ""
    number: int = 0
    wait_s: float = 0.0
    note: str = ""
    earlier: bool = False
    trained: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Board:
    """The board's side. request: what it tells of itself; train: see Train; clock: seconds since 1970; tells_rows:
    whether its owner lets it tell which rows of tables its samples touch (whether the signed task does, is asked before
    they are looked for)."""

    home: Home
    enrolment: Enrolment
    request: JoinRequest
    train: Train
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    tells_rows: bool = False


def take_part(board: Board, task_id: str, rounds: Rounds) -> Outcome:
    """One turn, if this board is invited. The caller holds the lock `rounds`, and has asked whether its owner and the
    signed task want it. Raises what `Rounds` raises; what was made stays on disk, and is sent the next time."""
    folder, outcome = RoundFolder(board.home, task_id), Outcome(task_id)
    folder.ensure()
    if (known := folder.waiting()) is not None:
        outcome.earlier = _send(folder, rounds, *known) == "sent"
    reply = _joined(board, folder, rounds)
    if isinstance(reply.rows, str):
        reply = _told_rows(board, folder, rounds, reply.rows)
    outcome.wait_s, outcome.note = reply.wait_s, reply.note
    if not reply.invitation:
        return outcome
    raw = reply.invitation.encode()
    invitation = _opened(board, rounds, task_id, raw)
    outcome.series, outcome.number = invitation.series, invitation.number
    fetch(board.home, folder, rounds, invitation)
    folder.accept(raw)
    _work(board, folder, rounds, invitation, outcome)
    return outcome


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


def _work(board: Board, folder: RoundFolder, rounds: Rounds, invitation: Invitation, outcome: Outcome) -> None:
    pulse = _Pulse(board, rounds, folder.task_id, invitation)
    limit_s = max(1.0, invitation.until - board.clock())
    done = board.train(folder.task_id, limit_s, pulse.unwanted)
    outcome.trained = done.report
    made = folder.waiting()
    if done.code == 0 and made is not None:
        outcome.state = _send(folder, rounds, *made)
    elif done.code == STOPPED:
        outcome.note = "asked to stop; the next one goes on with this round"
    elif done.code == Busy.exit_code:
        outcome.note, outcome.wait_s = done.said, invitation.heartbeat_s  # another process trains
    else:
        outcome.state = "late" if pulse.over else "given-up"
        outcome.note = "the round was over before the training" if pulse.over else done.said
        pulse.give_up()


class _Pulse:
    """Signs of life while a training goes on. A cloud that does not answer is no reason to stop."""

    def __init__(self, board: Board, rounds: Rounds, task_id: str, invitation: Invitation) -> None:
        self._board, self._rounds, self._task_id, self._invitation = board, rounds, task_id, invitation
        self._next = board.monotonic() + invitation.heartbeat_s
        self.over = False

    def unwanted(self) -> bool:
        """Called again and again; whether the training is for nothing."""
        now = self._board.monotonic()
        if now >= self._next and not self.over:
            self._next = now + self._invitation.heartbeat_s
            self.over = not self._tell(Sign("working"))
        return self.over

    def give_up(self) -> None:
        if not self.over:
            self._tell(Sign("giving-up"))

    def _tell(self, told: Sign) -> bool:
        """Whether an update would still count, as far as is known."""
        invitation = self._invitation
        try:
            return self._rounds.sign(self._task_id, invitation.series, invitation.number, told).wanted
        except (NotFound, Refused):
            return False
        except EdgeError:
            return True


def _send(folder: RoundFolder, rounds: Rounds, body: bytes, meta: UpdateMeta) -> str:
    """'sent', or why it never counts. Raises RetryLater and the like; then it waits for the next time."""
    try:
        rounds.update(folder.task_id, meta, body)
    except _NEVER_TAKEN as error:
        if isinstance(error, Refused) and type(error) is not Refused:  # revoked, say: that is not about the update
            raise
        folder.settle(meta, counts=False)
        return "late" if isinstance(error, Gone) else "refused"
    folder.settle(meta, counts=True)
    return "sent"


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
