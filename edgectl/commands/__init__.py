"""One thin file per command: parse -> call -> print. Here: what they share.

Commands import what is heavy (arrays, HTTP, signatures) inside their functions, so that `edgectl --help` starts fast.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, cast

import typer

from edgectl.config import Places, Settings
from edgectl.home import Home

if TYPE_CHECKING:
    from edgectl.store import Store

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of lines.")]
TaskFlag = Annotated[str | None, typer.Option("--task", metavar="TASK", help="Which task, if there are several.")]


@dataclass(frozen=True)
class Invocation:
    """What a command works with: resolved settings, the state folder, a clock."""

    settings: Settings
    places: Places
    clock: Callable[[], float] = time.time

    @property
    def home(self) -> Home:
        return Home(self.settings.state)

    def store(self) -> Store:
        """The board's store, made if it is missing. Use it as a context manager."""
        from edgectl.store import Store

        return Store.open(self.home.ensure().database)

    @property
    def threads(self) -> int:
        """Threads for training and inference, never more than this process may use; 0 in the settings means all."""
        usable = len(os.sched_getaffinity(0))
        return min(self.with_profile().whole("threads") or usable, usable)

    @property
    def profile_id(self) -> str:
        """The profile that the settings name, or else the one that fits this board."""
        from edgectl.board import profile

        return self.settings.text("profile") or profile.detect(site=self.places.profiles)

    def with_profile(self) -> Settings:
        """The settings, with what the board's profile recommends where nothing else is set."""
        from edgectl.board import profile

        name = self.profile_id
        return self.settings.below(f"profile {name}", profile.recommended(profile.load(name, self.places.profiles)))

    @property
    def head_above(self) -> int | None:
        """The largest model, in weights, that may be trained whole here; None: any. Raises ResourcesRefused where none
        may."""
        settings = self.with_profile()
        scope, origin = settings.text("train_scope"), settings.settings["train_scope"].origin
        if scope == "none":
            from edgewire.errors import ResourcesRefused

            raise ResourcesRefused(
                f"this board does not train ({origin}: train_scope is 'none')",
                hint="it syncs and infers; to train nevertheless: edgectl config set train_scope head",
            )
        return 0 if scope == "head" else settings.whole("train_whole_parameters") or None

    def keep(self, store: Store, task_id: str) -> int:
        """Let go of samples that are older or more than the settings allow; how many went."""
        from edgectl import retention

        limits = retention.Limits(self.settings.whole("samples_most"), self.settings.whole("samples_days"))
        return retention.apply(self.home, store, task_id, limits, now=self.clock())

    def task_id(self, flag: str | None) -> str | None:
        """The task named by --task or by the settings; None: the only one there is."""
        return flag or self.settings.text("task")


def invocation(ctx: typer.Context) -> Invocation:
    """What `edgectl.cli` prepared for this command."""
    return cast(Invocation, ctx.find_root().obj)
