"""The way to this board's cloud, as settings and enrolment say."""

from __future__ import annotations

from edgectl.cloud import HttpCloud
from edgectl.config import Settings
from edgectl.enrolment import Enrolment
from edgectl.home import Home
from edgewire.signing import SigningKey


def connect(home: Home, known: Enrolment, settings: Settings, *, deadline: float | None) -> HttpCloud:
    """deadline: on the monotonic clock, for all that is asked of it. Close it in the end."""
    return HttpCloud(
        known.url,
        ca_bundle=home.ca_bundle,
        key=SigningKey.load(home.key),
        board=known.board,
        token_cache=home.access_token,
        deadline=deadline,
        use_proxy=settings.flag("proxy"),
    )
