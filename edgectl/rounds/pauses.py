"""How long a board stays away from rounds that it cannot take part in. Kept on disk: who asks next may be another
process."""

from __future__ import annotations

from dataclasses import dataclass

from edgectl import __version__
from edgectl.config import Settings
from edgewire.decoding import encode
from edgewire.files import digest

NEVER_S = 3600.0  # until it asks again where only its owner can change something
RETRY_S = 60.0  # where it may pass


@dataclass(frozen=True)
class Pause:
    """until: seconds since 1970; note: why; mark: see `mark_of`."""

    until: float
    note: str
    mark: str

    def holds(self, mark: str, now: float) -> bool:
        """Not with other settings, and not after a clock that jumped."""
        return self.mark == mark and now < self.until <= now + NEVER_S


def mark_of(settings: Settings) -> str:
    """Of settings and version: with others a board may do what it could not."""
    return digest(encode([__version__, {name: one.value for name, one in settings.settings.items()}]))
