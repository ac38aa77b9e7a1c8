"""Signs of life, as long as a board is at work on a round: while it fetches, trains and sends. Slow is not dead."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from edgectl.rounds.service import Rounds
from edgewire.errors import EdgeError, NotFound, Refused
from edgewire.rounds import Invitation, Sign

Apart = Callable[[], contextlib.AbstractContextManager[Rounds]]
"""A connection of its own: the board's other one is busy with an order or an update."""


class Pulse:
    """Inside the block a thread gives the signs, the first after `heartbeat_s`. A cloud that does not answer is no
    reason to stop."""

    def __init__(self, apart: Apart, task_id: str, invitation: Invitation) -> None:
        self._apart, self._task_id, self._invitation = apart, task_id, invitation
        self._ended = threading.Event()
        self._over = False

    def __enter__(self) -> Pulse:
        threading.Thread(target=self._beat, name="signs of life", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()  # not joined: a sign that is on its way changes nothing any more

    def unwanted(self) -> bool:
        """Whether the cloud said that this board's update would not count any more."""
        return self._over

    def _beat(self) -> None:
        with contextlib.ExitStack() as until_then:
            rounds: Rounds | None = None
            while not self._over and not self._ended.wait(self._invitation.heartbeat_s):
                with contextlib.suppress(EdgeError, OSError):
                    rounds = rounds or until_then.enter_context(self._apart())
                    self._over = not _told(rounds, self._task_id, self._invitation, Sign("working"))


def give_up(rounds: Rounds, task_id: str, invitation: Invitation) -> None:
    """Let nobody wait for this board, if the cloud can be reached."""
    with contextlib.suppress(EdgeError):
        _told(rounds, task_id, invitation, Sign("giving-up"))


def _told(rounds: Rounds, task_id: str, invitation: Invitation, sign: Sign) -> bool:
    """Whether an update would still count. Raises what the cloud raises, but for a round that is not this board's."""
    try:
        return rounds.sign(task_id, invitation.series, invitation.number, sign).wanted
    except (NotFound, Refused):
        return False
