"""Ages and dates as people write them on a command line."""

from __future__ import annotations

import re
import time
from calendar import timegm

from edgewire.errors import UsageError

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def seconds(text: str) -> float:
    """'90d', '12h', '30m', '45s', '2w' in seconds. Raises UsageError."""
    match = re.fullmatch(r"(\d{1,6})([smhdw])", text.strip())
    if match is None:
        raise UsageError(f"'{text}' is no length of time", hint="write it like 90d, 12h or 30m")
    return float(int(match[1]) * _UNITS_S[match[2]])


def moment(text: str, *, now: float) -> float:
    """A date ('2031-01-31': its end, UTC) or a length of time from now, in seconds since 1970. Raises UsageError unless
    it lies ahead."""
    try:
        at = timegm(time.strptime(text, "%Y-%m-%d")) + 86399.0
    except ValueError:
        at = now + seconds(text)
    if at <= now:
        raise UsageError(f"'{text}' has passed", hint="give a date that lies ahead")
    return at


def day(at: float) -> str:
    """The date of a moment, UTC."""
    return time.strftime("%Y-%m-%d", time.gmtime(at))
