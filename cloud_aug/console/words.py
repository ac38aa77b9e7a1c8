"""How pages write numbers and times. What is not known is a dash, never a zero."""

from __future__ import annotations

import datetime

from markupsafe import Markup

UNKNOWN = "–"
_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))


def moment(seconds: float | None) -> str:
    """Seconds since 1970 as date and time, UTC."""
    if seconds is None:
        return UNKNOWN
    return _utc(seconds).strftime("%Y-%m-%d %H:%M:%S")


def ago(seconds: float | None, now: float) -> Markup:
    """How long since, with the moment itself for whoever points at it; the script keeps it true."""
    if seconds is None:
        return Markup("<span>{}</span>").format(UNKNOWN)
    at = _utc(seconds).strftime("%Y-%m-%dT%H:%M:%SZ")
    told = Markup('<time datetime="{}" title="{} UTC" data-ago>{}</time>')
    return told.format(at, moment(seconds), f"{span(now - seconds)} ago")


def span(seconds: float) -> str:
    """A length of time in its largest unit."""
    for unit_s, name in _UNITS:
        if seconds >= unit_s:
            return f"{int(seconds // unit_s)} {name}"
    return f"{max(0, int(seconds))} s"


def number(value: float | None, digits: int = 0) -> str:
    """With thousands apart."""
    return UNKNOWN if value is None else f"{value:,.{digits}f}"


def gain(value: float | None) -> str:
    """A difference in accuracy, in points of a hundred."""
    return UNKNOWN if value is None else f"{100 * value:+.1f}"


def size(count: float | None) -> str:
    """Bytes in a unit that fits."""
    if count is None:
        return UNKNOWN
    for name in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or name == "GiB":
            return f"{count:.0f} {name}" if name == "B" else f"{count:.1f} {name}"
        count /= 1024
    return UNKNOWN


def clock(seconds: float) -> str:
    """The time of day, UTC, as a chart's axis has it."""
    return _utc(seconds).strftime("%d %b %H:%M")


def _utc(seconds: float) -> datetime.datetime:
    # a board's clock may say anything
    return datetime.datetime.fromtimestamp(min(max(seconds, 0.0), 250e9), datetime.timezone.utc)
